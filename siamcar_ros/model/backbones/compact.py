"""The embedded backbone: plain 3x3 convolutions, three levels at stride 8.

It keeps the geometry of the modified ResNet-50 (three unpadded strides, 31x31 and 15x15 maps
whose cells sit on pixel centers) at less than a hundredth of its arithmetic. Only dense 3x3 and 1x1
convolutions are used: on CPUs they run near the matrix-multiply rate, in bfloat16 and int8 too,
where depth-wise ones do not.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..registry import Backbone, register_backbone


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 0, dilation: int = 1
) -> nn.Sequential:
    """A convolution without bias and its batch normalization."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions of one dilation, with a 1x1 shortcut where the channels change.

    Args:
        inputs, middle, outputs: channels before, between and after the two.
        dilation: of both.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = conv_bn(inputs, middle, padding=dilation, dilation=dilation)
        self.second = conv_bn(middle, outputs, padding=dilation, dilation=dilation)
        self.shortcut = conv_bn(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        out = self.second(self.relu(self.first(x)))
        return self.relu(out + self.shortcut(x))


@register_backbone("compact", stride=8, first_cell=7)
class CompactBackbone(Backbone):
    """Three levels of 64, 96 and 96 channels: 31x31 for 255 pixels, 15x15 for 127.

    It is narrow before the stride is 8 and inside the blocks, where most of the arithmetic is.

    Attributes:
        inner: channels between the two convolutions of a block.
    """

    levels = (64, 96, 96)
    inner = 48

    def __init__(self) -> None:
        super().__init__()
        low, middle, high = self.levels
        self.stem = nn.Sequential(
            conv_bn(3, 16, stride=2),
            nn.ReLU(inplace=True),
            conv_bn(16, 32, stride=2),
            nn.ReLU(inplace=True),
            conv_bn(32, low, stride=2),
            nn.ReLU(inplace=True),
        )
        self.stage1 = ResidualBlock(low, self.inner, low)
        self.stage2 = ResidualBlock(low, self.inner, middle)
        self.stage3 = ResidualBlock(middle, self.inner, high, dilation=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 BGR, scaled, to the three levels' features."""
        first = self.stage1(self.stem(x))
        second = self.stage2(first)
        return first, second, self.stage3(second)
