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

from siamcar_ros.data.frames import Frame, frame_from_box, frame_from_mask
from siamcar_ros.geometry import context_side
from siamcar_ros.tracking.crop import crop_square, mean_color
from siamcar_ros.training import load_recipe
from siamcar_ros.training.augment import (
    AugmentParams,
    PairMaker,
    TrainingPair,
)
from siamcar_ros.training.layers import coverage, deform, edge_errors, place
from siamcar_ros.training.photometric import Changes, apply_changes

STILL = AugmentParams(**{field.name: 0.0 for field in dataclasses.fields(AugmentParams)})
EVERYTHING = dataclasses.replace(
    AugmentParams(),
    template_box=0.05,
    search_box=0.08,
    deform=0.5,
    motion_blur=0.5,
    thermal=0.2,
    glare=0.5,
    lighting=0.5,
    noise=1.0,
)


def finished(pair: TrainingPair) -> tuple[np.ndarray, np.ndarray]:
    """Template and search region with their changes applied."""
    views = torch.from_numpy(pair.template)[None], torch.from_numpy(pair.search)[None]
    template, search = (
        apply_changes(view, row[None])[0].numpy()
        for view, row in zip(views, pair.changes, strict=True)
    )
    return template, search


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


def bounds(lit: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) - 0.5


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
    center = (pair.box[:2] + pair.box[2:]) / 2
    assert center == pytest.approx([127, 127], abs=1e-3)
    assert pair.box[2:] - pair.box[:2] == pytest.approx([w / step, h / step], rel=1e-4)


class Either:
    """A source of several frames, in both places of a pair the same."""

    def __init__(self, *frames: Frame) -> None:
        self.frames = frames

    def pair(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        frame = self.frames[rng.integers(len(self.frames))]
        return frame, frame


def flat(level: int, scene: str) -> Frame:
    """A frame of one gray level whose target is a square in the middle."""
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


class Colored:
    """Three videos on gray, of a target that is blue in the first, green or red in the others."""

    def pair(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        video = int(rng.integers(3))
        one, other = (self._frame(video, int(x)) for x in rng.integers(0, 260, 2))
        return one, other

    def _frame(self, video: int, x: int) -> Frame:
        image, mask = np.full((240, 320, 3), 128, np.uint8), np.zeros((240, 320), np.uint8)
        mask[90:140, x : x + 60] = 255
        image[mask > 0] = 0
        image[mask > 0, video] = 255
        return frame_from_mask(image, mask, str(video))


def test_the_target_appears_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither backgrounds nor distractors nor occluders show what the template shows."""
    monkeypatch.setattr("siamcar_ros.training.augment.recolored", lambda image, *_: image)
    maker = PairMaker(Colored(), Colored(), load_recipe("compact").augment)
    kinds = []
    for seed in range(300):
        pair = maker.make(np.random.default_rng(seed))
        color = int(pair.template[63, 63].argmax())
        template, search = (
            (view.argmax(2) == color) & (view.max(2) > 200) & (view.min(2) < 50)
            for view in (pair.template, pair.search)
        )
        count, _, stats, _ = cv2.connectedComponentsWithStats(template.astype(np.uint8))
        assert (stats[1:count, cv2.CC_STAT_AREA] > 4).sum() == 1, seed
        if pair.positive:
            x1, y1, x2, y2 = pair.box.round().clip(0, 255).astype(int)
            search[max(y1 - 3, 0) : y2 + 4, max(x1 - 3, 0) : x2 + 4] = False
        assert not search.any(), seed
        kinds.append(pair.positive)
    assert 0 < kinds.count(False) < 60


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0, 30, 45, 180])
def test_coverage_of_turned_crops(angle: float, mirrored: bool) -> None:
    image = np.zeros((900, 900, 3), np.uint8)
    turn = np.array(cv2.getRotationMatrix2D((450, 450), angle, 1))
    turn[:, 2] += 127.5 - 450
    if mirrored:
        turn[0] = -turn[0] + (0, 0, 255)
    assert coverage(image, turn, 255) == pytest.approx(1, abs=1e-4)
    part = image[:500, :500]
    seen = np.mean(cv2.warpAffine(np.ones(part.shape[:2]), turn, (255, 255)))
    assert coverage(part, turn, 255) == pytest.approx(seen, abs=0.01)


def test_lighting_offsets_the_channels_of_each_view_as_the_authors_do() -> None:
    frame = flat(128, "a")
    maker = PairMaker(One(frame), One(frame), dataclasses.replace(STILL, lighting=1.0))
    pairs = [finished(maker.make(np.random.default_rng(seed))) for seed in range(300)]
    templates = np.stack([template[60, 60] for template, _ in pairs]).astype(float) - 128
    searches = np.stack([search[60, 60] for _, search in pairs]).astype(float) - 128
    for offsets in (templates, searches):
        assert np.abs(offsets).mean(0) == pytest.approx([6.6, 2.0, 1.0], rel=0.2)
    assert abs(np.corrcoef(templates[:, 0], searches[:, 0])[0, 1]) < 0.2


def test_each_view_is_blurred_by_its_own_chance() -> None:
    frame = frame_from_box(noisy(), np.array([100, 60, 160, 100], np.float32))

    def made(**chances: float) -> tuple[np.ndarray, np.ndarray]:
        params = dataclasses.replace(STILL, **chances)
        return finished(PairMaker(One(frame), One(frame), params).make(np.random.default_rng(1)))

    still, search, template = made(), made(blur=1.0), made(template_blur=1.0)
    assert np.array_equal(search[0], still[0])
    assert not np.array_equal(search[1], still[1])
    assert np.array_equal(template[1], still[1])
    assert not np.array_equal(template[0], still[0])


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
    seen = bounds(cv2.warpAffine(mask, matrix, (255, 255)) > 127)
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
        assert pair.box == pytest.approx(bounds(pair.search[..., 0] > 127), abs=2)
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
    maker = PairMaker(One(frame), One(frame), EVERYTHING)
    made = [finished(maker.make(np.random.default_rng(seed))) for seed in (3, 4, 3)]
    for view in range(2):
        assert np.array_equal(made[0][view], made[2][view])
        assert not np.array_equal(made[0][view], made[1][view])


def ellipse(width: int = 320, height: int = 240) -> Frame:
    """A white ellipse on black, whose pixels in a crop tell its box."""
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, (150, 110), (50, 24), 20, 0, 360, 255, -1)
    return frame_from_mask(cv2.merge([mask] * 3), mask)


def test_a_deformed_target_keeps_its_box_and_not_its_shape() -> None:
    maker = PairMaker(One(ellipse()), One(flat(0, "b")), dataclasses.replace(STILL, deform=1.0))
    plain = PairMaker(One(ellipse()), One(flat(0, "b")), STILL).make(np.random.default_rng(0))
    overlaps = []
    for seed in range(20):
        pair = maker.make(np.random.default_rng(seed))
        lit = pair.search[..., 0] > 127
        assert pair.box == pytest.approx(bounds(lit), abs=2)
        still = plain.search[..., 0] > 127
        overlaps.append((lit & still).sum() / (lit | still).sum())
        assert 0.5 < lit.sum() / still.sum() < 2, "it is bent, not blown up"
    assert np.median(overlaps) < 0.9
    assert np.std(overlaps) > 0.01


def test_a_target_that_would_be_deformed_over_the_border_is_left_alone() -> None:
    layer, alpha = np.full((255, 255, 3), 90, np.uint8), np.full((255, 255), 255, np.uint8)
    box = np.array([-0.5, -0.5, 254.5, 254.5])
    same = deform(layer, alpha, box, np.random.default_rng(0))
    assert np.array_equal(same[0], layer)
    assert np.array_equal(same[1], alpha)
    assert np.array_equal(same[2], box)


def test_a_target_known_by_its_box_alone_is_not_deformed() -> None:
    frame = frame_from_box(noisy(), np.array([100, 94, 200, 126], np.float32))
    made = [
        PairMaker(One(frame), One(frame), params).make(np.random.default_rng(0))
        for params in (STILL, dataclasses.replace(STILL, deform=1.0))
    ]
    assert np.array_equal(made[0].search, made[1].search)


def spread(image: np.ndarray, direction: np.ndarray) -> float:
    """Standard deviation of an image's light along a direction."""
    y, x = np.indices(image.shape)
    along = x * direction[0] + y * direction[1]
    weights = image / image.sum()
    return float(np.sqrt((weights * (along - (weights * along).sum()) ** 2).sum()))


def test_motion_blur_is_along_the_shift() -> None:
    """Of the composed target alone, or of the whole search region."""
    mask = np.zeros((240, 320), np.uint8)
    cv2.circle(mask, (160, 120), 20, 255, -1)
    image = cv2.merge([mask] * 3)
    for frame in (
        frame_from_mask(image, mask),
        frame_from_box(image, (bounds(mask) + 0.5).astype(np.float32)),
    ):
        params = dataclasses.replace(
            STILL, search_shift=64.0, motion_blur=1.0, compose=1.0, compose_sparse=1.0
        )
        ratios = []
        for seed in range(12):
            pair = PairMaker(One(frame), One(flat(0, "b")), params).make(
                np.random.default_rng(seed)
            )
            shift = (pair.box[:2] + pair.box[2:]) / 2 - 127
            direction = shift / np.hypot(*shift)
            search = finished(pair)[1][..., 0].astype(float)
            across = spread(search, direction[::-1] * (1, -1))
            ratios.append(spread(search, direction) / across)
        assert np.mean(ratios) > 1.015
        assert np.min(ratios) > 0.995


def test_an_occluder_leaves_half_of_the_target() -> None:
    """Strips, corners and other targets in turn."""
    target, other = flat(250, "a"), flat(5, "b")
    params = dataclasses.replace(STILL, occluder=1.0)
    maker = PairMaker(One(target), One(other), params)
    hidden = []
    for seed in range(40):
        pair = maker.make(np.random.default_rng(seed))
        x1, y1, x2, y2 = (round(float(v)) for v in pair.box)
        hidden.append((pair.search[y1:y2, x1:x2, 0] < 128).mean())
    assert max(hidden) < 0.62
    assert np.mean(np.array(hidden) > 0.02) > 0.9


def test_crops_are_taken_around_boxes_as_wrong_as_the_trackers() -> None:
    """The crop is off center and off scale, the box that is learned is still the target's."""
    frame = ellipse()
    maker = PairMaker(One(frame), One(frame), dataclasses.replace(STILL, search_box=0.08))
    centers, scales = [], []
    for seed in range(200):
        pair = maker.make(np.random.default_rng(seed))
        assert pair.box == pytest.approx(bounds(pair.search[..., 0] > 127), abs=1.6)
        centers.append((pair.box[:2] + pair.box[2:]) / 2 - 127)
        scales.append(np.log(np.sqrt(np.prod(pair.box[2:] - pair.box[:2]))))
    assert 2 < np.abs(centers).mean() < 8
    assert 0.04 < np.std(scales) < 0.12
    errors = np.stack([edge_errors(np.random.default_rng(seed), 0.08) for seed in range(4000)])
    assert np.abs(errors).mean() == pytest.approx(0.08, rel=0.05)
    assert (errors[:, 2:] + errors[:, :2] * -1 > -0.81).all(), "no box vanishes"


def test_thermal_pairs_are_gray_and_inverted() -> None:
    frame = frame_from_box(noisy(), np.array([100, 60, 160, 100], np.float32))
    plain = finished(PairMaker(One(frame), One(frame), STILL).make(np.random.default_rng(0)))
    params = dataclasses.replace(STILL, thermal=1.0)
    seen = finished(PairMaker(One(frame), One(frame), params).make(np.random.default_rng(0)))
    for view, before in zip(seen, plain, strict=True):
        assert (view[..., 0] == view[..., 2]).all()
        gray = cv2.cvtColor(before, cv2.COLOR_BGR2GRAY).astype(int)
        assert np.abs(view[..., 0] - (255 - gray)).max() <= 1


def test_gray_pairs_stay_gray() -> None:
    """Whatever else changes them."""
    params = dataclasses.replace(
        load_recipe("compact").augment, gray=1.0, thermal=0.3, lighting=0.5, noise=0.5
    )
    frame = frame_from_box(noisy(), np.array([100, 60, 160, 100], np.float32))
    for seed in range(20):
        pair = PairMaker(One(frame), One(frame), params).make(np.random.default_rng(seed))
        for view in finished(pair):
            assert (view == view[..., :1]).all(), seed


def test_what_is_drawn_where_nothing_is_asked_for_changes_nothing() -> None:
    frame = ellipse()
    pair = PairMaker(One(frame), One(frame), STILL).make(np.random.default_rng(0))
    neutral = np.array(Changes())
    for row in pair.changes:
        assert row[:-1] == pytest.approx(neutral[:-1])
    assert np.array_equal(finished(pair)[1], pair.search)
