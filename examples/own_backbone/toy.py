"""A backbone of your own: this module and toy.yaml, which describes the network built on it.

    python examples/own_backbone/toy.py train compact network=examples/own_backbone/toy.yaml

runs any `siamcar` command with the backbone registered: train, export, track, evaluate, bench. The
exported network runs without this module, by `siamcar track --network toy.yaml --weights FILE` and
in the node.

To make it part of the package, move this module to siamcar_ros/model/backbones and toy.yaml to
config/networks; the network is then `toy`.
"""

import sys

from torch import Tensor, nn

from siamcar_ros.model import Backbone, register_backbone


@register_backbone("toy", stride=8, first_cell=7)
class Toy(Backbone):
    """Three unpadded 3x3 convolutions of stride 2: 31x31 cells for 255 pixels, 15x15 for 127."""

    levels = (32,)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for inputs, outputs in ((3, 8), (8, 16), (16, 32)):
            self.layers.append(nn.Conv2d(inputs, outputs, 3, stride=2, bias=False))
            self.layers.append(nn.BatchNorm2d(outputs))
            self.layers.append(nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) scaled BGR to the features of the only level."""
        return (self.layers(x),)


if __name__ == "__main__":
    from siamcar_ros.cli import main

    sys.exit(main())
