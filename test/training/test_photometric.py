"""Changes of light, sharpness, compression and noise: each does what it says, wherever it runs."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from siamcar_ros.training.photometric import Changes, apply_changes, blur_along, jpeg

ALL: dict[str, dict[str, float]] = {
    "gray": {"gray": 1},
    "invert": {"gray": 1, "invert": 1},
    "tone": {"gamma": 1.3, "blue": 1.1, "green": 0.9, "red": 1.05},
    "offset": {"add_blue": 20, "add_green": -5},
    "glare": {"glare": 0.8, "glare_x": 0.5, "glare_y": 0.4, "glare_width": 0.1},
    "resolution": {"resolution": 0.3},
    "blur": {"blur_x": 9, "blur_y": -4},
    "quality": {"quality": 25},
    "noise": {"noise": 8, "seed": 5},
}


def picture(seed: int = 0, size: int = 255) -> torch.Tensor:
    draw = np.random.default_rng(seed)
    image = cv2.GaussianBlur(draw.integers(0, 255, (size, size, 3), dtype=np.uint8), (0, 0), 2.5)
    return torch.from_numpy(np.asarray(cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)))


def changed(image: torch.Tensor, **changes: Any) -> torch.Tensor:
    return apply_changes(image[None], np.array([Changes(**changes)]))[0]


def test_nothing_asked_for_is_nothing_done() -> None:
    assert torch.equal(changed(picture()), picture())


@pytest.mark.parametrize("name", ALL)
def test_each_change_is_done_to_the_images_it_is_drawn_for(name: str) -> None:
    """In a batch as one by one, and the images given stay as they were."""
    images = torch.stack([picture(seed) for seed in range(3)])
    rows = np.array([Changes(**ALL[name]), Changes(), Changes(**ALL[name])])
    before = images.clone()
    batch = apply_changes(images, rows)
    assert torch.equal(images, before)
    assert batch.shape == images.shape
    assert batch.dtype == torch.uint8
    assert torch.equal(batch[1], images[1])
    for index in (0, 2):
        assert (batch[index].float() - images[index]).abs().mean() > 1
        assert torch.equal(batch[index], changed(images[index], **ALL[name]))


def test_gray_is_opencvs() -> None:
    expected = cv2.cvtColor(picture().numpy(), cv2.COLOR_BGR2GRAY)
    gray = changed(picture(), gray=1).numpy()
    assert np.abs(gray.astype(int) - expected[..., None]).max() <= 1


def test_tone_follows_its_formula() -> None:
    values = picture().double() / 255
    gains = torch.tensor([1.1, 0.9, 1.05])
    offsets = torch.tensor([20.0, -5.0, 0.0])
    expected = (values**1.3 * gains * 255 + offsets).round().clamp(0, 255)
    seen = changed(picture(), **ALL["tone"], **ALL["offset"])
    assert torch.equal(seen.double(), expected)


def test_glare_is_white_at_its_middle_and_absent_far_off() -> None:
    black = torch.zeros(255, 255, 3, dtype=torch.uint8)
    spots = {"glare_x": 0.25, "glare_y": 0.75, "glare_width": 0.05, "glare_height": 0.1}
    seen = changed(black, glare=0.8, **spots)[..., 0]
    assert seen.max() == 204
    assert seen[round(0.75 * 254), round(0.25 * 254)] > 200
    assert seen[round(0.75 * 254), round(0.30 * 254)] == pytest.approx(204 * np.exp(-0.5), abs=6)
    assert seen[:100, 150:].max() == 0


def test_low_resolution_keeps_the_coarse_and_loses_the_fine() -> None:
    x = torch.arange(255.0)
    wave = 127 + 100 * torch.stack([torch.sin(x * 2 * np.pi / period) for period in (100, 4)])
    images = wave[:, None, :, None].expand(2, 255, 255, 3).round().to(torch.uint8)
    coarse, fine = (changed(image, resolution=0.2).float() for image in images)
    assert (coarse - images[0].float()).abs().mean() < 6
    assert fine[100, 20:-20].std() < 10


@pytest.mark.parametrize(("dx", "dy"), [(8, 0), (0, -6), (6, 6), (-9, 3)])
def test_blur_draws_a_point_out_to_its_path(dx: float, dy: float) -> None:
    point = torch.zeros(1, 1, 61, 61, dtype=torch.uint8)
    point[..., 30, 30] = 250
    seen = blur_along(point, dx, dy)[0, 0]
    y, x = (values.float() - 30 for values in torch.nonzero(seen, as_tuple=True))
    assert len(x) == max(abs(dx), abs(dy)) + 1
    assert x.max() - x.min() == abs(dx)
    assert y.max() - y.min() == abs(dy)
    assert (x * dy - y * dx).abs().max() <= max(abs(dx), abs(dy)), "on one line"
    assert seen.sum() == pytest.approx(250, abs=len(x))


@pytest.mark.parametrize("quality", [15, 40, 70, 95])
@pytest.mark.parametrize("size", [127, 255])
def test_compression_on_a_gpu_is_that_of_the_codec(quality: int, size: int) -> None:
    """The arithmetic that a GPU uses, on a CPU; the codec filters the colors a little otherwise."""
    image = picture(size=size)
    codec = changed(image, quality=quality).float()
    ours = jpeg(image.permute(2, 0, 1)[None], torch.tensor([float(quality)]))[0].permute(1, 2, 0)
    lost = (codec - image).abs().mean()
    assert (ours.float() - codec).abs().mean() < 0.35 * lost + 0.5
    assert (ours.float() - image).abs().mean() == pytest.approx(lost, rel=0.25)


def test_noise_has_its_deviation_and_follows_its_seed() -> None:
    gray = torch.full((255, 255, 3), 128, dtype=torch.uint8)
    first, again, other = (changed(gray, noise=6, seed=seed).float() for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first - 128).std() == pytest.approx(6, rel=0.02)
    assert (first - 128).mean() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("name", [name for name in ALL if name != "noise"])
def test_the_operations_of_a_gpu_give_the_same_on_a_cpu(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    less = {key: 0.8 * value for key, value in ALL[name].items()}
    rows = np.array([Changes(**ALL[name]), Changes(), Changes(**less)])
    images = torch.stack([picture(seed) for seed in range(3)])
    expected = apply_changes(images, rows).float()
    monkeypatch.setattr("siamcar_ros.training.photometric._on_gpu", lambda _: True)
    difference = (apply_changes(images, rows) - expected).abs()
    assert difference.mean() < (1.5 if name == "quality" else 0.3)
    assert difference[1].max() == 0


def test_a_gpus_noise_is_as_strong_as_a_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siamcar_ros.training.photometric._on_gpu", lambda _: True)
    gray = torch.full((2, 255, 255, 3), 128, dtype=torch.uint8)
    noisy = apply_changes(gray, np.array([Changes(noise=8, seed=5), Changes(noise=2, seed=6)]))
    first, second = (noisy.float() - 128).flatten(1)
    assert (first.std(), second.std()) == pytest.approx((8, 2), rel=0.03)
    assert abs(float((first * second).mean())) < 0.2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", [name for name in ALL if name != "noise"])
def test_a_gpu_changes_images_as_a_cpu_does(name: str) -> None:
    rows = np.array([Changes(**ALL[name]), Changes()])
    images = torch.stack([picture(0), picture(1)])
    there = apply_changes(images.cuda(), rows).cpu()
    difference = (there.float() - apply_changes(images, rows)).abs()
    assert difference.mean() < (1.5 if name == "quality" else 0.3)
    assert torch.equal(there[1], images[1])
