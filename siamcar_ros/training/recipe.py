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
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import yaml

from siamcar_ros.data.options import Choice, Range, RecipeError, converted
from siamcar_ros.resources import (
    given_or_shipped,
    parse_yaml,
    read_yaml,
    refuse_unknown,
    resource_path,
    shipped_names,
)

from .augment import AugmentParams, NotNegative, Probability
from .losses import BOX_LOSSES, QUALITIES
from .targets import POSITIVE_RULES

Count: TypeAlias = Annotated[int, Range(1)]
Positive: TypeAlias = Annotated[float, Range(0, above=True)]


@dataclass(frozen=True)
class DataRecipe:
    """The training pairs.

    Attributes:
        sets: options of each data set by name; see
            :func:`~siamcar_ros.data.build_mixture`.
        pairs_per_epoch: length of an epoch.
        max_fault_share: the run fails if more than this share of the draws, from the 1,000th on,
            met a missing or broken file.
    """

    sets: dict[str, Any] = field(default_factory=dict)
    pairs_per_epoch: Count = 64_000
    max_fault_share: Probability = 0.01


@dataclass(frozen=True)
class LossRecipe:
    """The losses.

    Attributes:
        cls, reg, cen: their weights (paper: 1, 3, 1).
        positives: "center" (authors' code: the middle 40 % of the box) or "box" (paper, Eq. 5).
        balanced: positive and negative cells have equal weight in the cross-entropy (authors'
            code); otherwise every cell has (paper, Section 3.2).
        centerness_weighted: the box loss weighted by centerness (authors' code) or not (Eq. 4).
        box: "iou" (published) or "giou".
        oversize: the box loss of a box larger than the true one is multiplied by 1 + oversize.
        quality: what the centerness branch learns, "centerness" (published) or "iou", the overlap
            of the cell's own box with the true one.
    """

    cls: NotNegative = 1.0
    reg: NotNegative = 3.0
    cen: NotNegative = 1.0
    positives: Annotated[str, Choice(*POSITIVE_RULES)] = "center"
    balanced: bool = True
    centerness_weighted: bool = True
    box: Annotated[str, Choice(*BOX_LOSSES)] = "iou"
    oversize: NotNegative = 0.0
    quality: Annotated[str, Choice(*QUALITIES)] = "centerness"


@dataclass(frozen=True)
class TeacherRecipe:
    """A trained network from whose maps the new one learns, besides the true boxes.

    Attributes:
        network: its name; the cells of both networks must coincide.
        weights: its file; None for no teacher.
        weight: of its term in the loss, whose parts have the weights of ``loss``.
    """

    network: str = "resnet50"
    weights: str | None = None
    weight: NotNegative = 1.0


@dataclass(frozen=True)
class OptimizerRecipe:
    """The optimizer.

    Attributes:
        kind: "sgd" or "adamw".
        lr: the rate that the schedule scales.
        momentum: of SGD.
        betas: of AdamW.
        weight_decay: of weights, and with ``decay_vectors`` of biases and norms.
        clip: the largest gradient norm; 0 for no limit. A step whose gradient is not finite is
            left out.
        give_up_after: the run fails after so many steps in a row without a finite gradient.
    """

    kind: Annotated[str, Choice("sgd", "adamw")] = "sgd"
    lr: Positive = 0.005
    momentum: Probability = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: NotNegative = 1e-4
    decay_vectors: bool = True
    clip: NotNegative = 10.0
    give_up_after: Count = 20


@dataclass(frozen=True)
class ScheduleRecipe:
    """The rate over time, as a factor of ``optimizer.lr``.

    Attributes:
        kind: "log" is the authors': constant within an epoch, rising geometrically from
            ``warmup_from`` over the warm-up, then falling geometrically to ``final``. "cosine"
            rises linearly from 0 over the warm-up, stays, and falls by a cosine to ``final`` over
            the last ``decay_epochs``.
        warmup_epochs: length of the warm-up, a fraction allowed for "cosine".
        decay_epochs: length of the cosine's fall; None, and at most, all that follows the warm-up.
    """

    kind: Annotated[str, Choice("log", "cosine")] = "log"
    warmup_epochs: NotNegative = 5
    warmup_from: Probability = 0.2
    final: NotNegative = 0.1
    decay_epochs: NotNegative | None = None


@dataclass(frozen=True)
class BackboneRecipe:
    """How the backbone is trained.

    Attributes:
        initial: weights to start from, of the backbone alone (ImageNet) or of a whole network.
        frozen_epochs: epochs during which the backbone and its statistics stay as they are.
        train: the parts that are trained afterwards (all if empty); the others stay frozen.
        lr_factor: its learning rate relative to the rest.
    """

    initial: str | None = None
    frozen_epochs: Annotated[int, Range(0)] = 0
    train: tuple[str, ...] = ()
    lr_factor: NotNegative = 1.0


@dataclass(frozen=True)
class ComputeRecipe:
    """Devices and arithmetic.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N"; under torchrun each process takes its own GPU.
        precision: "fp32", "bf16" or "fp16" (autocast; the weights stay fp32).
        channels_last: memory format of the convolutions.
        compile: pass the network through ``torch.compile``.
        correlation: "direct" (grouped convolution), "fft", or "auto": "fft" on a CPU, where its
            backward pass is faster, in bf16 by far.
        batchnorm: "train", "sync" (statistics over all GPUs) or "frozen".
        augment_on_device: change light, sharpness, compression and noise in batches on the training
            device instead of image by image in the workers.
        workers: loader processes of each training process.
        threads: CPU threads of the training process; None leaves PyTorch's choice.
    """

    device: str = "auto"
    precision: Annotated[str, Choice("fp32", "bf16", "fp16")] = "fp32"
    channels_last: bool = True
    compile: bool = False
    correlation: Annotated[str, Choice("auto", "direct", "fft")] = "auto"
    batchnorm: Annotated[str, Choice("train", "sync", "frozen")] = "train"
    augment_on_device: bool = False
    workers: Annotated[int, Range(0)] = 2
    threads: Count | None = None


@dataclass(frozen=True)
class LogRecipe:
    """What is written during a run; intervals in steps.

    Attributes:
        every: losses, rate and speed.
        images_every: sample pairs with true and predicted boxes.
        checkpoint_every: the checkpoint that a killed run resumes from; the last is always written.
        keep_every_epochs: interval in epochs at which the (averaged) weights are kept in a file.
        tensorboard: write event files.
    """

    every: Count = 50
    images_every: Count = 2000
    checkpoint_every: Count = 500
    keep_every_epochs: Count = 5
    tensorboard: bool = True


@dataclass(frozen=True)
class ValidationRecipe:
    """Validation by tracking.

    Attributes:
        sequences: a folder of sequences; None for no validation.
        frames: the largest number of frames of each; None for all.
        every_epochs: interval in epochs.
    """

    sequences: str | None = None
    frames: Annotated[int, Range(2)] | None = None
    every_epochs: Positive = 1


@dataclass(frozen=True)
class Recipe:
    """A whole training run.

    Attributes:
        network: a name of :data:`~siamcar_ros.model.MODEL_NAMES`.
        output: folder of checkpoints and logs.
        seed: of the initial weights and of every pair.
        epochs: length of the run; may be fractional.
        batch: pairs per step, over all processes.
        average: decay of the exponential average of the weights, ramped up from 0; 0 for none.
    """

    network: str = "compact"
    output: str = "runs/train"
    seed: Annotated[int, Range(0)] = 0
    epochs: Positive = 20
    batch: Count = 32
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
    """Read a recipe.

    Args:
        recipe: a YAML file, or the name of a shipped recipe.
        overrides: ``key=value`` texts, dots between sections, values in YAML. ``variant=NAME``
            picks one of the file's variants.

    Raises:
        RecipeError: a value of the wrong kind or out of range.
        ValueError: not YAML, or an unknown key or name; the nearest is named.
        OSError: the file cannot be read.
    """
    content = read_recipe(recipe)
    given = dict(_assignment(text) for text in overrides)
    variants = content.pop("variants", {})
    variant = given.pop("variant", content.pop("variant", None))
    content.pop("variant", None)
    if variant is not None:
        refuse_unknown([str(variant)], variants, "variant")
        for key, value in variants[variant].items():
            _assign(content, key, value)
    for key, value in given.items():
        _assign(content, key, value)
    return recipe_from_dict(content)


def read_recipe(recipe: str | Path, depth: int = 0) -> dict[str, Any]:
    """The keys of a recipe file over those of its base.

    Raises:
        RecipeError, ValueError, OSError: as :func:`load_recipe`.
    """
    path = Path(recipe)
    if path.suffix not in (".yaml", ".yml"):
        refuse_unknown([str(recipe)], shipped_names("config/train"), "recipe")
        path = resource_path(f"config/train/{recipe}.yaml")
    content = read_yaml(given_or_shipped(str(path))) or {}
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds no keys")
    base = content.pop("base", None)
    if base is None:
        return content
    if depth > 3:
        raise RecipeError(f"{path}: the recipes named by 'base' form a circle, or a long chain")
    beside = path.parent / str(base)
    return _over(read_recipe(beside if beside.is_file() else str(base), depth + 1), content)


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        below = base.get(key)
        sections = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _over(dict(below or {}), value) if sections else value
    return merged


def recipe_from_dict(content: Mapping[str, Any]) -> Recipe:
    """A recipe from nested mappings, with defaults for what is left out.

    Raises:
        RecipeError, ValueError: as :func:`load_recipe`.
    """
    recipe = typing.cast(Recipe, _build(Recipe, content, ""))
    if recipe.teacher.weights is None and recipe.teacher != TeacherRecipe():
        raise RecipeError(
            "teacher.network or teacher.weight is set, but no teacher is: give its weights, "
            "teacher.weights=FILE"
        )
    for name, options in recipe.data.sets.items():
        if not isinstance(options, dict):
            raise RecipeError(f"data.sets.{name} must hold keys, not {options!r}")
    return recipe


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Every value by its dotted key, as the command line names it."""

    def walk(value: Any, prefix: str) -> typing.Iterator[tuple[str, Any]]:
        for key, inner in value.items():
            if isinstance(inner, dict) and inner:
                yield from walk(inner, f"{prefix}{key}.")
            else:
                yield prefix + key, inner

    return dict(walk(dataclasses.asdict(recipe), ""))


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe, readable by :func:`load_recipe`."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return yaml.safe_dump(plain(dataclasses.asdict(recipe)), sort_keys=False)


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"{text!r} is not of the form key=value")
    return key.strip(), parse_yaml(value, f"the value of {key.strip()}")


def _assign(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dictionaries, without touching those it was read from."""
    first, _, rest = key.partition(".")
    if not rest:
        content[first] = value
        return
    inner = content.get(first)
    content[first] = dict(inner) if isinstance(inner, dict) else {}
    _assign(content[first], rest, value)


def _build(kind: type, content: Any, prefix: str) -> Any:
    """A dataclass from a mapping, sections recursively."""
    if not isinstance(content, Mapping):
        raise RecipeError(f"{prefix.rstrip('.')} must hold keys, not {content!r}")
    hints = typing.get_type_hints(kind, include_extras=True)
    refuse_unknown([f"{prefix}{key}" for key in content], [prefix + name for name in hints], "key")
    values = {}
    for name, value in content.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            values[name] = _build(
                typing.cast(type, hint), {} if value is None else value, f"{prefix}{name}."
            )
        else:
            values[name] = converted(value, hint, prefix + name)
    return kind(**values)
