"""Reading and writing weights: safetensors, and the authors' published ``.pth`` files.

Nothing here executes pickled code. The published checkpoints are zip archives whose pickle holds
tensors, plain containers and, in the optimizer's state, numpy scalars; they are read by
``torch.load(weights_only=True)``, which is allowed these scalars.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn


class WeightsError(ValueError):
    """A weights file that cannot be read, or that does not fit the network."""


def load_weights(model: nn.Module, path: str | Path) -> dict[str, str]:
    """Load a file into a network, completely or not at all.

    Args:
        model: a network from :func:`~siamcar_ros.model.build_model`, or its backbone, which may
            also read pretrained weights in their original layout.
        path: a ``.safetensors`` file, or a PyTorch checkpoint (``.pth``, ``.pt``, ``.tar``) that
            is a state dict or holds one under ``state_dict``, its keys with or without a leading
            ``module.``.

    Returns:
        the file's metadata (empty for a PyTorch checkpoint).

    Raises:
        FileNotFoundError: no such file.
        WeightsError: it is not a weights file, it holds objects that only executing it could
            build, or its tensors do not fit: every missing, unexpected and misshaped key is named.
    """
    state, metadata = read_weights(path)
    adapt = getattr(model, "adapt_state", None)  # a backbone's
    state = state if adapt is None else adapt(state)
    expected = model.state_dict()
    problems = _misfits(expected, state)
    if problems:
        name = getattr(model, "name", type(model).__name__)
        raise WeightsError(f"{path} does not fit the network {name!r}:\n  " + "\n  ".join(problems))
    model.load_state_dict({key: state.get(key, expected[key]) for key in expected})
    return metadata


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by key (a leading ``module.`` removed) and the metadata of a weights file.

    Raises:
        FileNotFoundError, WeightsError: as :func:`load_weights`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    if path.suffix == ".safetensors":
        with _opened(path) as file:
            keys = file.keys()
            return {key: file.get_tensor(key) for key in keys}, dict(file.metadata() or {})
    return _read_checkpoint(path), {}


def save_weights(
    model: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a network's state as safetensors, with string metadata."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    # The library's own function writes files that only their owner can read.
    Path(path).write_bytes(save(state, {"format": "pt", **(metadata or {})}))


def read_metadata(path: str | Path) -> dict[str, str]:
    """The string metadata of a safetensors file, without reading its tensors.

    Raises:
        WeightsError: not a safetensors file.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error


def _numpy_scalars() -> list[Any]:
    """What unpickling numpy scalars needs: ``scalar``, ``dtype``, and numpy 2's dtype classes."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    return [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *sorted(dtypes, key=lambda kind: kind.__name__),
    ]


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a malformed pickle fails in any way: IndexError, TypeError ...
        # PyTorch's own message recommends loading it unsafely, so it is not repeated.
        raise WeightsError(
            f"{path} is not a PyTorch checkpoint of tensors and plain containers; one that holds "
            "other objects is not loaded, as that could execute code"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(
            f"{path} holds no state dict of tensors, neither itself nor under 'state_dict'"
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _misfits(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """The reasons why a state does not fit, one line per key; batch counters may be missing."""
    problems = []
    for key, tensor in expected.items():
        if key not in state:
            if not key.endswith("num_batches_tracked"):
                problems.append(f"missing: {key} {tuple(tensor.shape)}")
        elif state[key].shape != tensor.shape:
            found, wanted = tuple(state[key].shape), tuple(tensor.shape)
            problems.append(f"misshaped: {key} is {found}, the network's is {wanted}")
        elif not torch.isfinite(state[key]).all():
            problems.append(f"not finite: {key}")
    problems += [
        f"unexpected: {key} {tuple(t.shape)}" for key, t in state.items() if key not in expected
    ]
    return problems
