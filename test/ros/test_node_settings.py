"""What a robot's integrator sets: quality of service, namespaces, a lifecycle manager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from node_harness import BOX, PATIENCE, Robot, wait_for
from rclpy.qos import ReliabilityPolicy
from std_msgs.msg import String

from siamcar_ros.ros.client import TargetRefused

pytestmark = [pytest.mark.ros, pytest.mark.slow]

# The topics that it publishes and subscribes to, in its namespace unless they begin with a slash.
PUBLISHED = (
    *("tracker/detection", "tracker/detections", "tracker/detections_3d", "tracker/tracks"),
    *("tracker/bearing", "tracker/status", "tracker/markers", "tracker/debug_image"),
    *("/diagnostics", "/tf"),
)
SUBSCRIBED = ("image", "camera_info", "detections", "depth", "rates", "/tf_static")
# Topics of rcl itself and of the action, which take no overrides.
OTHERS = ("/rosout", "/parameter_events", "/transition_event", "/_action/status", "/feedback")


def test_every_topic_takes_overrides_of_its_quality_of_service(start: Any) -> None:
    space = start.namespace
    published, subscribed = (
        {each if each.startswith("/") else f"{space}/{each}" for each in topics}
        for topics in (PUBLISHED, SUBSCRIBED)
    )
    names = [f"{each}.publisher" for each in published]
    names += [f"{each}.subscription" for each in subscribed]
    given = [f"qos_overrides.{name}.depth:=3" for name in names]
    given.append(f"qos_overrides.{space}/tracker/detection.publisher.reliability:=best_effort")
    given.append(f"qos_overrides.{space}/image.subscription.reliability:=best_effort")
    topics = {"use_detections": True, "depth": "depth", "target_tf": True, "camera_rates": "rates"}
    robot = start(*(part for each in given for part in ("-p", each)), **topics)
    robot.client.wait_until_active()
    for name in names:
        assert robot.get_parameter(f"qos_overrides.{name}.depth") == 3, name
    node = robot.node
    for listed, known in (
        (node.get_publisher_names_and_types_by_node("tracker", space), published),
        (node.get_subscriber_names_and_types_by_node("tracker", space), subscribed),
    ):
        assert {name for name, _ in listed if not name.endswith(OTHERS)} == known
    (detection,) = node.get_publishers_info_by_topic(f"{robot.name}/detection")
    assert detection.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    robot.process.wait_for_log(f"subscribed to {space}/image (best_effort)")
    for transition in ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
        assert robot.change_state(getattr(Transition, f"TRANSITION_{transition}"))
    camera = robot.publisher("image", reliability=ReliabilityPolicy.BEST_EFFORT)
    wait_for("a subscriber that takes best effort", camera.get_subscription_count)


@pytest.mark.parametrize(
    ("transition", "topic", "override", "reason"),
    [
        ("configure", "tracker/tracks.publisher", "depth:=-1", "depth is at least 1, not -1"),
        (
            "activate",
            "rates.subscription",
            "reliability:=sometimes",
            "Unexpected QoS override for policy `reliability`: `sometimes`",
        ),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(
    start: Any, transition: str, topic: str, override: str, reason: str
) -> None:
    name = f"qos_overrides.{start.namespace}/{topic}"
    robot = start("-p", f"{name}.{override}", autostart=False, camera_rates="rates")
    if transition == "activate":
        assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert not robot.change_state(getattr(Transition, f"TRANSITION_{transition.upper()}"))
    assert reason in robot.process.log
    assert "Traceback" not in robot.process.log
    with pytest.raises(TargetRefused, match=rf"lifecycle set /\S+ {transition}"):  # all is undone
        robot.client.init_target(BOX)


def test_a_wrong_override_of_a_topic_that_is_always_there_ends_the_node(start: Any) -> None:
    process = start("-p", "qos_overrides./diagnostics.publisher.depth:=0").process
    assert process.process.wait(PATIENCE) == 1
    assert "cannot start: a parameter qos_overrides is not allowed" in process.log
    assert "Traceback" not in process.log


BONDPY = """
from std_msgs.msg import String

from siamcar_ros.ros.client import TargetRefused

class Bond:
    def __init__(self, node, topic, id):
        self.id, self.publisher = id, node.create_publisher(String, topic, 10)
        self.timer = node.create_timer(0.1, lambda: self.publisher.publish(String(data=id)))
        self.timer.cancel()

    def start(self):
        self.timer.reset()

    def shutdown(self):
        self.timer.cancel()
        self.publisher.publish(String(data=f"{self.id} ended"))
"""


def test_an_active_node_sends_heartbeats_where_bondpy_is_installed(
    start: Callable[..., Robot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bondpy").mkdir()
    (tmp_path / "bondpy" / "bondpy.py").write_text(BONDPY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    robot = start(autostart=False)
    heard: list[String] = []
    robot.node.create_subscription(String, f"{robot.process.namespace}/bond", heard.append, 10)
    assert robot.change_state(Transition.TRANSITION_CONFIGURE)
    assert not heard
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    wait_for("heartbeats", lambda: len(heard) > 2)
    assert {each.data for each in heard} == {"tracker"}
    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
    wait_for("its end", lambda: heard[-1].data == "tracker ended")


def test_two_cameras_are_two_namespaces(start: Callable[..., Robot]) -> None:
    robots = [start() for _ in range(2)]
    for robot in robots:
        robot.client.wait_until_active()
        robot.start_camera()
    robots[0].track("left")
    robots[1].track("right", BOX)
    for robot, target in zip(robots, ("left", "right"), strict=True):
        assert next(robot.client.detections(timeout=60.0)).id == target
