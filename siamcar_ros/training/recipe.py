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
from typing import Annotated, Any

import yaml

from siamcar_ros.options import Range, filled
from siamcar_ros.resources import (
    given_or_shipped,
    parse_yaml,
    read_yaml,
    refuse_unknown,
    resource_path,
    shipped_names,
)

from .augment import AugmentParams
from .recipe_sections import (
    BackboneRecipe,
    ComputeRecipe,
    Count,
    DataRecipe,
    LogRecipe,
    LossRecipe,
    OptimizerRecipe,
    Positive,
    ScheduleRecipe,
    TeacherRecipe,
    ValidationRecipe,
)


class RecipeError(ValueError):
    """A recipe cannot be used; the message names the key."""


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
        ValueError: not YAML, a value that is refused, or an unknown name; the nearest is named.
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
        ValueError, OSError: as :func:`load_recipe`.
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
        ValueError: as :func:`load_recipe`.
    """
    recipe = filled(Recipe, content, "")
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

    def walk(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
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
