"""All networks: geometry, batches, sharing, and what folding and correlation promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from siamcar_ros.model import (
    MODEL_NAMES,
    SiamCAR,
    build_model,
    depthwise_correlation,
    depthwise_correlation_fft,
    fold_batchnorm,
)

Images = tuple[torch.Tensor, torch.Tensor]
GEOMETRY = {
    "resnet50": (25, 32),
    "resnet34": (25, 32),
    "alexnet": (17, 63),
    "compact": (25, 32),
    "mobile": (25, 32),
}


@pytest.fixture(scope="module", params=MODEL_NAMES)
def model(request: pytest.FixtureRequest) -> SiamCAR:
    """With random weights and normalizations that have seen some images."""
    torch.manual_seed(1)
    model = build_model(request.param).train()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.momentum = None  # a plain average
        z, x = torch.rand(2, 3, 127, 127) * 255, torch.rand(2, 3, 255, 255) * 255
        model(x, model.template(z))
    return model.eval()


@torch.inference_mode()
def test_shapes_and_ranges(model: SiamCAR, images: Images) -> None:
    z, x = images
    cls, reg, cen = model(x, model.template(z))
    s = model.score_size
    assert (s, model.offset) == GEOMETRY[model.name]
    assert cls.shape == (2, 2, s, s)
    assert reg.shape == (2, 4, s, s)
    assert cen.shape == (2, 1, s, s)
    assert (reg > 0).all()
    for part in (cls, reg, cen):
        assert torch.isfinite(part).all()


def test_locations_are_the_cells_places(model: SiamCAR) -> None:
    s, offset = model.score_size, model.offset
    grid = model.locations.reshape(s, s, 2)
    assert tuple(grid[2, 5]) == (offset + 8 * 5, offset + 8 * 2)
    # The middle cell looks at the middle of the region, to a pixel.
    assert abs(float(grid[s // 2, s // 2, 0]) - 127) <= 1
    assert "locations" not in model.state_dict()


@torch.inference_mode()
def test_a_batch_equals_its_samples(model: SiamCAR, images: Images) -> None:
    z, x = images
    together = model(x, model.template(z))
    templates = [model.template(z[i : i + 1]) for i in range(2)]
    joined = tuple(torch.cat(levels) for levels in zip(*templates, strict=True))
    for a, b in zip(together, model(x, joined), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    for i in range(2):
        for a, b in zip(together, model(x[i : i + 1], templates[i]), strict=True):
            torch.testing.assert_close(a[i : i + 1], b, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_one_template_serves_many_regions(model: SiamCAR, images: Images) -> None:
    z, x = images
    template = model.template(z[:1])
    for a, b in zip(model(x, template), model(x[1:], template), strict=True):
        torch.testing.assert_close(a[1:], b, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_wrong_number_of_templates_is_refused(model: SiamCAR, images: Images) -> None:
    z, x = images
    template = model.template(z)
    with pytest.raises(ValueError, match="2 templates cannot be matched with 1"):
        model(x[:1], template)


@torch.inference_mode()
def test_folding_changes_nothing_but_rounding(model: SiamCAR, images: Images) -> None:
    z, x = images
    folded = fold_batchnorm(model)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules())
    for a, b in zip(model(x, model.template(z)), folded(x, folded.template(z)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_a_trained_model_is_folded_without_trainings_correlation(images: Images) -> None:
    """By FFT, which bfloat16 has not."""
    model = build_model("compact")
    model.correlation = depthwise_correlation_fft
    folded = fold_batchnorm(model).bfloat16()
    z, x = (image[:1].bfloat16() for image in images)
    assert folded(x, folded.template(z))[0].dtype == torch.bfloat16


@torch.inference_mode()
def test_the_peak_of_the_correlation_follows_the_target(model: SiamCAR) -> None:
    """A target moved by two cells moves the similarity's peak by two cells."""
    random = torch.Generator().manual_seed(5)
    patch = torch.rand(1, 3, 127, 127, generator=random) * 255
    template = model.template(patch)
    peaks = []
    for shift in (0, 16):
        x = torch.full((1, 3, 255, 255), 128.0)
        x[..., 64 : 64 + 127, 64 + shift : 64 + shift + 127] = patch
        features = model.backbone(x)
        if model.neck is not None:
            features = model.neck(features, crop=False)
        feature, kernel = features[0], template[0]
        score = depthwise_correlation(feature, kernel - kernel.mean((2, 3), keepdim=True)).sum(1)
        peaks.append(divmod(int(score.flatten().argmax()), model.score_size))
    (row0, column0), (row1, column1) = peaks
    assert (row1 - row0, column1 - column0) == (0, 2)


def test_correlation_is_the_sum_of_products() -> None:
    x, z = torch.randn(2, 5, 9, 8), torch.randn(2, 5, 4, 3)
    expected = torch.empty(2, 5, 6, 6)
    for row in range(6):
        for column in range(6):
            window = x[:, :, row : row + 4, column : column + 3]
            expected[:, :, row, column] = (window * z).sum((2, 3))
    torch.testing.assert_close(depthwise_correlation(x, z), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(depthwise_correlation_fft(x, z), expected, rtol=1e-4, atol=1e-4)


def test_both_correlations_have_equal_gradients() -> None:
    gradients = []
    for correlation in (depthwise_correlation, depthwise_correlation_fft):
        torch.manual_seed(0)
        x = torch.randn(2, 3, 31, 31, requires_grad=True)
        z = torch.randn(2, 3, 7, 7, requires_grad=True)
        F.mse_loss(correlation(x, z), torch.ones(2, 3, 25, 25)).backward()
        assert x.grad is not None
        assert z.grad is not None
        gradients.append((x.grad, z.grad))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="alexnet, compact, mobile, resnet34, resnet50"):
        build_model("resnet18")


@pytest.mark.parametrize(("name", "limit"), [("compact", 8e6), ("mobile", 2e6)])
def test_the_embedded_networks_are_small(name: str, limit: float) -> None:
    parameters = sum(p.numel() for p in build_model(name).parameters())
    assert parameters * 4 <= limit


def test_normalizations_are_folded_into_the_convolutions_that_they_read(images: Images) -> None:
    """Whatever the order in which a backbone creates its layers."""
    model = build_model("compact").train()
    stem: Any = model.backbone.stem

    class Reordered(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = torch.nn.ModuleList(stem[i][0] for i in (0, 2, 4))
            self.norms = torch.nn.ModuleList(stem[i][1] for i in (0, 2, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for convolution, norm in zip(self.convolutions, self.norms, strict=True):
                x = F.relu(norm(convolution(x)))
            return x

    model.backbone.stem = Reordered()
    model.backbone.another_name = model.backbone.stem.convolutions[0]
    z, x = images
    with torch.inference_mode():
        model(x, model.template(z))
        model.eval()
        folded = fold_batchnorm(model)
        assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
        for a, b in zip(model(x, model.template(z)), folded(x, folded.template(z)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_a_model_of_another_type_is_folded(kind: torch.dtype) -> None:
    folded = fold_batchnorm(build_model("compact").to(kind))
    assert next(folded.parameters()).dtype == kind
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    fold_batchnorm(build_model("compact").to("meta"))  # as on a GPU
