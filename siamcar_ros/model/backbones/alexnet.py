"""AlexNet without padding, as the Siamese trackers use it (SiamFC, SiamRPN; paper Table 2)."""

from __future__ import annotations

from torch import Tensor, nn

from ..registry import Backbone, register_backbone


@register_backbone("alexnet", stride=8, first_cell=43)
class AlexNet(Backbone):
    """One feature level of 256 channels: 6x6 for a 127-pixel template, 22x22 for 255 pixels."""

    levels = (256,)

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(
            nn.Conv2d(3, 96, 11, stride=2),
            nn.BatchNorm2d(96),
            nn.MaxPool2d(3, stride=2),
            nn.ReLU(inplace=True),
        )
        self.layer2 = nn.Sequential(
            nn.Conv2d(96, 256, 5),
            nn.BatchNorm2d(256),
            nn.MaxPool2d(3, stride=2),
            nn.ReLU(inplace=True),
        )
        self.layer3 = nn.Sequential(
            nn.Conv2d(256, 384, 3), nn.BatchNorm2d(384), nn.ReLU(inplace=True)
        )
        self.layer4 = nn.Sequential(
            nn.Conv2d(384, 384, 3), nn.BatchNorm2d(384), nn.ReLU(inplace=True)
        )
        self.layer5 = nn.Sequential(nn.Conv2d(384, 256, 3), nn.BatchNorm2d(256))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) float32 BGR 0..255 to the one level's features."""
        x = self.layer3(self.layer2(self.layer1(x)))
        return (self.layer5(self.layer4(x)),)
