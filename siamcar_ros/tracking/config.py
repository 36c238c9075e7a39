"""From the name or path of a network's configuration to a network and a tracker's parameters.

A configuration is a YAML file such as ``config/networks/compact.yaml``::

    network: compact                                # a name of siamcar_ros.model.MODEL_NAMES
    weights: models/siamcar_compact.safetensors     # shipped, or a path beside the file; or null
    tracker: {decoder: upsampled, penalty_k: 0.04, window_influence: 0.44, lr: 0.33}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from siamcar_ros.resources import resource_path
from siamcar_ros.tracking.interface import Network, TrackerParams

_KEYS = ("network", "weights", "tracker")


@dataclass(frozen=True)
class NetworkConfig:
    """A configuration, read and checked.

    Attributes:
        network: a name of :data:`siamcar_ros.model.MODEL_NAMES`.
        weights: the file that holds them, None where the configuration names none.
        params: for the tracker.
    """

    network: str
    weights: Path | None
    params: TrackerParams


def read_config(config: str | Path, overrides: Mapping[str, Any] | None = None) -> NetworkConfig:
    """Read a configuration.

    Args:
        config: the name of a shipped one ("compact") or the path of a YAML file.
        overrides: fields of :class:`TrackerParams` that count more than the file's.

    Raises:
        ValueError: an unknown name, key or parameter, or a value that is refused.
        FileNotFoundError: no such file.
    """
    import yaml

    path = _config_path(config)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no keys; it needs {', '.join(_KEYS)}")
    _refuse_unknown(content, _KEYS, f"{path}: key")
    if not isinstance(content.get("network"), str):
        raise ValueError(f"{path}: 'network' must name one, such as compact")
    tracker = content.get("tracker") or {}
    if not isinstance(tracker, dict):
        raise ValueError(f"{path}: 'tracker' holds parameters by name, not {tracker!r}")
    _refuse_unknown(tracker, TrackerParams.names(), f"{path}: tracker parameter")
    overrides = overrides or {}
    _refuse_unknown(overrides, TrackerParams.names(), "tracker parameter")
    weights = content.get("weights")
    return NetworkConfig(
        network=content["network"],
        weights=None if weights is None else _weights_path(weights, path),
        params=TrackerParams(**{**tracker, **overrides}),
    )


def load_config(
    config: str | Path,
    weights: str | Path | None = None,
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Network, TrackerParams]:
    """The network, with its weights, and the parameters that a configuration names.

    Args:
        config: as for :func:`read_config`.
        weights: a file to use in place of the configuration's.
        device: "auto", "cpu", "cuda" or "cuda:N".
        overrides: as for :func:`read_config`.

    Raises:
        ValueError: as :func:`read_config`; there are no weights; the device is not to be had.
        FileNotFoundError: no such file.
    """
    from siamcar_ros.model import build_model, fold_batchnorm, load_weights

    read = read_config(config, overrides)
    path = Path(weights) if weights is not None else read.weights
    if path is None:
        raise ValueError(
            f"no weights ship for {read.network}: name a file (weights=..., --weights FILE)"
        )
    if not path.is_file():
        raise FileNotFoundError(f"the weights file {path} does not exist")
    model = build_model(read.network)
    load_weights(model, path)
    model = fold_batchnorm(model)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device), read.params


def _config_path(config: str | Path) -> Path:
    path = Path(config)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(f"the network configuration {path} does not exist")
        return path
    folder = resource_path("config/networks")
    shipped = folder / f"{config}.yaml"
    if not shipped.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ValueError(
            f"no network configuration is called {str(config)!r}: there are {known}; "
            "or give the path of a YAML file"
        )
    return shipped


def _weights_path(weights: object, config: Path) -> Path:
    """A path in a configuration: absolute, beside the file, or of a file that ships."""
    if not isinstance(weights, str):
        raise ValueError(f"{config}: 'weights' is the path of a file or null, not {weights!r}")
    beside = config.parent / weights  # an absolute path replaces the parent
    if beside.is_file() or Path(weights).is_absolute():
        return beside
    try:
        return resource_path(weights)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{config} names weights that are not there: {error}") from error


def _refuse_unknown(given: Mapping[Any, Any], known: tuple[str, ...], what: str) -> None:
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise ValueError(f"{what} {', '.join(unknown)} is unknown; there are {', '.join(known)}")
