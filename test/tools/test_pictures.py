"""tools/pictures.py: the pictures are drawn, and keep the overlay's colors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pictures
import pytest

from siamcar_ros.tracking import TrackState
from siamcar_ros.tracking.overlay import COLORS


@pytest.mark.slow
def test_the_demonstration_shows_boxes_in_the_colors_of_their_states(tmp_path: Path) -> None:
    pictures.save(pictures.demo(), tmp_path / "demo.png")
    assert (tmp_path / "demo.png").stat().st_size < 600_000
    drawn = cv2.imread(str(tmp_path / "demo.png"))
    assert drawn is not None
    assert drawn.shape == (480, 1280, 3)
    for state in (TrackState.TRACKING, TrackState.UNCERTAIN):
        distance = np.abs(drawn.astype(int) - COLORS[state]).max(axis=-1)
        assert (distance < 6).sum() > 500, state
