"""The trunk of EfficientNet-Lite0, pretrained on ImageNet, as a backbone for CPUs.

EfficientNet-Lite (Tan and Le, ICML 2019, without squeeze-and-excitation and with ReLU6) is kept up
to the first block of 112 channels. Down to stride 8 the strided convolutions are padded so that a
cell's center is a pixel's center, as in the ResNets: 255 pixels give 31x31 cells at 7 + 8i. The
last two stages run at stride 16, where 16x16 cells lie at 7 + 16i, on every second of those, so
that the neck's interpolation aligns them exactly. Running them at stride 8 with dilation would cost
four times as much.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from ..registry import Backbone, register_backbone

_EPSILON = 1e-3  # of the original's batch normalization
# Of each stage: kernel, stride and padding of its first block, expansion, channels, blocks.
_STAGES = (
    (3, 1, 1, 1, 16, 1),
    (3, 2, 0, 6, 24, 2),
    (5, 2, 1, 6, 40, 2),
    (3, 2, 1, 6, 80, 3),
    (5, 1, 2, 6, 112, 1),
)
# The original, which has three blocks of 112 channels, numbers its blocks consecutively.
_ORIGINAL_FIRST_BLOCK = (0, 1, 3, 5, 8)
_PLACES = {
    first + index: f"stage{number}.{index}"
    for number, (first, stage) in enumerate(zip(_ORIGINAL_FIRST_BLOCK, _STAGES, strict=True), 1)
    for index in range(stage[-1])
}
_LAYERS = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0"}
_LAYERS |= {"_bn1": "depthwise.1", "_project_conv": "project.0", "_bn2": "project.1"}
_ORIGINAL_MEAN, _ORIGINAL_SCALE = 127.0, 1 / 128


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depth-wise convolution and a linear 1x1 projection.

    Args:
        inputs, outputs: channels before and after.
        kernel, stride, padding: of the depth-wise convolution.
        expansion: its channels over `inputs`; 1 leaves the first layer out.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, expansion: int
    ) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = nn.Identity() if expansion == 1 else _layer(inputs, middle, 1)
        self.depthwise = _layer(middle, middle, kernel, stride, padding, groups=middle)
        self.project = _layer(middle, outputs, 1, active=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


@register_backbone("mobile", stride=8, first_cell=7)
class MobileBackbone(Backbone):
    """Three levels: 40 channels at stride 8, 80 and 112 at stride 16.

    They are 31x31, 16x16 and 16x16 for 255 pixels, 15x15, 8x8 and 8x8 for 127.
    """

    levels = (40, 80, 112)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(3, 32, 3, 2)
        inputs, stages = 32, []
        for kernel, stride, padding, expansion, outputs, blocks in _STAGES:
            stage = [InvertedResidual(inputs, outputs, kernel, stride, padding, expansion)]
            for _ in range(blocks - 1):
                stage.append(InvertedResidual(outputs, outputs, kernel, 1, kernel // 2, expansion))
            stages.append(nn.Sequential(*stage))
            inputs = outputs
        self.stage1, self.stage2, self.stage3, self.stage4, self.stage5 = stages
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 BGR, scaled, to the three levels' features."""
        first = self.stage3(self.stage2(self.stage1(self.stem(x))))
        second = self.stage4(first)
        return first, second, self.stage5(second)

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert the original's weights (EfficientNet-PyTorch's keys); leave others as they are.

        The original reads RGB, (x - 127) / 128. The order of the channels is folded into the first
        convolution, the mean into the normalization after it; 1/128 is the architecture's
        ``input_scale``.
        """
        if "_conv_stem.weight" not in state:
            return state
        renamed = {}
        for key, tensor in state.items():
            if key.startswith("_conv_stem."):
                renamed["stem.0.weight"] = tensor.flip(1)
            elif key.startswith("_bn0."):
                renamed["stem.1." + key.partition(".")[2]] = tensor
            elif match := re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", key):
                place = _PLACES.get(int(match[1]))  # None if the block is left out
                if place is not None:
                    renamed[f"{place}.{_LAYERS[match[2]]}.{match[3]}"] = tensor
        shift = _ORIGINAL_MEAN * _ORIGINAL_SCALE * renamed["stem.0.weight"].sum((1, 2, 3))
        renamed["stem.1.running_mean"] = renamed["stem.1.running_mean"] + shift
        return renamed


def _layer(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    active: bool = True,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=_EPSILON),
    ]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if active else nn.Sequential(*layers)
