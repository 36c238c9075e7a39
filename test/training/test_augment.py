"""Crops for training against the tracker's own, boxes under every change, and repeatability."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from siamcar_ros.tracking.crop import crop_square, mean_colour, template_side
from siamcar_ros.training.augment import AugmentParams, PairMaker, place
from siamcar_ros.training.frames import Frame, frame_from_box, frame_from_mask
from siamcar_ros.training.photometric import DeviceAugment, without_photometric

STILL = AugmentParams(**{field.name: 0.0 for field in dataclasses.fields(AugmentParams)})


class One:
    """A source of one frame."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def pair(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        return self.frame, self.frame


def noisy(width: int = 320, height: int = 240) -> np.ndarray:
    draw = np.random.default_rng(1)
    image = draw.integers(0, 255, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.5))


def test_without_changes_the_crops_are_the_trackers() -> None:
    image = noisy()
    x, y, w, h = 101.0, 62.0, 61.0, 40.0
    frame = frame_from_box(image, np.array([x, y, x + w, y + h], np.float32))
    pair = PairMaker(One(frame), One(frame), STILL).make(np.random.default_rng(0))
    step = template_side(w, h) / 127
    for ours, size in ((pair.template, 127), (pair.search, 255)):
        theirs = np.zeros((size, size, 3), np.uint8)
        crop_square(image, (x + w / 2, y + h / 2), step, (size - 1) / 2, mean_colour(image), theirs)
        inner = slice(size // 4, -size // 4)
        difference = np.abs(ours[inner, inner].astype(int) - theirs[inner, inner])
        assert difference.max() <= 3
    centre = (pair.box[:2] + pair.box[2:]) / 2
    assert centre == pytest.approx([127, 127], abs=1e-3)
    assert pair.box[2:] - pair.box[:2] == pytest.approx([w / step, h / step], rel=1e-4)


def test_negative_pairs_say_so() -> None:
    frame = frame_from_box(noisy(), np.array([100, 60, 160, 100], np.float32))
    params = dataclasses.replace(STILL, negative=1.0)
    assert not PairMaker(One(frame), One(frame), params).make(np.random.default_rng(0)).positive


@settings(deadline=None, max_examples=60)
@given(
    st.floats(-40, 40),
    st.floats(-0.3, 0.3),
    st.booleans(),
    st.floats(-50, 50),
    st.floats(-0.2, 0.2),
)
def test_the_box_follows_the_mask(
    angle: float, stretch: float, mirrored: bool, shift: float, scale: float
) -> None:
    mask = np.zeros((240, 320), np.uint8)
    cv2.ellipse(mask, (150, 110), (50, 24), 30, 0, 360, 255, -1)
    frame = frame_from_mask(noisy(), mask)
    turn = np.radians(angle)
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = linear @ np.diag((np.exp(stretch), np.exp(-stretch)))
    if mirrored:
        linear = linear @ np.diag((-1.0, 1.0))
    matrix, box = place(frame, linear, np.array([127.5 + shift, 127.5]), scale)
    moved = cv2.warpAffine(mask, matrix, (255, 255)) > 127
    rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
    seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) - 0.5
    inside = (box[:2] >= 0).all() and (box[2:] <= 254).all()
    assert not inside or np.abs(box - seen).max() < 2.0


def test_a_turned_target_keeps_its_box() -> None:
    mask = np.zeros((240, 320), np.uint8)
    cv2.ellipse(mask, (150, 110), (50, 16), 0, 0, 360, 255, -1)
    frame = frame_from_mask(cv2.merge([mask] * 3), mask)
    maker = PairMaker(One(frame), One(frame), dataclasses.replace(STILL, turn=1.0))
    aspects = []
    for seed in range(20):
        pair = maker.make(np.random.default_rng(seed))
        lit = pair.search[..., 0] > 127
        rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
        seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) - 0.5
        assert pair.box == pytest.approx(seen, abs=2)
        width, height = pair.box[2:] - pair.box[:2]
        aspects.append(width / height)
    assert min(aspects) < 0.7
    assert max(aspects) > 1.5


def test_a_target_known_by_its_box_alone_is_not_turned() -> None:
    frame = frame_from_box(noisy(), np.array([100, 94, 200, 126], np.float32))
    maker = PairMaker(One(frame), One(frame), dataclasses.replace(STILL, turn=1.0))
    template_scale = 127 / math.sqrt((100 + 66) * (32 + 66))
    for seed in range(5):
        box = maker.make(np.random.default_rng(seed)).box
        assert box[2:] - box[:2] == pytest.approx(np.array([100, 32]) * template_scale, abs=0.1)


def test_a_number_decides_everything() -> None:
    mask = np.zeros((240, 320), np.uint8)
    mask[60:120, 90:200] = 255
    frame = frame_from_mask(noisy(), mask)
    maker = PairMaker(One(frame), One(frame), dataclasses.replace(AugmentParams(), noise=1.0))
    made = []
    for seed in (3, 4, 3):
        cv2.setRNGSeed(seed)
        made.append(maker.make(np.random.default_rng(seed)))
    assert np.array_equal(made[0].search, made[2].search)
    assert np.array_equal(made[0].template, made[2].template)
    assert not np.array_equal(made[0].search, made[1].search)


def batch(count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    templates = torch.rand(count, 3, 127, 127, generator=draw) * 255
    searches = torch.rand(count, 3, 255, 255, generator=draw) * 255
    boxes = torch.tensor([[90.0, 80, 160, 170]]).repeat(count, 1)
    return templates, searches, boxes


def test_on_device_nothing_asked_for_is_nothing_done() -> None:
    templates, searches, boxes = batch()
    changed = DeviceAugment(STILL, 0)(templates, searches, boxes, 5)
    assert torch.allclose(changed[0], templates, atol=1e-3)
    assert torch.allclose(changed[1], searches, atol=1e-3)


@pytest.mark.parametrize("what", ["color", "gray", "blur", "low_resolution", "noise"])
def test_on_device_each_change_is_done_and_repeatable(what: str) -> None:
    templates, searches, boxes = batch()
    params = dataclasses.replace(STILL, **{what: 1.0})
    first = DeviceAugment(params, 1)(templates, searches, boxes, 5)
    again = DeviceAugment(params, 1)(templates, searches, boxes, 5)
    later = DeviceAugment(params, 1)(templates, searches, boxes, 6)
    for one, other, before in zip(first, again, (templates, searches), strict=True):
        assert torch.equal(one, other)
        assert one.shape == before.shape
        assert ((one >= 0) & (one <= 255)).all()
        assert (one - before).abs().mean(dim=(1, 2, 3)).min() > 0.5, "every image is changed"
    if what != "gray":
        assert not torch.equal(first[1], later[1])
    if what == "gray":
        assert torch.allclose(first[1][:, 0], first[1][:, 2])
    if what in ("blur", "low_resolution"):
        assert first[1].diff(dim=-1).abs().mean() < searches.diff(dim=-1).abs().mean()


def test_the_workers_leave_to_the_device_what_it_does() -> None:
    rest = without_photometric(AugmentParams())
    assert (rest.color, rest.gray, rest.blur, rest.low_resolution, rest.noise) == (0, 0, 0, 0, 0)
    assert rest.compression == AugmentParams().compression
    assert rest.compose == AugmentParams().compose
