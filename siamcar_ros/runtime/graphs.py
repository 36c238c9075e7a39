"""The network as two graphs for export: template, run once, and search, run for every frame.

The correlation takes one of two forms. "grouped" is a convolution whose kernels are an input, as in
the model itself. It is the faster form on CPUs, but only for batches of 1, since the number of
groups is fixed in a graph. "banded" is one matrix product per level, of rows of the search features
and banded matrices that the template graph makes of its features. It works for any batch, and in
TensorRT, since none of its kernels changes.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siamcar_ros.model import SiamCAR
from siamcar_ros.model.siamcar import Correlation


class TemplateGraph(nn.Module):
    """(B, 3, 127, 127) to the template's features in the form that the search graph takes.

    Per level, grouped: (B, C, h, w); banded: (B, C, h*W, W-w+1), W the search features' width.
    """

    def __init__(self, model: SiamCAR, banded: bool) -> None:
        super().__init__()
        self.model = model
        self.banded = banded
        with torch.no_grad():
            size = model.template_size
            parameter = next(model.parameters())
            gray = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
            height, width = model.template(gray)[0].shape[-2:]
        index, mask = _band_index(height, width, model.score_size + width - 1)
        self.index: Tensor
        self.mask: Tensor
        self.register_buffer("index", index.to(parameter.device), persistent=False)
        self.register_buffer("mask", mask.to(parameter), persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        levels = self.model.template(z)
        if not self.banded:
            return levels
        return tuple(self._bands(level) for level in levels)

    def _bands(self, kernel: Tensor) -> Tensor:
        flat = kernel.flatten(2)
        picked = flat.index_select(2, self.index.flatten())
        return picked.unflatten(2, self.index.shape) * self.mask


class SearchGraph(nn.Module):
    """(B, 3, 255, 255) and the template graph's outputs to cls, reg, cen and features.

    The features are what the head reads, (B, C, S, S).
    """

    def __init__(self, model: SiamCAR, banded: bool) -> None:
        super().__init__()
        self.model = model
        self.reduce = _plain_convolution(model.down)
        head = model.car_head
        # One kernel for both: with so few outputs, a second one costs as much as the first.
        self.cls_cen = _side_by_side(head.cls_logits, head.centerness)
        # A distance is exp(u + b), computed as exp(u) exp(b): in compact u lies about 0 and u + b
        # about 3.5, where bfloat16 is coarser by far (1.6 % of the distance).
        self.log_distances = copy.deepcopy(head.bbox_pred)
        self.log_distances.bias = None
        assert head.bbox_pred.bias is not None
        self.unit: Tensor
        unit = head.bbox_pred.bias.detach().exp().reshape(1, -1, 1, 1)
        self.register_buffer("unit", unit, persistent=False)
        self.correlate: Correlation = _banded if banded else _grouped

    def forward(self, x: Tensor, *template: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        reduced = self.reduced(x, *template)
        scores = self.scores(reduced)
        return scores[:, :2], self.distances(reduced), scores[:, 2:], reduced

    def reduced(self, x: Tensor, *template: Tensor) -> Tensor:
        """The levels' responses, reduced to the head's channels."""
        if self.model.input_scale != 1:  # not folded
            x = x * self.model.input_scale
        features = self.model.backbone(x)
        if self.model.neck is not None:
            features = self.model.neck(features, crop=False)
        response = [self.correlate(f, t) for f, t in zip(features, template, strict=True)]
        return self.reduce(torch.cat(response, 1))

    def distances(self, reduced: Tensor) -> Tensor:
        """(B, 4, S, S) pixels."""
        tower = self.model.car_head.bbox_tower(reduced)
        return torch.exp(self.log_distances(tower)) * self.unit

    def scores(self, reduced: Tensor) -> Tensor:
        """(B, 3, S, S) logits: background, foreground, centerness."""
        return self.cls_cen(self.model.car_head.cls_tower(reduced))


def example_inputs(model: SiamCAR, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A fixed template and search image of colored blocks, float32 BGR 0..255."""
    random = np.random.default_rng(seed)

    def blocks(size: int, side: int) -> Tensor:
        cells = -(-size // side)
        small = random.integers(0, 256, (batch, 3, cells, cells))
        large = small.repeat(side, 2).repeat(side, 3)[..., :size, :size]
        return torch.from_numpy(np.ascontiguousarray(large, np.float32))

    return blocks(model.template_size, 8), blocks(model.search_size, 16)


def _band_index(height: int, width: int, columns: int) -> tuple[Tensor, Tensor]:
    """The index in a flat kernel of each element of the banded matrices, and a mask of zeros.

    Row u*columns + x and column j hold the kernel's element (u, x - j), if there is one.
    """
    shift = torch.arange(columns)[:, None] - torch.arange(columns - width + 1)[None]
    inside = (shift >= 0) & (shift < width)
    index = torch.arange(height)[:, None, None] * width + shift.clamp(0, width - 1)
    return index.flatten(0, 1), inside.repeat(height, 1)


def _plain_convolution(transposed: nn.ConvTranspose2d) -> nn.Conv2d:
    """The same 1x1 layer as a convolution, for which backends have fast kernels and int8."""
    weight = transposed.weight.detach().transpose(0, 1).contiguous()
    bias = transposed.bias
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


def _side_by_side(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Two convolutions of the same input as one, with the outputs of both."""
    joined = copy.deepcopy(first)
    joined.out_channels += second.out_channels
    assert first.bias is not None
    assert second.bias is not None
    with torch.no_grad():
        joined.weight = nn.Parameter(torch.cat((first.weight, second.weight)), requires_grad=False)
        joined.bias = nn.Parameter(torch.cat((first.bias, second.bias)), requires_grad=False)
    return joined


def _banded(features: Tensor, bands: Tensor) -> Tensor:
    columns = features.shape[3]
    height = bands.shape[2] // columns
    rows = features.shape[2] - height + 1
    stacked = torch.cat([features[:, :, u : u + rows] for u in range(height)], 3)
    return stacked @ bands


def _grouped(features: Tensor, kernel: Tensor) -> Tensor:
    channels = features.shape[1]
    return F.conv2d(features, kernel.reshape(channels, 1, *kernel.shape[2:]), groups=channels)
