"""A network's configuration: a YAML file such as ``config/networks/compact.yaml``.

::

    network: compact                                # its name
    architecture: {backbone: compact, ...}          # by default the shipped network's
    weights: models/siamcar_compact.safetensors     # shipped, relative to this file, or null
    tracker: {decoder: upsampled, penalty_k: 0.04, window_influence: 0.44, lr: 0.33}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from siamcar_ros.resources import (
    network_file,
    network_names,
    read_yaml,
    refuse_unknown,
    resource_path,
    shortened,
)

_KEYS = ("network", "architecture", "weights", "tracker")


@dataclass(frozen=True)
class NetworkConfig:
    """A configuration, read and checked.

    Attributes:
        name: of the network.
        path: of the file.
        architecture: of the network, not yet checked; the shipped one's if the file gives none.
        weights: their file, None without one; one that the configuration names may be missing.
        knobs: its parameters of the tracker, not yet checked.
    """

    name: str
    path: Path
    architecture: Mapping[str, Any] | None = field(default=None, hash=False)
    weights: Path | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def identity(self) -> str:
        """Name and architecture as text."""
        return json.dumps([self.name, self.architecture], sort_keys=True, default=str)


def read_network_config(config: str | Path, weights: str | Path | None = None) -> NetworkConfig:
    """Read a configuration, a shipped one by its name ("compact") or a YAML file.

    The file `weights` takes the place of the configuration's.

    Raises:
        ValueError: an unknown name or key, or a value that is refused.
        FileNotFoundError: no such file, or the given `weights` do not exist.
    """
    path = network_file(config)
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no keys; it needs {', '.join(_KEYS)}")
    refuse_unknown(content, _KEYS, f"{path}: key")
    if not isinstance(content.get("network"), str):
        raise ValueError(f"{path}: 'network' must name one, such as compact")
    knobs = content.get("tracker") or {}
    if not isinstance(knobs, dict):
        raise ValueError(f"{path}: 'tracker' holds parameters by name, not {shortened(knobs)}")
    name, architecture = content["network"], content.get("architecture")
    if architecture is None and name in network_names():
        architecture = read_yaml(network_file(name)).get("architecture")
    found = _weights_path(weights, content.get("weights"), path)
    return NetworkConfig(name, path, architecture, found, knobs)


def _weights_path(asked: str | Path | None, named: object, config: Path) -> Path | None:
    """The file given or, without one, the file that the configuration names."""
    if asked is not None:
        if not Path(asked).is_file():
            raise FileNotFoundError(f"the weights file {asked} does not exist")
        return Path(asked)
    if named is None:
        return None
    if not isinstance(named, str):
        raise ValueError(
            f"{config}: 'weights' is the path of a file or null, not {shortened(named)}"
        )
    beside = config.parent / named  # an absolute path replaces the parent
    try:
        return beside if beside.is_file() else resource_path(named)
    except (FileNotFoundError, ValueError):
        return Path(named)
