"""What is typed after an executable's name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from siamcar_ros.ros.command_line import start_rclpy

EXTRAS = {"mavlink_camera": "pymavlink", "operator_console": "aiohttp"}


@pytest.mark.parametrize("name", ["tracker_node", "evaluate_node", "frame_source", *EXTRAS])
def test_every_executable_tells_how_it_is_used(name: str) -> None:
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name])
    command = [sys.executable, "-m", f"siamcar_ros.ros.{name}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ros2 run siamcar_ros {name} --ros-args" in done.stdout


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("port:=70000", "port out of range. Min: 1, Max: 65535, value: 70000"),
        ("rate:=0.0", "rate out of range Min: 0.1, Max: 100.0, value: 0.0"),
        ("token:=sesame", "token has fewer than 16 characters"),
        ("host:=192.0.2.1", "192.0.2.1"),  # an address of no machine
    ],
)
def test_a_console_that_cannot_serve_says_why(given: str, reason: str) -> None:
    pytest.importorskip("aiohttp")
    command = [sys.executable, "-m", "siamcar_ros.ros.operator_console", "--ros-args", "-p", given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("node", "given"), [("tracker_node", "image_timeout:=5"), ("pan_tilt_controller", "gain:=5")]
)
def test_a_whole_number_for_a_float_is_explained(node: str, given: str) -> None:
    command = [sys.executable, "-m", f"siamcar_ros.ros.{node}", "--ros-args", "-p", given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    name = given.partition(":")[0]
    assert f"parameter '{name}' to '5' of type 'INTEGER', expecting type 'DOUBLE': " in done.stderr
    assert "with a decimal point, as in 5.0" in done.stderr


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
