"""The node's states, parameters and end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_harness import BOX, PATIENCE, NodeProcess, Robot, raw_image, scene, wait_for
from rcl_interfaces.srv import DescribeParameters
from vision_msgs.msg import Detection2D

from siamcar_ros.ros.client import TargetRefused

pytestmark = pytest.mark.ros
Start = Callable[..., NodeProcess]


def change(robot: Robot, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(robot.call(ChangeState, "/tracker/change_state", request).success)


def state(robot: Robot) -> int:
    answer = robot.call(GetState, "/tracker/get_state", GetState.Request())
    return int(answer.current_state.id)


def test_up_and_down_ten_times(start_node: Start, robot: Robot) -> None:
    node = start_node(autostart=False)
    detections = robot.collect(Detection2D, "/tracker/detection")
    assert state(robot) == State.PRIMARY_STATE_UNCONFIGURED
    with pytest.raises(TargetRefused, match="not active: ros2 lifecycle set /tracker configure"):
        robot.client.init_target(BOX)
    for cycle in range(10):
        assert change(robot, Transition.TRANSITION_CONFIGURE)
        assert change(robot, Transition.TRANSITION_ACTIVATE)
        robot.show(raw_image(scene(cycle)))
        wait_for("acceptance", lambda: accepted(robot))
        count = len(detections)
        robot.show(raw_image(scene(cycle + 1)))
        wait_for("detection", lambda count=count: len(detections) > count)
        assert change(robot, Transition.TRANSITION_DEACTIVATE)
        wait_for("end of the subscription", lambda: not robot.publisher().get_subscription_count())
        with pytest.raises(TargetRefused, match="lifecycle set /tracker activate"):
            robot.client.init_target(BOX)
        assert change(robot, Transition.TRANSITION_CLEANUP)
    assert not change(robot, Transition.TRANSITION_ACTIVATE)  # not from unconfigured
    assert state(robot) == State.PRIMARY_STATE_UNCONFIGURED
    assert "transition refused" in node.log
    assert change(robot, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert state(robot) == State.PRIMARY_STATE_FINALIZED
    assert node.end() == 0
    assert "Traceback" not in node.log


def accepted(robot: Robot) -> bool:
    try:
        robot.client.init_target(BOX)
    except TargetRefused:
        return False
    return True


def test_failed_configuration_is_logged_and_can_be_tried_again(
    start_node: Start, robot: Robot, config: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "late.safetensors"
    weights.write_bytes(b"not weights")
    node = start_node(autostart=False, weights=weights)
    assert not change(robot, Transition.TRANSITION_CONFIGURE)
    node.wait_for_log("cannot configure")
    assert state(robot) == State.PRIMARY_STATE_UNCONFIGURED
    weights.write_bytes((config.parent / "weights.safetensors").read_bytes())
    assert change(robot, Transition.TRANSITION_CONFIGURE)
    assert state(robot) == State.PRIMARY_STATE_INACTIVE


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"config": "no_such_network"}, "no_such_network"),
        ({"weights": "/nowhere/weights.safetensors"}, "/nowhere/weights.safetensors"),
        ({"device": "cuda:77"}, "cuda"),
        ({"ring_length": 0}, "ring_length"),
        ({"image_transport": "carrier_pigeon"}, "raw, compressed"),
    ],
)
def test_wrong_start_ends_with_the_reason(
    start_node: Start, parameters: dict[str, object], said: str
) -> None:
    node = start_node(**parameters)
    assert node.process.wait(PATIENCE) == 1
    assert said in node.log
    assert "Traceback" not in node.log


def test_parameters_change_at_run_time_or_say_why_not(node: NodeProcess, robot: Robot) -> None:
    assert robot.get_parameter("window_influence") == 0.9  # from the network's config
    assert robot.set_parameters(window_influence=0.3, penalty_k=0.1, lr=0.5) == ""
    assert robot.get_parameter("window_influence") == 0.3
    assert "window_influence" in robot.set_parameters(window_influence=1.5)
    assert "one of upsampled, paper" in robot.set_parameters(decoder="guess")
    assert "lost_below" in robot.set_parameters(lost_below=0.9, uncertain_below=0.5)
    assert "read-only" in robot.set_parameters(config="resnet50").lower().replace("_", "-")
    assert robot.get_parameter("window_influence") == 0.3

    detections = robot.collect(Detection2D, "/tracker/detection")
    robot.start_camera()
    wait_for("images", lambda: len(robot.sent) > 3)
    robot.client.init_target(BOX)
    assert robot.set_parameters(class_id="boat", decoder="paper", status_rate=10.0) == ""
    wait_for("class", lambda: detections[-1:] and detections[-1].results[0].hypothesis.class_id == "boat")
    # A threshold that every score misses: the target is lost, and nothing is claimed of it.
    assert robot.set_parameters(uncertain_below=1.0, lost_below=1.0, lost_after=1) == ""
    wait_for("empty results", lambda: not detections[-1].results)
    assert robot.set_parameters(ring_length=2) == ""
    wait_for("a short ring", lambda: refused_as_too_old(robot))


def refused_as_too_old(robot: Robot) -> bool:
    try:
        robot.client.init_target(BOX, robot.sent[-5])
    except TargetRefused as error:
        return "ring_length" in str(error)
    return False


def test_every_parameter_is_described(node: NodeProcess, robot: Robot) -> None:
    from dataclasses import fields

    from siamcar_ros.ros.parameters import NodeSettings

    names = [each.name for each in fields(NodeSettings)]
    request = DescribeParameters.Request(names=names)
    answer = robot.call(DescribeParameters, "/tracker/describe_parameters", request)
    for described in answer.descriptors:
        assert described.description
        if described.name in ("lr", "window_influence"):
            assert described.floating_point_range[0].to_value == 1.0
        if described.name == "config":
            assert described.read_only


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(start_node: Start, robot: Robot, number: signal.Signals) -> None:
    node = start_node()
    robot.client.wait_until_active()
    robot.start_camera()
    wait_for("images", lambda: len(robot.sent) > 3)
    robot.client.init_target(BOX)
    assert node.end(number) == 0
    assert node.log.rstrip().endswith("ended cleanly")
    assert "Traceback" not in node.log
