"""Recipes: the settings of a training run, from YAML and the command line.

    base: siamcar_r50        # another recipe, which this one changes
    network: resnet50
    variant: code            # which of the variants below applies
    variants:
      code: {batch: 80}      # keys as on the command line, dots for sections
    optimizer: {lr: 0.005}

Keys that a recipe leaves out have the defaults given here. ``key=value`` on the command line
overrides everything else. Unknown keys are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml

from siamcar_ros.options import Range, assignments, filled
from siamcar_ros.resources import (
    given_or_shipped,
    parse_yaml,
    read_yaml,
    refuse_unknown,
    resource_path,
    shipped_names,
    shortened,
)

from .augment import AugmentParams, NotNegative, Probability
from .losses import BoxLoss, Positives, Quality

Count: TypeAlias = Annotated[int, Range(1)]
Positive: TypeAlias = Annotated[float, Range(0, above=True)]


@dataclass(frozen=True)
class DataRecipe:
    """The training pairs."""

    sets: dict[str, Any] = field(default_factory=dict)  # by name, as for data.build_mixture
    pairs_per_epoch: Count = 64_000
    # The run fails if more than this share of the draws, from the 1,000th on, met a missing or
    # broken file.
    max_fault_share: Probability = 0.01


@dataclass(frozen=True)
class LossRecipe:
    """The losses; :func:`~siamcar_ros.training.siamcar_loss` explains all but the weights."""

    cls: NotNegative = 1.0  # the weights of classification, regression and centerness (as paper)
    reg: NotNegative = 3.0
    cen: NotNegative = 1.0
    positives: Positives = "center"
    balanced: bool = True
    centerness_weighted: bool = True
    box: BoxLoss = "iou"
    oversize: NotNegative = 0.0
    quality: Quality = "centerness"


@dataclass(frozen=True)
class TeacherRecipe:
    """A trained network from whose maps the new one learns, besides the true boxes."""

    network: str = "resnet50"  # its cells must coincide with those of the network in training
    weights: str | None = None  # its file; None for no teacher
    weight: NotNegative = 1.0  # of its term in the loss, whose parts have the weights of `loss`


@dataclass(frozen=True)
class OptimizerRecipe:
    """The optimizer."""

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.005  # what the schedule scales
    momentum: Probability = 0.9  # of SGD
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW
    weight_decay: NotNegative = 1e-4
    decay_vectors: bool = True  # whether biases and norms decay as well
    clip: NotNegative = 10.0  # the largest gradient norm; 0 for no limit
    give_up_after: Count = 20  # steps in a row without a finite gradient after which the run fails


@dataclass(frozen=True)
class ScheduleRecipe:
    """The rate over time, as a factor of ``optimizer.lr``.

    "log" is the authors' schedule: constant within an epoch, it rises geometrically from
    ``warmup_from`` over the warm-up, then falls geometrically to ``final``. "cosine" rises linearly
    from 0 over the warm-up, stays, and falls by a cosine to ``final`` over the last
    ``decay_epochs``.
    """

    kind: Literal["log", "cosine"] = "log"
    warmup_epochs: NotNegative = 5  # may be fractional for "cosine"
    warmup_from: Probability = 0.2
    final: NotNegative = 0.1
    decay_epochs: NotNegative | None = None  # None, and at most: all that follow the warm-up


@dataclass(frozen=True)
class BackboneRecipe:
    """How the backbone is trained."""

    initial: str | None = None  # weights to start from: of a backbone (ImageNet) or whole network
    frozen_epochs: Annotated[int, Range(0)] = 0  # in which weights and statistics are kept
    train: tuple[str, ...] = ()  # the parts that are trained afterwards; all if empty
    lr_factor: NotNegative = 1.0  # its learning rate relative to the rest


@dataclass(frozen=True)
class ComputeRecipe:
    """Devices and arithmetic."""

    device: str = "auto"  # or "cpu", "cuda", "cuda:N"; under torchrun each process has its own GPU
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # autocast: weights are fp32
    compile: bool = False  # pass the network through torch.compile
    # On a GPU, run the forward and backward pass as a CUDA graph; no effect with `compile` or with
    # several processes.
    cuda_graph: bool = True
    # "direct" is the grouped convolution; "auto" is "fft" on a CPU, where its backward pass is
    # faster, in bf16 by far.
    correlation: Literal["auto", "direct", "fft"] = "auto"
    # "sync" takes the statistics over all GPUs.
    batchnorm: Literal["train", "sync", "frozen"] = "train"
    # Change light, sharpness, compression and noise in batches on the training device, not image by
    # image in the workers.
    augment_on_device: bool = False
    workers: Annotated[int, Range(0)] = 2  # loader processes of each training process
    threads: Count | None = None  # of the training process on the CPU; None: PyTorch's choice


@dataclass(frozen=True)
class LogRecipe:
    """What is written during a run, with the intervals in steps."""

    every: Count = 50  # losses, rate and speed
    images_every: Count = 2000  # sample pairs with true and predicted boxes
    checkpoint_every: Count = 500  # what a killed run resumes from
    keep_every_epochs: Count = 5  # epochs after which the (averaged) weights are kept in a file
    tensorboard: bool = True  # write event files


@dataclass(frozen=True)
class ValidationRecipe:
    """Validation by tracking."""

    sequences: str | None = None  # a folder of sequences; None for no validation
    frames: Annotated[int, Range(2)] | None = None  # of each sequence at most; None for all
    every_epochs: Positive = 1


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    network: str = "compact"
    output: str = "runs/train"  # folder of checkpoints and logs
    seed: Annotated[int, Range(0)] = 0  # of the initial weights and of every pair
    epochs: Positive = 20  # may be fractional
    batch: Count = 32  # pairs per step, over all processes
    # Decay of the exponential average of the weights, ramped up from 0; 0 for none.
    average: Annotated[float, Range(0, 0.99999)] = 0.0
    data: DataRecipe = field(default_factory=DataRecipe)
    augment: AugmentParams = field(default_factory=AugmentParams)
    loss: LossRecipe = field(default_factory=LossRecipe)
    teacher: TeacherRecipe = field(default_factory=TeacherRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    backbone: BackboneRecipe = field(default_factory=BackboneRecipe)
    compute: ComputeRecipe = field(default_factory=ComputeRecipe)
    log: LogRecipe = field(default_factory=LogRecipe)
    validation: ValidationRecipe = field(default_factory=ValidationRecipe)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return max(1, self.data.pairs_per_epoch // self.batch)

    @property
    def steps(self) -> int:
        """Length of the run in steps."""
        return max(1, round(self.epochs * self.steps_per_epoch))


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe: a YAML file, or a shipped one by its name.

    `overrides` are ``key=value`` texts, dots between sections, values in YAML. ``variant=NAME``
    picks one of the file's variants.

    Raises:
        ValueError: not YAML, a value that is refused, or an unknown name; the nearest is named.
        OSError: the file cannot be read.
    """
    given = {
        key: parse_yaml(value, f"the value of {key}")
        for key, value in assignments(overrides, "a recipe").items()
    }
    content = read_recipe(recipe, vary="variant" not in given)
    _vary(content, given.pop("variant", None))
    content.pop("variants", None)
    for key, value in given.items():
        _assign(content, key, value)
    return recipe_from_dict(content)


def read_recipe(recipe: str | Path, *, vary: bool = True, depth: int = 0) -> dict[str, Any]:
    """The keys of a recipe file over those of its base.

    Each file's own `variant` is applied before the next file changes the result, unless that one
    names a variant, too; with `vary` false none is.
    """
    path = Path(recipe)
    if path.suffix not in (".yaml", ".yml"):
        refuse_unknown([str(recipe)], shipped_names("config/train"), "recipe")
        path = resource_path(f"config/train/{recipe}.yaml")
    content = read_yaml(given_or_shipped(str(path))) or {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no keys")
    vary_base = vary and "variant" not in content
    base, variant = content.pop("base", None), content.pop("variant", None)
    if base is not None:
        if depth > 3:
            raise ValueError(f"{path}: the recipes named by 'base' form a circle, or a long chain")
        beside = path.parent / str(base)
        below = beside if beside.is_file() else str(base)
        content = _over(read_recipe(below, vary=vary_base, depth=depth + 1), content)
    if vary:
        _vary(content, variant)
    return content


def _vary(content: dict[str, Any], variant: object) -> None:
    """Set the keys of one of the recipe's variants, if one is named."""
    if variant is None:
        return
    variants = _keys(content.get("variants"), "variants")
    refuse_unknown([variant], variants, "variant")
    for key, value in _keys(variants[str(variant)], f"variants.{variant}").items():
        _assign(content, key, value)


def _keys(section: object, name: str) -> dict[str, Any]:
    """What a section holds; an empty one holds nothing."""
    if not isinstance(section, dict | None):
        raise ValueError(f"{name} must hold keys, not {shortened(section)}")
    return {str(key): value for key, value in (section or {}).items()}


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        below = base.get(key)
        sections = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _over(dict(below or {}), value) if sections else value
    return merged


def recipe_from_dict(content: Mapping[str, Any]) -> Recipe:
    """A recipe from nested mappings, with defaults for what is left out."""
    recipe = filled(Recipe, content, "")
    if recipe.teacher.weights is None and recipe.teacher != TeacherRecipe():
        raise ValueError(
            "teacher.network or teacher.weight is set, but no teacher is: give its weights, "
            "teacher.weights=FILE"
        )
    for name, options in recipe.data.sets.items():
        if not isinstance(options, dict):
            raise ValueError(f"data.sets.{name} must hold keys, not {options!r}")
    return recipe


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Every value by its dotted key, as the command line names it."""

    def walk(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, inner in value.items():
            if isinstance(inner, dict) and inner:
                yield from walk(inner, f"{prefix}{key}.")
            else:
                yield prefix + key, inner

    return dict(walk(dataclasses.asdict(recipe), ""))


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe, readable by :func:`load_recipe`."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False)


def _assign(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dictionaries, without touching those it was read from."""
    first, _, rest = key.partition(".")
    if not rest:
        content[first] = value
        return
    inner = content.get(first)
    content[first] = dict(inner) if isinstance(inner, dict) else {}
    _assign(content[first], rest, value)
