"""Checkpoints: everything a killed run needs to go on, in one safetensors file.

There is no pickle in it. Random numbers need no state: each step's follow from the seed and the
step's number. A file is written beside its place and moved there, so that a reader finds the old
one or the new one, whole.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from siamcar_ros import __version__
from siamcar_ros.model import WeightsError, read_metadata


def save_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    metadata: Mapping[str, str],
) -> None:
    """Write the state of a run, atomically and flushed to disk.

    Args:
        path: the file.
        model: the network in training.
        average: its averaged copy, if there is one.
        optimizer: its state is kept by the parameters' numbers.
        metadata: texts beside the tensors: step, recipe, revision, ...
    """
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
    write_atomically(path, tensors, metadata)


def write_atomically(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors and texts as safetensors; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    save_file(plain, str(part), {"format": "pt", **metadata})
    part.chmod(0o644)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def load_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
) -> dict[str, str]:
    """Bring a run back to where its checkpoint was written.

    Returns:
        the texts that were stored.

    Raises:
        WeightsError: the file is not readable, or of another network or optimizer.
    """
    metadata = read_metadata(path)
    tensors = load_file(str(path))
    try:
        model.load_state_dict(_part(tensors, "model."))
        if average is not None:
            average.load_state_dict(_part(tensors, "average."))
        for index, parameter in enumerate(_parameters(optimizer)):
            stored = _part(tensors, f"optimizer.{index}.")
            if stored:
                optimizer.state[parameter] = {
                    name: _like(parameter, value) for name, value in stored.items()
                }
    except RuntimeError as error:
        raise WeightsError(f"{path} is of another network: {error}") from error
    return metadata


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """Optimizer state where and as its parameter lies; counters stay on the CPU."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def revision() -> str:
    """The git revision of this code, marked where files were changed; else the version."""
    folder = Path(__file__).resolve().parent
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(folder), *command],
                capture_output=True,
                text=True,
                check=True,
                timeout=20,
            ).stdout.strip()
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno", "."))
        )
    except (OSError, subprocess.SubprocessError):
        return f"version {__version__}"
    return f"{head}{' with changes' if changes else ''}"


def encode(value: Any) -> str:
    """A value as a text for the metadata."""
    return json.dumps(value)
