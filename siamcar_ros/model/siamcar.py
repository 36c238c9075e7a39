"""SiamCAR (Guo et al., CVPR 2020): the network and its builder."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from siamcar_ros.geometry import SEARCH_SIZE, TEMPLATE_SIZE
from siamcar_ros.resources import network_names

from .architecture import Architecture, read_architecture
from .correlation import depthwise_correlation
from .head import TEMPLATE_CELLS, CarHead, Neck
from .registry import check_backbone, find_backbone

Correlation = Callable[[Tensor, Tensor], Tensor]


class SiamCAR(nn.Module):
    """The anchor-free Siamese network: template features, then three maps of a search region.

    Attributes:
        name, architecture: as given.
        template_size, search_size: side of the two inputs in pixels (127, 255).
        score_size: S, the side of the output maps in cells.
        stride, offset: cell (i, j), row i and column j, lies at (offset + stride*j,
            offset + stride*i), x before y, in pixels of the search region.
        locations: (S*S, 2) float32 buffer of these points, row by row.
        input_scale: factor of the pixels; 1 once it is folded into the first convolution.
        correlation: the function that correlates the features; training may set
            :func:`~siamcar_ros.model.depthwise_correlation_fft`.

    Raises:
        ValueError: the backbone is unknown, or differs from its registration.
    """

    template_size = TEMPLATE_SIZE
    search_size = SEARCH_SIZE
    locations: Tensor

    def __init__(self, name: str, architecture: Architecture) -> None:
        super().__init__()
        entry = find_backbone(architecture.backbone)
        backbone = entry.factory()
        check_backbone(entry, backbone)
        self.name, self.architecture = name, architecture
        self.stride = entry.stride
        self.input_scale = architecture.input_scale
        self.correlation: Correlation = depthwise_correlation
        self.backbone = backbone
        channels = architecture.channels
        self.neck = None if channels is None else Neck(backbone.levels, channels)
        joined = sum(backbone.levels) if channels is None else channels * len(backbone.levels)
        head_channels = architecture.head_channels
        self.down = nn.ConvTranspose2d(joined, head_channels, 1)
        self.car_head = CarHead(
            head_channels, architecture.head_depth, architecture.norm, architecture.head_convolution
        )
        # A cell of the response covers as many cells of the search features as the template has.
        kernel = entry.cells(TEMPLATE_SIZE) if self.neck is None else TEMPLATE_CELLS
        self.score_size = entry.cells(SEARCH_SIZE) - kernel + 1
        middle = entry.first_cell + entry.stride * (kernel - 1) // 2
        self.offset = middle + architecture.location_shift
        steps = self.offset + self.stride * torch.arange(self.score_size, dtype=torch.float32)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        self.register_buffer("locations", torch.stack((x, y), -1).reshape(-1, 2), persistent=False)

    def template(self, z: Tensor) -> tuple[Tensor, ...]:
        """The target's features, computed once and kept by the track.

        Args:
            z: (B, 3, 127, 127) float32 BGR 0..255, the target in the middle.

        Returns:
            one (B, C, h, w) tensor per level; templates of several tracks are joined along dim 0.
        """
        return self._features(z, crop=True)

    def forward(self, x: Tensor, template: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The maps that locate the template's target in the search region.

        Args:
            x: (B, 3, 255, 255) float32 BGR 0..255.
            template: what :meth:`template` gave, of batch 1 (for all) or B (one for each).

        Returns:
            cls (B, 2, S, S) logits, foreground at index 1; reg (B, 4, S, S) distances l, t, r, b
            from the cell's location to the box's sides in search pixels, above 0; cen
            (B, 1, S, S) centerness logits.
        """
        cls, reg, cen = self.car_head(self.response(x, template))
        return cls, reg, cen

    def response(self, x: Tensor, template: Sequence[Tensor]) -> Tensor:
        """What the head reads: the levels' correlations, (B, head_channels, S, S)."""
        features = self._features(x, crop=False)
        levels = [self.correlation(f, t) for f, t in zip(features, template, strict=True)]
        response: Tensor = self.down(torch.cat(levels, 1))
        return response

    def _features(self, image: Tensor, crop: bool) -> tuple[Tensor, ...]:
        if self.input_scale != 1:
            image = image * self.input_scale
        features: tuple[Tensor, ...] = self.backbone(image)
        return features if self.neck is None else self.neck(features, crop)


MODEL_NAMES = network_names()


def build_model(network: str | Path) -> SiamCAR:
    """A network with fresh weights.

    Args:
        network: one of :data:`MODEL_NAMES`, which are the files in ``config/networks``, or the path
            of such a YAML file.

    Raises:
        ValueError: there is no network of that name, or the file does not describe one.
        FileNotFoundError: no such file.
    """
    return SiamCAR(*read_architecture(network))


def fold_batchnorm(model: SiamCAR) -> SiamCAR:
    """A copy in evaluation mode with batch normalizations and input scale folded.

    The outputs equal those of ``model.eval()`` up to float32 rounding.
    """
    folded = copy.deepcopy(model).eval()
    folded.correlation = depthwise_correlation  # in training it may be the FFT
    first = next(m for m in folded.backbone.modules() if isinstance(m, nn.Conv2d))
    first.weight.data.mul_(folded.input_scale)
    folded.input_scale = 1.0
    gone = []
    for norm, convolutions in _readers(folded).items():
        for convolution in convolutions:
            fused = fuse_conv_bn_eval(convolution, norm)
            convolution.weight, convolution.bias = fused.weight, fused.bias
        gone.append(norm)
    for name, module in list(folded.named_modules(remove_duplicate=False)):
        if module in gone:
            folded.set_submodule(name, nn.Identity())
    return folded


def _readers(model: SiamCAR) -> dict[nn.BatchNorm2d, set[nn.Conv2d]]:
    """The batch normalizations that read convolutions, which nothing else normalizes.

    A pass over blank images shows which belong together, whatever the order of the attributes.
    """
    outputs: list[tuple[Tensor, nn.Conv2d]] = []
    reads: dict[nn.BatchNorm2d, set[nn.Conv2d | None]] = {}

    def seen(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            outputs.append((output, module))
        elif isinstance(module, nn.BatchNorm2d):
            read = [convolution for tensor, convolution in outputs if tensor is inputs[0]]
            reads.setdefault(module, set()).update(read or [None])

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(seen) for m in model.modules() if isinstance(m, kinds)]
    weight = next(model.parameters())
    with torch.no_grad():
        z, x = (weight.new_zeros((1, 3, side, side)) for side in (TEMPLATE_SIZE, SEARCH_SIZE))
        model(x, model.template(z))
    for hook in hooks:
        hook.remove()
    readers = Counter(convolution for read in reads.values() for convolution in read)
    return {
        norm: {convolution for convolution in read if convolution is not None}
        for norm, read in reads.items()
        if None not in read and all(readers[convolution] == 1 for convolution in read)
    }
