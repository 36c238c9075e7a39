"""The node in a process in which no inference library can be imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from node_harness import PATIENCE, Robot, wait_for_more
from vision_msgs.msg import Detection2DArray

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def test_it_tracks(start: Callable[..., Robot], monkeypatch: pytest.MonkeyPatch) -> None:
    blocker = Path(__file__).parents[1] / "without_torch"
    path = os.pathsep.join((str(blocker), os.environ.get("PYTHONPATH", "")))
    monkeypatch.setenv("PYTHONPATH", path)
    robot = start(config="compact", backend="auto", threads=1)
    robot.client.wait_until_active(PATIENCE)
    heard = robot.collect(Detection2DArray, "detections")
    robot.start_camera(5.0)
    robot.track()
    wait_for_more(heard, 3)
    assert heard[-1].detections
    assert "opencv" in robot.process.log
