"""CONTRIBUTING.md's steps for a parameter and a topic, in a node that runs a changed copy."""

from __future__ import annotations

from pathlib import Path

import pytest
from contributed import apply, copy_package, environment
from node_harness import NodeProcess, Robot, wait_for_more
from std_msgs.msg import UInt32

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def test_a_node_has_the_new_parameter_and_topic(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_package(tmp_path / "checkout")
    apply("Add a parameter of the node", copy)
    apply("Add a topic", copy)
    monkeypatch.setenv("PYTHONPATH", environment(copy)["PYTHONPATH"])
    monkeypatch.chdir(copy)  # `python -m` looks there first
    parameters: dict[str, object] = {"config": config, "backend": "torch", "image_timeout": 30.0}
    process = NodeProcess(tmp_path / "node.log", "/contributed", parameters)
    robot = Robot(process)
    try:
        robot.client.wait_until_active(timeout=120.0)
        assert robot.get_parameter("score_scale") == 1.0
        assert robot.set_parameters(score_scale=0.5) == ""
        assert robot.get_parameter("score_scale") == 0.5
        assert robot.set_parameters(score_scale=2.0), "out of its range"
        counts = robot.collect(UInt32, "count")
        robot.start_camera()
        robot.track()
        wait_for_more(counts, 5)
        assert counts[-1].data == 1
    finally:
        robot.close()
        process.end()
