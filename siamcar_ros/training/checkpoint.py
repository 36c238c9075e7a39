"""Checkpoints: everything that a killed run needs to continue exactly where it was.

Random generators have no state to save: their numbers follow from the seed and the step.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from siamcar_ros import __version__
from siamcar_ros.files import replacing, sha256
from siamcar_ros.model import WeightsError, save_weights
from siamcar_ros.resources import given_or_shipped, parse_yaml

from .recipe import Recipe, RecipeError, flatten, recipe_from_dict, to_yaml

logger = logging.getLogger(__name__)

_MAY_DIFFER = (
    "output",
    "log.",
    "validation.",
    "compute.device",
    "compute.workers",
    "compute.threads",
    "data.max_fault_share",
    "optimizer.give_up_after",
)


def run_metadata(recipe: Recipe, data: str) -> dict[str, str]:
    """The metadata that a run writes with its weights; `data` is its data sets' fingerprint.

    Raises:
        OSError: the teacher's weights cannot be read.
    """
    metadata = {
        "network": recipe.network,
        "recipe": to_yaml(recipe),
        "revision": _revision(),
        "seed": str(recipe.seed),
        "data": data,
        "torch": str(torch.__version__),  # not its own class, so that it can be unpickled safely
    }
    if recipe.teacher.weights is not None:
        metadata["teacher"] = sha256(given_or_shipped(recipe.teacher.weights))
    return metadata


def save_checkpoint(
    path: Path, step: int, parts: Mapping[str, Any], metadata: Mapping[str, str]
) -> None:
    """Write the state of a run after `step` steps; the file appears whole or not at all.

    `parts`, by name, have `state_dict` and `load_state_dict`; `metadata` is :func:`run_metadata`'s.

    Raises:
        OSError: it cannot be written; the previous one is kept.
    """
    content = {name: part.state_dict() for name, part in parts.items()}
    with _written_whole(path) as place, place.open("wb") as file:
        torch.save({**content, "step": step, "metadata": dict(metadata)}, file)


def load_checkpoint(
    path: Path, parts: Mapping[str, Any], recipe: Recipe, metadata: Mapping[str, str]
) -> int:
    """Restore the parts of a run that :func:`save_checkpoint` wrote; nothing in it is executed.

    Returns:
        the number of steps done; 0 if there is no checkpoint.

    Raises:
        RecipeError: it was written by another recipe, with other data or another teacher.
        WeightsError: it cannot be read.
    """
    if not path.is_file():
        return 0
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        stored = content["metadata"]
        _check_same_run(path, recipe, stored, metadata)
        for name, part in parts.items():
            part.load_state_dict(content[name])
        step = int(content["step"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} is damaged, or no checkpoint of a training run: remove it to start anew, or "
            "give another output"
        ) from error
    logger.info("continuing from step %d of %s", step, path)
    return step


def write_weights(path: Path, model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a network's weights as safetensors; the file appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with _written_whole(path) as place:
        save_weights(model, place, metadata)


@contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    try:
        with replacing(path) as place:
            yield place
    except (OSError, RuntimeError, SafetensorError) as error:
        # PyTorch hides the file system's error behind its own.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
        raise OSError(f"{path} cannot be written: {reason}; an earlier one is kept") from None


def _check_same_run(
    path: Path, recipe: Recipe, stored: Mapping[str, str], metadata: Mapping[str, str]
) -> None:
    advice = "give another output, or remove it"
    try:
        before = flatten(recipe_from_dict(parse_yaml(stored["recipe"], "recipe")))
    except ValueError as error:  # keys change from version to version
        raise RecipeError(
            f"{path} has a recipe that this version cannot read ({error}); {advice}"
        ) from None
    now = flatten(recipe)
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(_MAY_DIFFER)
    ]
    if changed:
        raise RecipeError(
            f"{path} was written by another recipe ({', '.join(changed)} differ); {advice}"
        )
    if stored["data"] != metadata["data"]:
        raise RecipeError(f"{path} was trained on other data; {advice}")
    if stored.get("teacher") != metadata.get("teacher"):
        raise RecipeError(
            f"{path} learned from other weights than {recipe.teacher.weights}; {advice}"
        )


def _revision() -> str:
    """The git revision of this code, with "-dirty" if its files have changed; or the version."""
    commands = ("git rev-parse HEAD", "git status --porcelain -uno .")
    run = partial(
        subprocess.check_output, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL, timeout=20
    )
    try:
        head, changes = (run(each.split(), text=True).strip() for each in commands)
    except (OSError, subprocess.SubprocessError):
        return f"version {__version__}"
    return f"{head}-dirty" if changes else head
