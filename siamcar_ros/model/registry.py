"""The registry of backbones, and the geometry that follows from their strides."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from siamcar_ros.geometry import SEARCH_SIZE, TEMPLATE_SIZE


class Backbone(nn.Module):
    """The interface of a backbone.

    Its method forward maps (B, 3, H, W) images, float32 BGR times the architecture's `input_scale`,
    to one (B, C, h, w) tensor a level. The first level is the finest; a coarser one covers the same
    places from its first cell to its last, and the neck interpolates it to the first one's cells.

    Attributes:
        levels: channels of each level.
    """

    levels: tuple[int, ...]

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert pretrained weights from another layout; by default unchanged."""
        return state


class BackboneEntry(NamedTuple):
    """A registered backbone; `stride` and `first_cell` are those of :func:`register_backbone`."""

    factory: Callable[[], Backbone]
    stride: int
    first_cell: int

    def cells(self, size: int) -> int:
        """Cells across the first level for an image of `size` pixels; the grid is centered."""
        return (size - 1 - 2 * self.first_cell) // self.stride + 1


Factory = Callable[[], Backbone]
_BACKBONES: dict[str, BackboneEntry] = {}


def register_backbone(name: str, *, stride: int, first_cell: int) -> Callable[[Factory], Factory]:
    """Register a backbone's class, or a function that returns one, under a name.

    Modules in ``siamcar_ros/model/backbones`` are imported on first use; others must be imported by
    whoever uses them.

    Args:
        name: for ``backbone`` in a network's configuration.
        stride: pixels between neighboring cells of the first level.
        first_cell: the center of the first level's first cell, in pixels from the image's first.

    Raises:
        ValueError: the name is taken.
    """

    def register(factory: Factory) -> Factory:
        if name in _BACKBONES:
            raise ValueError(f"a backbone is already registered as {name!r}")
        _BACKBONES[name] = BackboneEntry(factory, stride, first_cell)
        return factory

    return register


def backbone_names() -> tuple[str, ...]:
    """The registered names, sorted."""
    from . import backbones

    for module in pkgutil.iter_modules(backbones.__path__):
        importlib.import_module(f"{backbones.__name__}.{module.name}")
    return tuple(sorted(_BACKBONES))


def find_backbone(name: str) -> BackboneEntry:
    """The registered backbone of that name."""
    names = backbone_names()
    if name not in names:
        raise ValueError(f"no backbone is called {name!r}; there are {', '.join(names)}")
    return _BACKBONES[name]


@torch.inference_mode()
def check_backbone(entry: BackboneEntry, backbone: Backbone) -> None:
    """Refuse a new backbone that differs from its registration in a dry run (ValueError)."""
    backbone.eval()
    for size in (TEMPLATE_SIZE, SEARCH_SIZE):
        shapes = [level.shape[1:] for level in backbone(torch.empty(0, 3, size, size))]
        cells = entry.cells(size)
        if tuple(shape[0] for shape in shapes) != tuple(backbone.levels):
            raise ValueError(
                f"{type(backbone).__name__} gives levels of {[shape[0] for shape in shapes]} "
                f"channels, but its attribute 'levels' says {list(backbone.levels)}"
            )
        if shapes[0][1:] != (cells, cells):
            raise ValueError(
                f"{type(backbone).__name__} gives {shapes[0][1]}x{shapes[0][2]} cells for {size} "
                f"pixels; stride {entry.stride} and first_cell {entry.first_cell} make {cells}"
            )
        for _, rows, columns in shapes[1:]:
            if rows != columns or rows < 2 or (cells - 1) % (rows - 1):
                raise ValueError(
                    f"{type(backbone).__name__} gives a level of {rows}x{columns} cells for {size} "
                    f"pixels, which does not align with the first level's {cells}x{cells}"
                )
    backbone.train()
