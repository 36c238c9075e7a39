"""Whether a run may go on from a checkpoint, and doing so."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml

from siamcar_ros.model import SiamCAR, read_metadata

from .checkpoint import load_checkpoint, revision
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
)


def run_metadata(recipe: Recipe, data: str) -> dict[str, str]:
    """What is stored beside the weights; ``data`` is the fingerprint of the data sets.

    Raises:
        OSError: the teacher's weights cannot be read.
    """
    metadata = {
        "network": recipe.network,
        "recipe": to_yaml(recipe),
        "revision": revision(),
        "seed": str(recipe.seed),
        "data": data,
        "torch": torch.__version__,
    }
    if recipe.teacher.weights is not None:
        weights = Path(recipe.teacher.weights).read_bytes()
        metadata["teacher"] = hashlib.sha256(weights).hexdigest()
    return metadata


def resume(
    path: Path,
    recipe: Recipe,
    metadata: Mapping[str, str],
    model: SiamCAR,
    average: SiamCAR | None,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> int:
    """Bring everything to where a checkpoint was written.

    Returns:
        the step to go on from, 0 where there is no checkpoint.

    Raises:
        RecipeError: the checkpoint is of another recipe, of other data or of another teacher.
        WeightsError: it cannot be read.
    """
    if not path.is_file():
        return 0
    stored = read_metadata(path)
    before = flatten(recipe_from_dict(yaml.safe_load(stored["recipe"])))
    now = flatten(recipe)
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(_MAY_DIFFER)
    ]
    if changed:
        raise RecipeError(
            f"{path} was written by another recipe ({', '.join(changed)} differ); "
            "give another output, or remove the file"
        )
    if stored["data"] != metadata["data"]:
        raise RecipeError(
            f"the data are not those that {path} was trained on; give another output, or remove it"
        )
    if stored.get("teacher") != metadata.get("teacher"):
        raise RecipeError(
            f"the teacher's weights, {recipe.teacher.weights}, are not those that {path} learned "
            "from; give another output, or remove it"
        )
    load_checkpoint(path, model=model, average=average, optimizer=optimizer)
    scaler.load_state_dict(yaml.safe_load(stored["scaler"]))
    logger.info("going on from step %s of %s", stored["step"], path)
    return int(stored["step"])
