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

from siamcar_ros.resources import resource_path
from siamcar_ros.tracking.interface import Network, TrackerParams

_KEYS = ("network", "architecture", "weights", "tracker")


@dataclass(frozen=True)
class NetworkConfig:
    """A configuration, read and checked.

    Attributes:
        network: a name of :data:`siamcar_ros.model.MODEL_NAMES`.
        weights: the file that holds them, which may be missing where none was asked for; None
            where the configuration names none.
        params: for the tracker.
    """

    network: str
    weights: Path | None
    params: TrackerParams


def read_config(
    config: str | Path,
    weights: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> NetworkConfig:
    """Read a configuration.

    Args:
        config: the name of a shipped one ("compact") or the path of a YAML file.
        weights: a file to use in place of the configuration's.
        overrides: fields of :class:`TrackerParams` that count more than the file's.

    Raises:
        ValueError: an unknown name, key or parameter, or a value that is refused.
        FileNotFoundError: no such file; those asked for as `weights` are not there.
    """
    import yaml

    path = _config_path(config)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
    return NetworkConfig(
        network=content["network"],
        weights=_weights_path(weights, content.get("weights"), path),
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
        weights: as for :func:`read_config`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        overrides: as for :func:`read_config`.

    Raises:
        ValueError: as :func:`read_config`; there are no weights; the device is not to be had.
        FileNotFoundError: no such file.
    """
    from siamcar_ros.runtime import load_network

    read = read_config(config, weights, overrides)
    if read.weights is not None and not read.weights.is_file():
        raise FileNotFoundError(
            f"the configuration {config} names the weights {read.weights}, which neither ship nor "
            "lie beside it: give a file (weights=..., --weights FILE)"
        )
    return load_network(read.network, read.weights, device=device), read.params


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


def _weights_path(asked: str | Path | None, named: object, config: Path) -> Path | None:
    """The file asked for or, without one, the file that a configuration names."""
    if asked is not None:
        if not Path(asked).is_file():
            raise FileNotFoundError(f"the weights file {asked} does not exist")
        return Path(asked)
    if named is None:
        return None
    if not isinstance(named, str):
        raise ValueError(f"{config}: 'weights' is the path of a file or null, not {named!r}")
    beside = config.parent / named  # an absolute path replaces the parent
    try:
        return beside if beside.is_file() else resource_path(named)
    except (FileNotFoundError, ValueError):
        return Path(named)


def _refuse_unknown(given: Mapping[Any, Any], known: tuple[str, ...], what: str) -> None:
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise ValueError(f"{what} {', '.join(unknown)} is unknown; there are {', '.join(known)}")
