"""A network's configuration with the tracker's parameters that it sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamcar_ros.networks import NetworkConfig, read_network_config
from siamcar_ros.resources import refuse_unknown
from siamcar_ros.tracking.interface import TrackerParams


@dataclass(frozen=True)
class TrackerConfig:
    """A configuration, read and checked.

    Attributes:
        network: what :func:`siamcar_ros.runtime.load_network` loads.
        params: for the tracker.
    """

    network: NetworkConfig
    params: TrackerParams

    @property
    def weights(self) -> Path | None:
        """The network's weights, as :class:`NetworkConfig` has them."""
        return self.network.weights


def read_config(
    config: str | Path,
    weights: str | Path | None = None,
    knobs: Mapping[str, Any] | None = None,
) -> TrackerConfig:
    """Read a configuration.

    Args:
        config: the name of a shipped one ("compact") or the path of a YAML file.
        weights: a file to use in place of the configuration's.
        knobs: fields of :class:`TrackerParams` that replace the file's.

    Raises:
        ValueError: an unknown name, key or parameter, or a value that is refused.
        FileNotFoundError: no such file; those given as `weights` do not exist.
    """
    network, names = read_network_config(config, weights), TrackerParams.names()
    refuse_unknown(network.knobs, names, f"{network.path}: tracker parameter")
    refuse_unknown(knobs or {}, names, "tracker parameter")
    return TrackerConfig(network, TrackerParams(**{**network.knobs, **(knobs or {})}))
