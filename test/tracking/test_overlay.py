"""The overlay: colors by state, nothing over the targets, ids of any length."""

from __future__ import annotations

import numpy as np
import pytest

from siamcar_ros.geometry import Box
from siamcar_ros.tracking import TrackResult, TrackState
from siamcar_ros.tracking.overlay import COLORS, draw_overlay, label

HEIGHT, WIDTH = 240, 320


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 190, (HEIGHT, WIDTH, 3), np.uint8)


def result(box: Box, state: TrackState = TrackState.TRACKING) -> TrackResult:
    return TrackResult(box, 0.87, state)


@pytest.mark.parametrize(
    "box",
    [(150, 100, 6, 6), (150, 1, 8, 8), (2, 100, 8, 30), (300, 225, 15, 12), (100, 80, 90, 90)],
)
def test_targets_are_not_drawn_over(box: Box) -> None:
    image = noise()
    drawn = draw_overlay(image, {"target": result(box)}, truth=box)
    x, y, w, h = map(int, box)
    target = (slice(y, y + h), slice(x, x + w))
    np.testing.assert_array_equal(drawn[target], image[target])
    assert (drawn != image).any(axis=-1).sum() > 100


def test_labels_avoid_other_targets() -> None:
    """A small target sits where the label of the one below it would be."""
    image = noise()
    boxes: dict[str, Box] = {"below": (100, 100, 40, 40), "above": (105, 84, 8, 8)}
    drawn = draw_overlay(image, {name: result(box) for name, box in boxes.items()})
    np.testing.assert_array_equal(drawn[84:92, 105:113], image[84:92, 105:113])


@pytest.mark.parametrize("state", [state for state in TrackState if state in COLORS])
def test_the_color_tells_the_state(state: TrackState) -> None:
    drawn = draw_overlay(noise(), {"a": result((100, 80, 60, 40), state)})
    counts = {each: int((drawn == COLORS[each]).all(axis=-1).sum()) for each in COLORS}
    assert counts[state] > 150
    assert sum(counts.values()) == counts[state]


def test_long_ids_are_cut() -> None:
    short = draw_overlay(noise(), {"a" * 24: result((100, 80, 60, 40))})
    long, longer = (
        draw_overlay(noise(), {"a" * n: result((100, 80, 60, 40))}) for n in (100, 1_000_000)
    )
    np.testing.assert_array_equal(long, longer)
    assert (short != long).any()


def test_a_tracker_without_a_score_is_labeled_without_one() -> None:
    box = (1.0, 2.0, 3.0, 4.0)
    assert label("car", TrackResult(box, np.nan, TrackState.TRACKING)) == "car"
    assert label("car", TrackResult(box, np.nan, TrackState.LOST)) == "car lost"
    assert label("", TrackResult(box, 0.5, TrackState.TRACKING)) == "0.50"


def test_the_caption_and_a_huge_box_fit() -> None:
    image = noise()
    box = (-1e12, 1e12, 3e12, 1e9)
    drawn = draw_overlay(image, {"a": result(box)}, scale=0.5, caption="12.3 ms")
    assert drawn.shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert (drawn[-20:, :60] == 255).all(axis=-1).any()


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_overlay_leaves_the_image_alone(scale: float) -> None:
    image = noise()[:, :, ::-1]
    before = image.copy()
    results = {
        "inside": TrackResult((140.0, 100.0, 40.0, 30.0), 0.9, TrackState.TRACKING),
        "outside": TrackResult((-50.0, 230.0, 900.0, 900.0), 0.1, TrackState.LOST),
    }
    drawn = draw_overlay(image, results, scale=scale, caption="12.3 ms")
    assert drawn.shape == (round(HEIGHT * scale), round(WIDTH * scale), 3)
    assert drawn.flags.c_contiguous
    np.testing.assert_array_equal(image, before)
