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

from siamcar_ros.geometry import context_side
from siamcar_ros.tracking.crop import crop_square, mean_color
from siamcar_ros.training.augment import (
    AugmentParams,
    PairMaker,
    TrainingPair,
    _coverage,
    place,
)
from siamcar_ros.training.distributed import Processes
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
    step = context_side(w, h) / 127
    for ours, size in ((pair.template, 127), (pair.search, 255)):
        theirs = np.zeros((size, size, 3), np.uint8)
        crop_square(image, (x + w / 2, y + h / 2), step, (size - 1) / 2, mean_color(image), theirs)
        inner = slice(size // 4, -size // 4)
        difference = np.abs(ours[inner, inner].astype(int) - theirs[inner, inner])
        assert difference.max() <= 3
    centre = (pair.box[:2] + pair.box[2:]) / 2
    assert centre == pytest.approx([127, 127], abs=1e-3)
    assert pair.box[2:] - pair.box[:2] == pytest.approx([w / step, h / step], rel=1e-4)


class Either:
    """A source of several frames, in both places of a pair the same."""

    def __init__(self, *frames: Frame) -> None:
        self.frames = frames

    def pair(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        frame = self.frames[rng.integers(len(self.frames))]
        return frame, frame


def flat(level: int, scene: str) -> Frame:
    """A frame of one grey level whose target is a square in the middle."""
    mask = np.zeros((240, 320), np.uint8)
    mask[100:140, 140:180] = 255
    return frame_from_mask(np.full((240, 320, 3), level, np.uint8), mask, scene)


def test_negative_pairs_are_of_two_scenes_and_say_so() -> None:
    """One made in vain of frames of one scene is a positive one."""
    params = dataclasses.replace(STILL, negative=1.0)
    source = Either(flat(50, "a"), flat(150, "b"))
    maker = PairMaker(source, source, params)
    pairs = [maker.make(np.random.default_rng(seed)) for seed in range(40)]
    for pair in pairs:
        assert pair.positive == (pair.template[63, 63, 0] == pair.search[127, 127, 0])
    assert sum(pair.positive for pair in pairs) < 10
    alone = One(flat(50, "a"))
    assert PairMaker(alone, alone, params).make(np.random.default_rng(0)).positive


def test_the_target_is_no_distractor_of_itself() -> None:
    """The surroundings hold the target's own scene, in which it is lighter, and another's."""
    own, other = flat(200, "a"), flat(90, "b")
    params = dataclasses.replace(STILL, distractor=1.0)
    maker = PairMaker(One(flat(50, "a")), Either(own, other), params)
    seen = np.stack([maker.make(np.random.default_rng(seed)).search for seed in range(20)])
    assert (seen[..., 0] > 85).any()
    assert not (seen > 95).any()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0, 30, 45, 180])
def test_coverage_of_turned_crops(angle: float, mirrored: bool) -> None:
    image = np.zeros((900, 900, 3), np.uint8)
    turn = np.array(cv2.getRotationMatrix2D((450, 450), angle, 1))
    turn[:, 2] += 127.5 - 450
    if mirrored:
        turn[0] = -turn[0] + (0, 0, 255)
    assert _coverage(image, turn, 255) == pytest.approx(1, abs=1e-4)
    part = image[:500, :500]
    seen = np.mean(cv2.warpAffine(np.ones(part.shape[:2]), turn, (255, 255)))
    assert _coverage(part, turn, 255) == pytest.approx(seen, abs=0.01)


def test_lighting_offsets_the_channels_of_each_view_as_the_authors_do() -> None:
    frame = flat(128, "a")
    maker = PairMaker(One(frame), One(frame), dataclasses.replace(STILL, lighting=1.0))
    pairs = [maker.make(np.random.default_rng(seed)) for seed in range(300)]
    templates = np.stack([pair.template[60, 60] for pair in pairs]).astype(float) - 128
    searches = np.stack([pair.search[60, 60] for pair in pairs]).astype(float) - 128
    for offsets in (templates, searches):
        assert np.abs(offsets).mean(0) == pytest.approx([6.6, 2.0, 1.0], rel=0.2)
    assert abs(np.corrcoef(templates[:, 0], searches[:, 0])[0, 1]) < 0.2


def test_each_view_is_blurred_by_its_own_chance() -> None:
    frame = frame_from_box(noisy(), np.array([100, 60, 160, 100], np.float32))

    def made(**chances: float) -> TrainingPair:
        params = dataclasses.replace(STILL, **chances)
        return PairMaker(One(frame), One(frame), params).make(np.random.default_rng(1))

    still, search, template = made(), made(blur=1.0), made(template_blur=1.0)
    assert np.array_equal(search.template, still.template)
    assert not np.array_equal(search.search, still.search)
    assert np.array_equal(template.search, still.search)
    assert not np.array_equal(template.template, still.template)


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


@pytest.mark.parametrize("change", [{"turn": 1.0}, {"rotation": 30.0}])
def test_a_target_known_by_its_box_alone_is_not_turned(change: dict[str, float]) -> None:
    frame = frame_from_box(noisy(), np.array([100, 94, 200, 126], np.float32))
    maker = PairMaker(One(frame), One(frame), dataclasses.replace(STILL, **change))
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
    changed = DeviceAugment(STILL, 0, Processes())(templates, searches, boxes, 5)
    assert torch.allclose(changed[0], templates, atol=1e-3)
    assert torch.allclose(changed[1], searches, atol=1e-3)


@pytest.mark.parametrize("what", ["color", "lighting", "gray", "blur", "low_resolution", "noise"])
def test_on_device_each_change_is_done_and_repeatable(what: str) -> None:
    templates, searches, boxes = batch()
    params = dataclasses.replace(STILL, **{what: 1.0})
    if what == "blur":
        params = dataclasses.replace(params, template_blur=1.0)
    change = DeviceAugment(params, 1, Processes())
    first = change(templates, searches, boxes, 5)
    again = change(templates, searches, boxes, 5)
    later = change(templates, searches, boxes, 6)
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


def test_on_device_processes_share_the_batch_of_one() -> None:
    params = dataclasses.replace(AugmentParams(), lighting=0.5, blur=0.5, noise=0.5, color=0.5)
    whole = batch(8)
    expected = DeviceAugment(params, 1, Processes())(whole[0], whole[1], whole[2], 5)
    for rank in (0, 1):
        templates, searches, boxes = (tensor[rank::2] for tensor in whole)
        changed = DeviceAugment(params, 1, Processes(rank, 2))(templates, searches, boxes, 5)
        for one, other in zip(changed, expected, strict=True):
            assert torch.allclose(one, other[rank::2], atol=1e-3)


def test_on_device_light_changes_in_both_views_or_in_neither() -> None:
    params = dataclasses.replace(STILL, color=0.5)
    plain = torch.full((200, 3, 4, 4), 100.0)
    templates, searches = DeviceAugment(params, 1, Processes())(
        plain, plain, torch.tensor([[1.0, 1, 3, 3]]).repeat(200, 1), 5
    )
    lit = [(view - plain).abs().amax((1, 2, 3)) > 0.01 for view in (templates, searches)]
    assert torch.equal(*lit)
    assert 0.4 < lit[0].float().mean() < 0.6


def test_the_workers_leave_to_the_device_what_it_does() -> None:
    rest = without_photometric(dataclasses.replace(AugmentParams(), lighting=1.0))
    assert (rest.color, rest.gray, rest.low_resolution, rest.noise) == (0, 0, 0, 0)
    assert (rest.lighting, rest.blur, rest.template_blur) == (0, 0, 0)
    assert rest.compression == AugmentParams().compression
    assert rest.compose == AugmentParams().compose
