"""Targets that are tracked as an action, started at a point, or started by a detector."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from node_harness import (
    BOX,
    PATIENCE,
    Robot,
    camera_info,
    raw_image,
    wait_for,
    wait_for_more,
)
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from siamcar_ros.action import TrackTarget
from siamcar_ros.data.film import open_source
from siamcar_ros.evaluation.metrics import iou
from siamcar_ros.ros.client import Following, TargetRefused
from siamcar_ros.ros.messages import bbox_to_box, box_to_bbox
from siamcar_ros.srv import InitTarget

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def end_of(following: Following) -> TrackTarget.Result:
    for _ in following:
        pass
    assert following.result is not None
    return following.result


@pytest.mark.parametrize("events_executor", [False, True])
def test_a_goal_reports_its_target_and_ends_with_it(
    start: Callable[..., Robot], events_executor: bool
) -> None:
    robot = start(events_executor=events_executor)
    robot.client.wait_until_active()
    robot.start_camera()
    wait_for("an image", lambda: robot.sent)
    robot.track("first")

    following = robot.client.follow(BOX, target="car", class_id="vehicle")
    tracks = list(itertools.islice(following, 3))
    assert [(each.id, each.class_id) for each in tracks] == [("car", "vehicle")] * 3
    assert all(each.bbox.size_x > 0 and 0 <= each.score <= 1 for each in tracks)

    def has_bearing() -> bool:
        robot.show(camera_info(), "camera_info")
        return bool(next(iter(following)).bearing)

    wait_for("a bearing, with nobody subscribed to the tracks", has_bearing, timeout=60.0)
    following.cancel()
    assert end_of(following).message == "canceled"
    with pytest.raises(TargetRefused, match="no target is called 'car'"):
        robot.client.remove_target("car")

    following = robot.client.follow(BOX, target="car")
    next(iter(following))
    other = robot.client.follow(BOX, target="bus")
    next(iter(other))
    result = end_of(following)
    assert (result.outcome, result.id) == (TrackTarget.Result.REPLACED, "car")
    assert result.message == "replaced by 'bus'"

    robot.client.stop_tracking()
    result = end_of(other)
    assert (result.outcome, result.message) == (TrackTarget.Result.STOPPED, "stopped")

    assert robot.set_parameters(uncertain_below=1.0, lost_below=1.0, lost_after=1) == ""
    result = end_of(robot.client.follow(BOX, lost_timeout=0.2))
    assert (result.outcome, result.message) == (TrackTarget.Result.LOST, "lost for 0.2 s")


def test_a_goal_that_is_refused_changes_nothing(robot: Robot) -> None:
    robot.start_camera()
    robot.track("car")
    for box, limit, reason in (
        ((5000.0, 0.0, 10.0, 10.0), 0.0, "outside"),
        (BOX, -1.0, "lost_timeout is a number of seconds, at least 0, not -1"),
        ((5000.0, 5.0, 0.0, 0.0), 0.0, "the point .* lies outside the 320x240 image"),
    ):
        with pytest.raises(TargetRefused, match=reason):
            end_of(robot.client.follow(box, lost_timeout=limit))
    assert next(robot.client.detections(timeout=30.0)).id == "car"


def test_a_point_starts_a_target_on_the_box_that_is_answered(start: Callable[..., Robot]) -> None:
    robot = start(config="compact")
    robot.client.wait_until_active(PATIENCE)
    clip = open_source("clip")
    assert clip.boxes is not None
    x, y, w, h = clip.boxes[0].tolist()
    header = robot.show(raw_image(next(clip.images())))
    robot.track("first", (x, y, w, h), header)
    point = box_to_bbox((x + w / 2, y + h / 2, 0.0, 0.0))
    request = InitTarget.Request(header=header, id="car", bbox=point)
    answer = robot.call(InitTarget, "init_target", request)
    assert answer.success, answer.message
    assert "started on the box" in answer.message
    assert iou([bbox_to_box(answer.bbox)], clip.boxes[:1]).item() > 0.5


def detections(header: Header, *found: tuple[str, float, tuple[float, ...]]) -> Detection2DArray:
    message = Detection2DArray(header=header)
    for class_id, score, box in found:
        each = Detection2D(header=header, bbox=box_to_bbox(box))  # type: ignore[arg-type]
        each.results = [ObjectHypothesisWithPose()]
        each.results[0].hypothesis.class_id, each.results[0].hypothesis.score = class_id, score
        message.detections.append(each)
    return message


def test_a_detector_starts_targets(start: Callable[..., Robot]) -> None:
    robot = start(use_detections=True, max_targets=2, start_class="car", start_score=0.4)
    robot.client.wait_until_active()
    robot.start_camera()
    heard = robot.collect(Detection2DArray, "detections")
    detector = robot.publisher("detections", Detection2DArray)
    wait_for("subscriber", detector.get_subscription_count)
    robot.track("first", (10.0, 10.0, 30.0, 30.0))
    wait_for_more(heard, 2)

    def show(*found: tuple[str, float, tuple[float, ...]]) -> None:
        detector.publish(detections(heard[-1].header, *found))

    show(("dog", 0.9, (200.0, 20.0, 30.0, 30.0)), ("car", 0.3, (200.0, 150.0, 30.0, 30.0)))
    on_tracked = ("car", 0.9, bbox_to_box(heard[-1].detections[0].bbox))
    show(on_tracked)
    show(on_tracked, ("car", 0.6, (90.0, 90.0, 50.0, 40.0)), ("car", 0.8, BOX))
    robot.process.wait_for_log("target 'target-1' started")
    wait_for("both targets", lambda: len(heard[-1].detections) == 2)
    assert robot.process.log.count("started") == 2

    # A point takes the detection that holds it, with its class, on the detector's own image.
    robot.client.stop_tracking()
    assert robot.set_parameters(start_class="") == ""
    header = heard[-1].header
    inner, outer = (100.0, 100.0, 40.0, 30.0), (40.0, 40.0, 200.0, 150.0)
    detector.publish(detections(header, ("dog", 0.9, outer), ("cat", 0.2, inner)))

    def started() -> bool:
        request = InitTarget.Request(bbox=box_to_bbox((118.0, 112.0, 0.0, 0.0)))
        answer = robot.call(InitTarget, "init_target", request)
        return bool(answer.success and bbox_to_box(answer.bbox) == inner)

    wait_for("the detection", started)

    def classes() -> list[str]:
        return [r.hypothesis.class_id for each in heard[-1].detections for r in each.results]

    wait_for("its class", lambda: classes() == ["cat"])
    detector.publish(detections(Header(frame_id="other"), ("car", 0.9, BOX)))
    robot.process.wait_for_log("detections of frame_id 'other' are ignored")
