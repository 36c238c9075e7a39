"""The examples that talk to a node, against a running one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from geometry_msgs.msg import Twist
from node_harness import BOX, Robot, camera_info, wait_for
from sensor_msgs.msg import CameraInfo

pytestmark = [pytest.mark.ros, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_the_example_prints_detections_and_refusals(robot: Robot) -> None:
    robot.start_camera()
    robot.track()  # the node has an image
    box = ",".join(f"{value:g}" for value in BOX)
    done = run("ros_client.py", box, robot.client.tracker, "5")
    assert done.returncode == 0, done.stderr
    first, *rows, last = done.stdout.splitlines()
    assert first.startswith("tracking ")
    assert [len(row.split()) for row in rows] == [6] * 5
    assert first.removeprefix("tracking ") in last
    refused = run("ros_client.py", "5000,0,10,10", robot.client.tracker)
    assert refused.returncode == 1
    assert "outside" in refused.stderr


def test_the_robot_turns_toward_the_target_and_stops(robot: Robot) -> None:
    info = robot.publisher("camera_info", CameraInfo)
    wait_for("subscriber of camera_info", info.get_subscription_count)
    robot.start_camera()
    robot.track()
    info.publish(camera_info())
    commands: list[Twist] = []
    robot.client.node.create_subscription(Twist, "/cmd_vel", commands.append, 200)
    box = ",".join(f"{value:g}" for value in BOX)
    done = run(
        "turn_to_target.py", box, robot.client.tracker, "90"
    )  # some are over before it is heard
    assert done.returncode == 0, done.stderr
    wait_for("commands", lambda: len(commands) > 10)
    turns = [each.angular.z for each in commands]
    # The target is to the left of the image's middle at first, so the robot turns left.
    assert max(map(abs, turns)) <= 1.0
    assert any(turns)
    assert turns[-1] == 0.0
