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
from pathlib import Path
from typing import Any

import yaml

from siamcar_ros.options import assignments, filled
from siamcar_ros.resources import (
    given_or_shipped,
    parse_yaml,
    read_yaml,
    refuse_unknown,
    resource_path,
    shipped_names,
)

from .recipe_sections import Recipe, TeacherRecipe


class RecipeError(ValueError):
    """A recipe cannot be used; the message names the key."""


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe: a YAML file, or a shipped one by its name.

    `overrides` are ``key=value`` texts, dots between sections, values in YAML. ``variant=NAME``
    picks one of the file's variants.

    Raises:
        ValueError: not YAML, a value that is refused, or an unknown name; the nearest is named.
        OSError: the file cannot be read.
    """
    content = read_recipe(recipe)
    given = {
        key: parse_yaml(value, f"the value of {key}")
        for key, value in assignments(overrides, "a recipe").items()
    }
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


def _assign(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dictionaries, without touching those it was read from."""
    first, _, rest = key.partition(".")
    if not rest:
        content[first] = value
        return
    inner = content.get(first)
    content[first] = dict(inner) if isinstance(inner, dict) else {}
    _assign(content[first], rest, value)
