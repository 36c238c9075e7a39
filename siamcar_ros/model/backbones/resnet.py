"""ResNet-50 and ResNet-34 with stride 8, as modified for SiamRPN++ (Li et al., CVPR 2019).

They differ from the classification networks in that conv1 and the stride of layer2 carry no
padding (so that a feature's center is a pixel's center for odd inputs), layer3 and layer4 keep
stride 1 and are dilated by 2 and 4, and their shortcut is a 3x3 convolution. Module names are
those of the published checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..registry import Backbone, register_backbone


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; (B, inputs, H, W) to (B, planes, H', W')."""

    expansion = 1

    def __init__(
        self, inputs: int, planes: int, stride: int, dilation: int, shortcut: nn.Module | None
    ) -> None:
        super().__init__()
        first = _first_dilation(dilation, shortcut)
        self.conv1 = _conv3x3(inputs, planes, stride, first)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, 1, dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, planes, H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; (B, inputs, H, W) to (B, 4*planes, H', W')."""

    expansion = 4

    def __init__(
        self, inputs: int, planes: int, stride: int, dilation: int, shortcut: nn.Module | None
    ) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, stride, _first_dilation(dilation, shortcut))
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4*planes, H', W')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(Backbone):
    """The backbone; its last three stages are the three feature levels of Eq. 2.

    ``levels`` gives their channels; all have the size 31x31 for a 255-pixel search region and
    15x15 for a 127-pixel template.
    """

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        expansion = block.expansion
        self.layer1 = _stage(block, 64, 64, depths[0], stride=1, dilation=1)
        self.layer2 = _stage(block, 64 * expansion, 128, depths[1], stride=2, dilation=1)
        self.layer3 = _stage(block, 128 * expansion, 256, depths[2], stride=1, dilation=2)
        self.layer4 = _stage(block, 256 * expansion, 512, depths[3], stride=1, dilation=4)
        self.levels = (128 * expansion, 256 * expansion, 512 * expansion)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 BGR 0..255 to the three levels' features."""
        x = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        second = self.layer2(x)
        third = self.layer3(second)
        return second, third, self.layer4(third)


@register_backbone("resnet50", stride=8, first_cell=7)
def resnet50() -> ResNet:
    """Levels of 512, 1024 and 2048 channels."""
    return ResNet(Bottleneck, (3, 4, 6, 3))


@register_backbone("resnet34", stride=8, first_cell=7)
def resnet34() -> ResNet:
    """Levels of 128, 256 and 512 channels."""
    return ResNet(BasicBlock, (3, 4, 6, 3))


def _conv3x3(inputs: int, outputs: int, stride: int, dilation: int) -> nn.Conv2d:
    padding = 0 if stride == 2 else dilation
    return nn.Conv2d(
        inputs, outputs, 3, stride=stride, padding=padding, dilation=dilation, bias=False
    )


def _first_dilation(dilation: int, shortcut: nn.Module | None) -> int:
    """A stage's first block is dilated half as much as the others."""
    return dilation // 2 if dilation > 1 and shortcut is not None else dilation


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    planes: int,
    depth: int,
    stride: int,
    dilation: int,
) -> nn.Sequential:
    outputs = planes * block.expansion
    shortcut: nn.Module | None = None
    if stride != 1 or inputs != outputs:
        projection = (
            nn.Conv2d(inputs, outputs, 1, bias=False)
            if stride == 1 and dilation == 1
            else _conv3x3(inputs, outputs, stride, max(1, dilation // 2))
        )
        shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
    blocks = [block(inputs, planes, stride, dilation, shortcut)]
    blocks += [block(outputs, planes, 1, dilation, None) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)
