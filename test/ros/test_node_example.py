"""examples/ros_client.py against a running node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from node_harness import BOX, Robot

pytestmark = [pytest.mark.ros, pytest.mark.slow]

EXAMPLE = Path(__file__).parents[2] / "examples" / "ros_client.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_the_example_prints_detections_and_refusals(robot: Robot) -> None:
    robot.start_camera()
    robot.track()  # the node has an image
    box = ",".join(f"{value:g}" for value in BOX)
    done = run(box, robot.client.tracker, "5")
    assert done.returncode == 0, done.stderr
    first, *rows, last = done.stdout.splitlines()
    assert first.startswith("tracking ")
    assert [len(row.split()) for row in rows] == [6] * 5
    assert first.removeprefix("tracking ") in last
    refused = run("5000,0,10,10", robot.client.tracker)
    assert refused.returncode == 1
    assert "outside" in refused.stderr
