"""Backbones and architectures: registered by name, and held to what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from siamcar_ros.model import MODEL_NAMES, Backbone, build_model, fold_batchnorm, register_backbone
from siamcar_ros.model import registry as room
from siamcar_ros.model.backbones.mobile import MobileBackbone
from siamcar_ros.model.registry import backbone_names, check_backbone, find_backbone
from siamcar_ros.resources import network_names


@pytest.fixture(autouse=True)
def _registry_restored() -> Iterator[None]:
    before = dict(room._BACKBONES)
    yield
    room._BACKBONES.clear()
    room._BACKBONES.update(before)


class Toy(Backbone):
    """31x31 cells of 8 channels and 16x16 cells of 12."""

    levels: tuple[int, ...] = (8, 12)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 15, stride=8)
        self.second = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to two levels."""
        first = self.first(x)
        return first, self.second(first)


def _config(folder: Path, architecture: str, network: str = "toy") -> Path:
    path = folder / f"{network}.yaml"
    path.write_text(f"network: {network}\narchitecture: {architecture}\n")
    return path


def test_a_module_and_a_file_make_a_network(tmp_path: Path) -> None:
    register_backbone("toy", stride=8, first_cell=7)(Toy)
    sizes = "channels: 16, head_channels: 32, head_depth: 1, input_scale: 0.01"
    model = build_model(_config(tmp_path, f"{{backbone: toy, {sizes}}}")).eval()
    assert (model.name, model.score_size, model.offset) == ("toy", 25, 31)
    z, x = torch.rand(1, 3, 127, 127) * 255, torch.rand(1, 3, 255, 255) * 255
    with torch.inference_mode():
        template = model.template(z)
        assert [tuple(level.shape) for level in template] == [(1, 16, 7, 7)] * 2
        maps = model(x, template)
        folded = fold_batchnorm(model)
        assert folded.input_scale == 1
        for a, b in zip(maps, folded(x, folded.template(z)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", backbone_names())
def test_a_cell_sees_what_lies_about_its_place(name: str) -> None:
    """The gradient of one cell is centered on the place that stride and first_cell say."""
    torch.manual_seed(0)
    entry = find_backbone(name)
    backbone = entry.factory().eval()
    # All weights alike and means for maxima, so that every pixel of the receptive field counts.
    for module in list(backbone.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        for part, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
                setattr(module, part, mean)
    image = torch.rand(1, 3, 255, 255, requires_grad=True)
    cell = entry.cells(255) // 2
    backbone(image)[0][0, :, cell, cell].sum().backward()
    assert image.grad is not None
    weight = image.grad.abs().sum((0, 1))
    expected = entry.first_cell + entry.stride * cell
    places = torch.arange(255.0)
    for axis in (0, 1):
        seen = weight.sum(axis)
        reach = places[seen > 0]
        assert float(reach[0] + reach[-1]) / 2 == pytest.approx(expected, abs=0.5)


def test_a_coarse_level_lies_on_every_second_cell() -> None:
    """A ramp across the image comes out as the same ramp on both strides of mobile."""
    model = build_model("mobile")
    assert model.neck is not None
    steps = torch.arange(31.0)
    fine = steps.expand(1, 1, 31, 31)
    coarse = fine[..., ::2, ::2]
    layer = next(iter(model.neck.children()))
    layer.downsample = nn.Identity()
    torch.testing.assert_close(layer(coarse, fine.shape[-2:], crop=False), fine)


def test_every_network_has_a_registered_backbone() -> None:
    assert set(backbone_names()) >= {"resnet50", "resnet34", "alexnet", "compact", "mobile"}
    assert network_names() == MODEL_NAMES


def test_unknown_words_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'vgg'; there are alexnet, compact, mobile"):
        build_model(_config(tmp_path, "{backbone: vgg}"))
    with pytest.raises(
        ValueError, match=r"architecture\.depth is unknown; .*are architecture\.backbone"
    ):
        build_model(_config(tmp_path, "{backbone: compact, depth: 3}"))
    with pytest.raises(ValueError, match=r"norm is 'layer'; it must be group or batch"):
        build_model(_config(tmp_path, "{backbone: compact, norm: layer}"))
    with pytest.raises(ValueError, match=r"head_depth is 'two'; it must be a whole number"):
        build_model(_config(tmp_path, "{backbone: compact, head_depth: two}"))
    with pytest.raises(ValueError, match=r"architecture\.channels is 0; it must be 1 or more"):
        build_model(_config(tmp_path, "{backbone: compact, channels: 0}"))
    with pytest.raises(ValueError, match="'architecture' must name a backbone"):
        build_model(_config(tmp_path, "null"))
    with pytest.raises(FileNotFoundError):
        build_model(tmp_path / "nowhere.yaml")


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ValueError, match="already registered as 'compact'"):
        register_backbone("compact", stride=8, first_cell=7)(Toy)


@pytest.mark.parametrize(
    ("stride", "first_cell", "levels", "reason"),
    [
        (8, 7, (8, 13), r"levels of \[8, 12\] channels"),
        (8, 3, (8, 12), r"15x15 cells for 127 pixels; stride 8 and first_cell 3 make 16"),
        (4, 7, (8, 12), r"stride 4 and first_cell 7 make 29"),
    ],
)
def test_a_backbone_that_is_not_what_it_says_is_refused(
    stride: int, first_cell: int, levels: tuple[int, ...], reason: str
) -> None:
    toy = Toy()
    toy.levels = levels
    with pytest.raises(ValueError, match=reason):
        check_backbone(room.BackboneEntry(Toy, stride, first_cell), toy)


def test_a_level_that_does_not_align_is_refused() -> None:
    toy = Toy()
    toy.second = nn.Conv2d(8, 12, 2, stride=2)
    with pytest.raises(ValueError, match="does not align with the first level's 15x15"):
        check_backbone(room.BackboneEntry(Toy, 8, 7), toy)


def test_the_originals_weights_are_adapted() -> None:
    """Keys, order of the color channels and mean as EfficientNet-PyTorch has them."""
    backbone = MobileBackbone().eval()
    names = {"expand.0": "_expand_conv", "expand.1": "_bn0", "depthwise.0": "_depthwise_conv"}
    names |= {"depthwise.1": "_bn1", "project.0": "_project_conv", "project.1": "_bn2"}
    first = {"stage1": 0, "stage2": 1, "stage3": 3, "stage4": 5, "stage5": 8}
    original = {"_fc.weight": torch.zeros(1), "_blocks.9._bn2.weight": torch.ones(112)}
    for key, value in backbone.state_dict().items():
        stage, block, layer, index, *rest = [*key.split("."), "", ""]
        if stage == "stem":
            original[f"{'_conv_stem' if block == '0' else '_bn0'}.{layer}"] = value.clone()
        else:
            number = first[stage] + int(block)
            original[f"_blocks.{number}.{names[f'{layer}.{index}']}.{rest[0]}"] = value.clone()
    adapted = backbone.adapt_state(original)
    assert adapted.keys() == backbone.state_dict().keys()
    rgb = torch.rand(1, 3, 31, 31) * 255
    expected = backbone.stem((rgb - 127) / 128)
    backbone.load_state_dict(adapted)
    torch.testing.assert_close(backbone.stem(rgb.flip(1) / 128), expected, rtol=1e-4, atol=1e-5)
