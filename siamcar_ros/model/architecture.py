"""A network's architecture, as ``config/networks/NAME.yaml`` describes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamcar_ros.resources import network_file, read_yaml, shortened

from .head import CONVOLUTIONS, NORMS


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
    input_scale: float = 1.0
    channels: int | None = 256
    head_channels: int = 256
    head_depth: int = 4
    head_convolution: str = "dense"
    norm: str = "group"
    location_shift: int = 0


def read_architecture(network: str | Path) -> tuple[str, Architecture]:
    """The name and architecture of a network.

    Args:
        network: a shipped network's name, or the path of a YAML file (``.yaml`` or ``.yml``) with
            the keys ``network``, its name, and ``architecture``.

    Raises:
        ValueError: no network of that name, or a file that does not describe one.
        FileNotFoundError: no such file.
    """
    path = network_file(network)
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("network"), str):
        raise ValueError(f"{path}: the key 'network' must give the network's name")
    return content["network"], _parse(content.get("architecture"), path)


def _parse(section: Any, path: Path) -> Architecture:
    fields = {field.name: field for field in dataclasses.fields(Architecture)}
    if not isinstance(section, Mapping) or "backbone" not in section:
        raise ValueError(
            f"{path}: 'architecture' must name a backbone and may give {', '.join(fields)}"
        )
    unknown = [str(key) for key in section if key not in fields]
    if unknown:
        raise ValueError(
            f"{path}: architecture.{unknown[0]} is unknown; there are {', '.join(fields)}"
        )
    values = dict(section)
    for key, value in values.items():
        kind = str(fields[key].type)
        optional = value is None and "None" in kind
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if "str" in kind:
            valid = isinstance(value, str)
        elif kind == "float":
            valid = number and value > 0
        else:
            valid = optional or (isinstance(value, int) and number and value >= 0)
        if not valid:
            raise ValueError(f"{path}: architecture.{key} must be {kind}, not {shortened(value)}")
    for key, known in (("norm", NORMS), ("head_convolution", CONVOLUTIONS)):
        if key in values and values[key] not in known:
            raise ValueError(
                f"{path}: architecture.{key} may be {', '.join(known)}, not "
                f"{shortened(values[key])}"
            )
    return Architecture(**values)
