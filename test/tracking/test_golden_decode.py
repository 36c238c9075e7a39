"""The decoder against the published one, frame by frame, through the public class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from references import reference

from siamcar_ros.tracking import SiamCarTracker, TrackerParams

RUNS = ("stub_UAV123", "stub_yaml")
EDGES = tuple(f"edge{i:02d}" for i in range(12))
# The published decoder fails on the other edges.
ANSWERED_EDGES = ("edge00", "edge06", "edge07", "edge08", "edge09")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(reference("golden/decode.npz")) as file:
        return dict(file)


def start(golden: dict[str, Any], name: str, network: Any) -> SiamCarTracker:
    lr, penalty_k, window = golden[f"{name}_hp_lr_penaltyk_windowlr"].tolist()
    tracker = SiamCarTracker(
        network, TrackerParams(lr=lr, penalty_k=penalty_k, window_influence=window)
    )
    tracker.init(np.full((480, 640, 3), 100, np.uint8), golden[f"{name}_box"])
    return tracker


def maps_of(golden: dict[str, Any], name: str, frame: int) -> tuple[Any, ...]:
    return tuple(golden[f"{name}_{part}"][frame : frame + 1] for part in ("cls", "loc", "cen"))


@pytest.mark.parametrize("name", [*RUNS, *ANSWERED_EDGES])
def test_boxes_are_the_published_ones(golden: dict[str, Any], name: str, network: Any) -> None:
    tracker = start(golden, name, network)
    frame = np.full((480, 640, 3), 100, np.uint8)
    for i, expected in enumerate(golden[f"{name}_bbox"]):
        network.maps = maps_of(golden, name, i)
        box = tracker.update(frame).box
        np.testing.assert_allclose(box, expected, atol=1e-3, err_msg=f"frame {i}")


@pytest.mark.parametrize("name", EDGES)
def test_a_peak_at_the_border_gives_the_box_there(
    golden: dict[str, Any], name: str, network: Any
) -> None:
    tracker = start(golden, name, network)
    network.maps = cls, loc, cen = maps_of(golden, name, 0)
    x, y, w, h = tracker.update(np.full((480, 640, 3), 100, np.uint8)).box
    # The cell with the best score, as a displacement in image pixels of the last center, 320, 240;
    # enlarging moves a border cell inwards by up to 4 search pixels, the region search by more.
    foreground = 1 / (1 + np.exp(cls[0, 0] - cls[0, 1]))
    row, column = np.unravel_index((foreground * (cen[0, 0] - cen.min())).argmax(), (25, 25))
    scale = 127 / np.sqrt(100 * 140)
    assert (x + w / 2 - 320) * scale == pytest.approx(8 * (column - 12), abs=16)
    assert (y + h / 2 - 240) * scale == pytest.approx(8 * (row - 12), abs=16)
    # The size moves from the last one toward the one shown, and not beyond.
    shown_w = (loc[0, 0] + loc[0, 2])[row, column] / scale
    shown_h = (loc[0, 1] + loc[0, 3])[row, column] / scale
    assert min(40, shown_w) - 3 <= w <= max(40, shown_w) + 3
    assert min(80, shown_h) - 3 <= h <= max(80, shown_h) + 3
