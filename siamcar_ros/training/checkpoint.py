"""Checkpoints: everything that a killed run needs to continue exactly where it was.

Random generators have no state to save: their numbers follow from the seed and the step.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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

from .recipe import Recipe, flatten, recipe_from_dict, to_yaml

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
_ADVICE = "give another output, or remove it"


def run_metadata(recipe: Recipe, data: str) -> dict[str, str]:
    """The metadata that a run writes with its weights; `data` is its data sets' fingerprint."""
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
    """
    content = {name: part.state_dict() for name, part in parts.items()}
    with _written_whole(path) as place, place.open("wb") as file:
        torch.save({**content, "step": step, "metadata": dict(metadata)}, file)


def load_checkpoint(
    path: Path, parts: Mapping[str, Any], recipe: Recipe, metadata: Mapping[str, str]
) -> int:
    """Restore the parts of a run that :func:`save_checkpoint` wrote; nothing in it is executed.

    Return the number of steps done; 0 if there is no checkpoint.
    """
    if not path.is_file():
        return 0
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        stored = content["metadata"]
        _check_same_run(path, recipe, stored, metadata)
        try:
            for name, part in parts.items():
                part.load_state_dict(content[name])
        except (RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{path} is of another network than {recipe.network} is now; {_ADVICE}"
            ) from error
        step = int(content["step"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} is damaged, or no checkpoint of a training run: remove it to start over, or "
            "give another output"
        ) from error
    logger.info("continuing from step %d of %s", step, path)
    return step


def write_weights(path: Path, model: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a network's weights as safetensors; the file appears whole or not at all."""
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
        reason = getattr(cause, "strerror", None) or str(error).splitlines()[0]
        kept = "; the earlier one is kept" if path.exists() else ""
        raise OSError(f"{path} cannot be written: {reason}{kept}") from None


def _check_same_run(
    path: Path, recipe: Recipe, stored: Mapping[str, str], metadata: Mapping[str, str]
) -> None:
    try:
        before = flatten(recipe_from_dict(parse_yaml(stored["recipe"], "recipe")))
    except ValueError as error:  # keys change from version to version
        raise ValueError(
            f"{path} has a recipe that this version cannot read ({error}); {_ADVICE}"
        ) from None
    now = flatten(recipe)
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(_MAY_DIFFER)
    ]
    if changed:
        raise ValueError(
            f"{path} was written by another recipe ({', '.join(changed)} differ); {_ADVICE}"
        )
    if stored["data"] != metadata["data"]:
        raise ValueError(f"{path} belongs to a run on different data; {_ADVICE}")
    if stored.get("teacher") != metadata.get("teacher"):
        raise ValueError(
            f"{path} belongs to a run whose teacher was not {recipe.teacher.weights}; {_ADVICE}"
        )


def _revision() -> str:
    """The git revision of the checkout, with "-dirty" if its files have changed; or the version."""
    checkout = Path(__file__).resolve().parents[2]
    commands = ("git rev-parse HEAD", "git status --porcelain -uno")
    run = partial(subprocess.check_output, cwd=checkout, stderr=subprocess.DEVNULL, timeout=20)
    if (checkout / "package.xml").is_file():  # else git would answer for a folder around it
        with suppress(OSError, subprocess.SubprocessError):
            head, changes = (run(each.split(), text=True).strip() for each in commands)
            return f"{head}-dirty" if changes else head
    return f"version {__version__}"
