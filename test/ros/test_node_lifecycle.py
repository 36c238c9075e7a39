"""The node's states, parameters and end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from unittest.mock import Mock

import pytest
import rclpy
from lifecycle_msgs.msg import State, Transition
from node_harness import BOX, Robot, raw_image, scene, wait_for, wait_for_more
from rcl_interfaces.srv import DescribeParameters
from rclpy.context import Context
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2D

from siamcar_ros.ros.client import TargetRefused
from siamcar_ros.ros.node import TrackerNode
from siamcar_ros.ros.parameters import NodeSettings
from siamcar_ros.ros.tracker_node import main

pytestmark = [pytest.mark.ros, pytest.mark.slow]
Start = Callable[..., Robot]


def test_up_and_down_ten_times(start: Start, config: Path, tmp_path: Path) -> None:
    weights = tmp_path / "late.safetensors"
    weights.write_bytes(b"these are no weights")
    robot = start(autostart=False, weights=weights)
    assert robot.state() == State.PRIMARY_STATE_UNCONFIGURED
    with pytest.raises(TargetRefused, match=r"not active: ros2 lifecycle set /\S+ configure"):
        robot.client.init_target(BOX)
    with pytest.raises(TargetRefused, match="the node is not active"):
        robot.client.stop_tracking()
    robot.process.wait_for_log("stop_tracking refused: the node is not active")
    # A configuration that fails says why, and can be tried again.
    assert not robot.change_state(Transition.TRANSITION_CONFIGURE)
    robot.process.wait_for_log("cannot configure")
    assert robot.state() == State.PRIMARY_STATE_UNCONFIGURED
    weights.write_bytes((config.parent / "weights.safetensors").read_bytes())

    detections = robot.collect(Detection2D, "detection")
    for cycle in range(10):
        assert robot.change_state(Transition.TRANSITION_CONFIGURE)
        assert robot.change_state(Transition.TRANSITION_ACTIVATE)
        robot.show(raw_image(scene(cycle)))
        robot.track()
        count = len(detections)
        robot.show(raw_image(scene(cycle + 1)))
        wait_for_more(detections, count)
        assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
        wait_for("end of the subscription", lambda: not robot.publisher().get_subscription_count())
        with pytest.raises(TargetRefused, match=r"lifecycle set /\S+ activate"):
            robot.client.init_target(BOX)
        assert robot.change_state(Transition.TRANSITION_CLEANUP)

    assert not robot.change_state(Transition.TRANSITION_ACTIVATE)  # not from unconfigured
    assert robot.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert "transition refused" in robot.process.log
    assert robot.change_state(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert robot.state() == State.PRIMARY_STATE_FINALIZED
    with pytest.raises(TargetRefused, match="has been shut down"):
        robot.client.init_target(BOX)
    assert robot.process.end() == 0
    assert "Traceback" not in robot.process.log


@pytest.fixture
def kept_signals() -> Iterator[None]:
    """For a test that runs the node's main in its own process."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("config:=no_such_network", "no_such_network"),
        ("weights:=/nowhere/weights.safetensors", "/nowhere/weights.safetensors"),
        ("ring_memory_mb:=0", "ring_memory_mb"),
        ("image_transport:=carrier_pigeon", "raw, compressed, ffmpeg, foxglove"),
    ],
)
def test_wrong_start_ends_with_the_reason(
    config: Path, capfd: pytest.CaptureFixture[str], parameter: str, said: str
) -> None:
    arguments = ["--ros-args", "-r", "__ns:=/wrong", "-p", f"config:={config}", "-p", parameter]
    assert main(arguments) == 1
    log = capfd.readouterr().err
    assert "cannot start" in log
    assert said in log


def test_a_failed_activation_leaves_no_subscription(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no more topics")

    monkeypatch.setattr("siamcar_ros.ros.node.ImageInput", refuse)
    context = Context()
    rclpy.init(context=context)
    try:
        settings = [Parameter("config", value=str(config))]
        node = TrackerNode(context=context, parameter_overrides=settings)
        node._worker = Mock()
        before = len(list(node.subscriptions))
        failure = TransitionCallbackReturn.FAILURE
        assert node.on_activate(LifecycleState("inactive", 2)) == failure
        assert len(list(node.subscriptions)) == before
        node.destroy_node()
    finally:
        context.try_shutdown()


def test_depth_is_subscribed_to_and_kept_only_while_the_node_is_active(config: Path) -> None:
    context = Context()
    rclpy.init(context=context)
    try:
        values = {"config": str(config), "backend": "torch", "depth": "depth"}
        settings = [Parameter(name, value=value) for name, value in values.items()]
        node = TrackerNode(context=context, parameter_overrides=settings)

        def subscribed() -> bool:
            return "/depth" in [each.topic_name for each in node.subscriptions]

        success = TransitionCallbackReturn.SUCCESS
        assert (node.trigger_configure(), subscribed()) == (success, False)
        assert (node.trigger_activate(), subscribed()) == (success, True)
        assert node._outputs is not None
        positions = node._outputs.positions
        positions._on_depth(Image())
        assert positions._depths
        assert (node.trigger_deactivate(), subscribed()) == (success, False)
        assert not positions._depths
        assert node.close()
        node.destroy_node()
    finally:
        context.try_shutdown()


def test_parameters_change_at_run_time_or_say_why_not(robot: Robot) -> None:
    assert robot.get_parameter("window_influence") == 0.9  # from the network's config
    assert robot.set_parameters(window_influence=0.3, penalty_k=0.1, lr=0.5) == ""
    assert robot.get_parameter("window_influence") == 0.3
    assert "window_influence" in robot.set_parameters(window_influence=1.5)
    assert "one of upsampled, paper" in robot.set_parameters(decoder="guess")
    refusal = robot.set_parameters(lost_below=0.9, uncertain_below=0.5)
    assert "set both at once (set_parameters_atomically), or" in refusal
    assert "read-only" in robot.set_parameters(config="resnet50").lower().replace("_", "-")
    assert robot.get_parameter("window_influence") == 0.3

    detections = robot.collect(Detection2D, "detection")
    robot.start_camera()
    robot.track()
    assert robot.set_parameters(class_id="boat", decoder="paper") == ""

    def classes() -> list[str]:
        return [result.hypothesis.class_id for each in detections[-1:] for result in each.results]

    wait_for("class", lambda: classes() == ["boat"])
    # A threshold that every score misses: the target is lost, and nothing is claimed of it.
    assert robot.set_parameters(uncertain_below=1.0, lost_below=1.0, lost_after=1) == ""
    wait_for("empty results", lambda: classes() == [])
    assert robot.set_parameters(uncertain_below=0.0, lost_below=0.0, class_id="target") == ""


def test_every_parameter_is_described(robot: Robot) -> None:
    names = [each.name for each in fields(NodeSettings)]
    answer = robot.call(
        DescribeParameters, "describe_parameters", DescribeParameters.Request(names=names)
    )
    described = {each.name: each for each in answer.descriptors}
    assert set(described) == set(names)
    assert all(each.description for each in answer.descriptors)
    assert described["lr"].floating_point_range[0].to_value == 1.0
    assert described["ring_memory_mb"].integer_range[0].from_value == 1
    assert described["config"].read_only
    assert not described["lr"].read_only
    assert "best_effort" in described["qos_reliability"].additional_constraints


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(start: Start, number: signal.Signals) -> None:
    robot = start()
    robot.client.wait_until_active()
    robot.start_camera()
    robot.track()
    shared = robot.process.shared_memory()
    assert robot.process.end(number) == 0
    assert not [file for file in shared if file.exists()]
    assert robot.process.log.rstrip().endswith("ended cleanly")
    assert "Traceback" not in robot.process.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_the_network_loads_ends_it_cleanly(
    start: Start, number: signal.Signals
) -> None:
    process = start().process
    process.wait_for_log("loading the network")
    assert process.end(number) == 0
    assert process.log.rstrip().endswith("ended cleanly")
    assert "Traceback" not in process.log
