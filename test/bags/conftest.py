"""A sequence to record, and a tracker for `siamcar replay` that needs no network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from recorded_bags import FRAMES, SIZE
from replayed_bag import BrightestSquare

from siamcar_ros.commands import replay as command
from siamcar_ros.evaluation.trackers import TrackerSpec


@pytest.fixture(scope="session")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A noisy ground with a bright square that moves; absent in frame 10 (counted from 0)."""
    folder = tmp_path_factory.mktemp("sequence")
    rng = np.random.default_rng(3)
    rows = []
    for i in range(FRAMES):
        image = rng.integers(0, 90, (*SIZE, 3), np.uint8)
        x, y = 10 + 3 * i, 20 + i
        image[y : y + 18, x : x + 14] = (250, 240, 255)
        assert cv2.imwrite(str(folder / f"{i + 1:08d}.png"), image)
        rows.append("nan,nan,nan,nan" if i == 10 else f"{x},{y},14,18")
    (folder / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def fixed_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `siamcar replay` run a BrightestSquare."""
    spec = TrackerSpec("Brightest", "replayed_bag:BrightestSquare")
    monkeypatch.setattr(TrackerSpec, "build", lambda self: BrightestSquare())
    monkeypatch.setattr(command, "network_spec", lambda *_: spec)
