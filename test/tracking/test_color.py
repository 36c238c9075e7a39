"""The colors of a box, and what they say about a target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamcar_ros.geometry import context_side
from siamcar_ros.tracking import SiamCarTracker, TrackerParams
from siamcar_ros.tracking.calibration import EVIDENCE
from siamcar_ros.tracking.color import chroma, likeness

RED, GREEN, GRAY = (20, 30, 200), (30, 180, 40), (90, 90, 90)


def picture(color: tuple[int, int, int], size: int = 96) -> Any:
    """Gray, with a square of a color in the middle of it."""
    image = np.full((size, size, 3), GRAY, np.uint8)
    image[24:72, 24:72] = color
    return image


def test_the_colors_are_those_in_the_box() -> None:
    inside, whole = (47.5, 47.5, 48.0, 48.0), (47.5, 47.5, 96.0, 96.0)
    red = chroma(picture(RED), inside)
    assert red.shape == (64,)
    assert red.sum() == pytest.approx(1)
    assert (red > 0).sum() == 1
    assert likeness(red, red) == pytest.approx(1)
    assert likeness(red, chroma(picture(GREEN), inside)) == 0
    assert 0.6 < likeness(red, chroma(picture(RED), whole)) < 0.95
    assert likeness(red, chroma(picture(RED), (12.0, 12.0, 20.0, 20.0))) == 0


def test_shade_changes_little() -> None:
    inside, shade = (47.5, 47.5, 48.0, 48.0), np.linspace(1, 0.6, 96)[:, None, None]
    red = chroma(picture(RED), inside)
    assert likeness(red, chroma((picture(RED) * shade).astype(np.uint8), inside)) > 0.9
    assert likeness(red, chroma(picture((80, 60, 200)), inside)) < 0.1


@given(st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(0.1, 1e4)] * 2))
@settings(max_examples=50, deadline=None)
def test_any_box_has_colors(box: tuple[float, float, float, float]) -> None:
    colors = chroma(picture(RED), box)
    assert colors.sum() == pytest.approx(1)


def test_a_box_of_other_colors_is_told(network: Any) -> None:
    """The maps show the target where it was; its colors are those of something else."""
    frame = np.full((480, 640, 3), GRAY, np.uint8)
    frame[200:280, 300:340] = RED
    scale = 127 / context_side(40, 80)
    network.show((40 * scale, 80 * scale), logit=3)
    network.calibration = {"alone": {"colors": 8, "constant": -4}}
    tracker = SiamCarTracker(network, TrackerParams(redetect=False))
    tracker.init(frame, (300, 200, 40, 80))
    same = tracker.update(frame)
    other = frame.copy()
    other[200:280, 300:340] = GREEN
    different = tracker.update(other)
    assert dict(zip(EVIDENCE, tracker.evidence, strict=True))["colors"] < 0.1
    assert same.score > 0.95
    assert different.score < 0.05
    assert different.raw_score == pytest.approx(same.raw_score)
