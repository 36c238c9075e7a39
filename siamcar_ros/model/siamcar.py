"""SiamCAR (Guo et al., CVPR 2020): the network, its four forms and their builder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .alexnet import AlexNet
from .compact import CompactBackbone
from .correlation import depthwise_correlation
from .head import CarHead, Neck
from .resnet import resnet34, resnet50

Correlation = Callable[[Tensor, Tensor], Tensor]


class SiamCAR(nn.Module):
    """A Siamese network without anchors: template features, then three maps for a search region.

    Attributes:
        name: one of :data:`MODEL_NAMES`.
        template_size, search_size: side of the two inputs in pixels (127, 255).
        score_size: S, the side of the output maps in cells.
        stride, offset: cell (i, j), row i and column j, lies at (offset + stride*j,
            offset + stride*i), x before y, in pixels of the search region.
        locations: (S*S, 2) float32 buffer of these points, row by row.
        correlation: how the features are correlated; training may set
            :func:`~siamcar_ros.model.depthwise_correlation_fft`.
    """

    template_size = 127
    search_size = 255
    stride = 8
    locations: Tensor

    def __init__(
        self,
        name: str,
        backbone: nn.Module,
        *,
        levels: Sequence[int],
        channels: int,
        head_channels: int,
        tower_depth: int,
        norm: str,
        neck: bool,
        score_size: int,
        offset: int,
    ) -> None:
        super().__init__()
        self.name = name
        self.score_size = score_size
        self.offset = offset
        self.correlation: Correlation = depthwise_correlation
        self.backbone = backbone
        self.neck = Neck(levels, channels) if neck else None
        self.down = nn.ConvTranspose2d(channels * len(levels), head_channels, 1)
        self.car_head = CarHead(head_channels, tower_depth, norm)
        steps = offset + self.stride * torch.arange(score_size, dtype=torch.float32)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        self.register_buffer("locations", torch.stack((x, y), -1).reshape(-1, 2), persistent=False)

    def template(self, z: Tensor) -> tuple[Tensor, ...]:
        """The target's features, to be computed once and kept by the track.

        Args:
            z: (B, 3, 127, 127) float32 BGR 0..255, the target in the middle.

        Returns:
            one (B, C, h, w) tensor a level; templates of several tracks are joined along dim 0.
        """
        return self._features(z, crop=True)

    def forward(self, x: Tensor, template: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Where in the search region the template's target is.

        Args:
            x: (B, 3, 255, 255) float32 BGR 0..255.
            template: what :meth:`template` gave, of batch 1 (for all) or B (one for each).

        Returns:
            cls (B, 2, S, S) logits, foreground at index 1; reg (B, 4, S, S) distances l, t, r, b
            from the cell's location to the box's sides in search pixels, above 0; cen
            (B, 1, S, S) centerness logits.
        """
        features = self._features(x, crop=False)
        response = torch.cat(
            [self.correlation(f, t) for f, t in zip(features, template, strict=True)], 1
        )
        cls, reg, cen = self.car_head(self.down(response))
        return cls, reg, cen

    def _features(self, image: Tensor, crop: bool) -> tuple[Tensor, ...]:
        features: tuple[Tensor, ...] = self.backbone(image)
        return features if self.neck is None else self.neck(features, crop)


def _resnet(name: str) -> SiamCAR:
    backbone = resnet50() if name == "resnet50" else resnet34()
    return SiamCAR(
        name,
        backbone,
        levels=backbone.levels,
        channels=256,
        head_channels=256,
        tower_depth=4,
        norm="group",
        neck=True,
        score_size=25,
        offset=32,
    )


def _alexnet(name: str) -> SiamCAR:
    """One level of 22x22 against 6x6 gives 17x17; its middle cell lies on the region's centre."""
    return SiamCAR(
        name,
        AlexNet(),
        levels=AlexNet.levels,
        channels=256,
        head_channels=256,
        tower_depth=4,
        norm="group",
        neck=False,
        score_size=17,
        offset=63,
    )


def _compact(name: str) -> SiamCAR:
    return SiamCAR(
        name,
        CompactBackbone(),
        levels=CompactBackbone.levels,
        channels=64,
        head_channels=64,
        tower_depth=2,
        norm="batch",
        neck=True,
        score_size=25,
        offset=32,
    )


_BUILDERS: dict[str, Callable[[str], SiamCAR]] = {
    "resnet50": _resnet,
    "resnet34": _resnet,
    "alexnet": _alexnet,
    "compact": _compact,
}
MODEL_NAMES = tuple(_BUILDERS)


def build_model(name: str) -> SiamCAR:
    """A network with fresh weights.

    Args:
        name: "resnet50" (the paper's), "resnet34", "alexnet" (paper Table 2) or "compact".

    Raises:
        ValueError: there is no network of that name.
    """
    if name not in _BUILDERS:
        raise ValueError(f"no network is called {name!r}; there are {', '.join(MODEL_NAMES)}")
    return _BUILDERS[name](name)


def fold_batchnorm(model: SiamCAR) -> SiamCAR:
    """A copy for inference, in evaluation mode, its batch normalisations and input scale folded.

    The outputs equal those of ``model.eval()`` up to float32 rounding.
    """
    folded = copy.deepcopy(model).eval()
    folded.correlation = depthwise_correlation  # training's may be by FFT
    if isinstance(folded.backbone, CompactBackbone):
        first = next(m for m in folded.backbone.stem.modules() if isinstance(m, nn.Conv2d))
        first.weight.data.mul_(folded.backbone.scale)
        folded.backbone.scale = 1.0
    for module in list(folded.modules()):
        previous: tuple[str, nn.Module] | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d) and previous is not None:
                convolution_name, convolution = previous
                if isinstance(convolution, nn.Conv2d):
                    setattr(module, convolution_name, fuse_conv_bn_eval(convolution, child))
                    setattr(module, name, nn.Identity())
            previous = (name, child)
    return folded
