"""A network's architecture, as ``config/networks/NAME.yaml`` describes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from siamcar_ros.networks import NetworkConfig, read_network_config
from siamcar_ros.options import Range, filled


@dataclass(frozen=True)
class Architecture:
    """The section ``architecture`` of a network's configuration.

    Attributes:
        backbone: a name given to :func:`~siamcar_ros.model.register_backbone`.
        input_scale: factor of the pixels.
        channels: of each level after the neck; None for no neck, in which case the template's
            features are not cropped either.
        head_channels: of the joined response map and of the towers.
        head_depth: layers of each tower.
        head_convolution: "dense" 3x3 layers (published) or "separable", a depth-wise 3x3 and a 1x1.
        norm: of the head, "group" (published) or "batch", which folds into the convolutions.
        location_shift: pixels by which the cells' nominal locations lie right of and below the
            centers of what they see: 1 in the published code for ResNets.
    """

    backbone: str
    input_scale: Annotated[float, Range(0, above=True)] = 1.0
    channels: Annotated[int, Range(1)] | None = 256
    head_channels: Annotated[int, Range(1)] = 256
    head_depth: Annotated[int, Range(0)] = 4
    head_convolution: Literal["dense", "separable"] = "dense"
    norm: Literal["group", "batch"] = "group"
    location_shift: Annotated[int, Range(0)] = 0


def read_architecture(network: str | Path | NetworkConfig) -> tuple[str, Architecture]:
    """The name and architecture of a network: of a name, a YAML file, or what was read from it."""
    config = network if isinstance(network, NetworkConfig) else read_network_config(network)
    section = config.architecture
    if not isinstance(section, dict) or "backbone" not in section:
        raise ValueError(f"{config.path}: 'architecture' must name a backbone")
    try:
        return config.name, filled(Architecture, section, "architecture.")
    except ValueError as error:
        raise ValueError(f"{config.path}: {error}") from None
