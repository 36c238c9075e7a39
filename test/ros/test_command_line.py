"""What is typed after an executable's name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from siamcar_ros.ros.command_line import start_rclpy


@pytest.mark.parametrize(
    "name", ["tracker_node", "evaluate_node", "frame_source", "mavlink_camera"]
)
def test_every_executable_tells_how_it_is_used(name: str) -> None:
    if name == "mavlink_camera":
        pytest.importorskip("pymavlink")
    command = [sys.executable, "-m", f"siamcar_ros.ros.{name}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ros2 run siamcar_ros {name} --ros-args" in done.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--config", "compact"], "unknown arguments '--config compact': parameters are given as"),
        (["--ros-args", "-p", "config:=x", "--", "more"], "unknown arguments 'more'"),
        (["--ros-args", "-x"], "unknown ROS arguments: ['-x']"),
        (["--ros-args", "-r"], "trailing -r"),
        (["--ros-args", "--params-file", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_is_not_understood_is_said(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start_rclpy("usage", words) == 2
    assert reason in capsys.readouterr().err
