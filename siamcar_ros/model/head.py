"""Neck and head: channel reduction, and the classification-regression subnetwork (section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPLATE_CELLS = 7
"""The template keeps the central 7x7 of its 15x15 cells; the others have seen the padding."""


class AdjustLayer(nn.Module):
    """The 1x1 reduction of a level's channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor, cells: torch.Size, crop: bool) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, *cells), or (B, outputs, 7, 7) where ``crop``."""
        x = self.downsample(x)
        if x.shape[-2:] != cells:  # the first and the last cell coincide
            x = F.interpolate(x, size=cells, mode="bilinear", align_corners=True)
        if crop:
            first = (x.shape[-1] - TEMPLATE_CELLS) // 2
            last = first + TEMPLATE_CELLS
            x = x[..., first:last, first:last].contiguous()
        return x


class Neck(nn.Module):
    """Reduces all levels to the same channels and cells, by ``downsample2`` to ``downsample4``."""

    def __init__(self, levels: Sequence[int], channels: int) -> None:
        super().__init__()
        for index, inputs in enumerate(levels):
            self.add_module(f"downsample{index + 2}", AdjustLayer(inputs, channels))

    def forward(self, features: Sequence[Tensor], crop: bool) -> tuple[Tensor, ...]:
        """Reduce all levels to the cells of the first; ``crop`` those of a template."""
        cells = features[0].shape[-2:]
        return tuple(
            layer(x, cells, crop) for layer, x in zip(self.children(), features, strict=True)
        )


class CarHead(nn.Module):
    """Two towers over the response map; classification and centerness share the first.

    Args:
        channels: of the response map and of the towers.
        depth: layers of each tower (4 in the published network).
        norm: "group" for GroupNorm of 32 groups (published), "batch" for BatchNorm, which folds
            into the convolutions.
        convolution: a layer is a "dense" 3x3 convolution (published) or "separable", a depth-wise
            3x3 and a 1x1.
    """

    def __init__(self, channels: int, depth: int, norm: str, convolution: str = "dense") -> None:
        super().__init__()
        self.cls_tower = _tower(channels, depth, norm, convolution)
        self.bbox_tower = _tower(channels, depth, norm, convolution)
        self.cls_logits = nn.Conv2d(channels, 2, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, 4, 3, padding=1)
        self.centerness = nn.Conv2d(channels, 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if norm == "group" or module.out_channels < channels:
                    nn.init.normal_(module.weight, std=0.01)
                else:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                _fill_bias(module, 0)
        if norm == "group":
            _fill_bias(self.cls_logits, -math.log((1 - 0.01) / 0.01))
        else:
            _fill_bias(self.bbox_pred, math.log(32))

    def forward(self, response: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, channels, S, S) to cls (B, 2, S, S), reg (B, 4, S, S) in pixels, cen (B, 1, S, S)."""
        shared = self.cls_tower(response)
        distances = torch.exp(self.bbox_pred(self.bbox_tower(response)))
        return self.cls_logits(shared), distances, self.centerness(shared)


def _fill_bias(convolution: nn.Conv2d, value: float) -> None:
    if convolution.bias is not None:
        nn.init.constant_(convolution.bias, value)


def _tower(channels: int, depth: int, norm: str, convolution: str) -> nn.Sequential:
    kinds = [(3, 1)] if convolution == "dense" else [(3, channels), (1, 1)]
    layers: list[nn.Module] = []
    for kernel, groups in kinds * depth:
        layers.append(
            nn.Conv2d(
                channels, channels, kernel, padding=kernel // 2, groups=groups, bias=norm == "group"
            )
        )
        layers.append(nn.GroupNorm(32, channels) if norm == "group" else nn.BatchNorm2d(channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
