"""The node at work: start, track, stop, start again, refuse, go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Vector3Stamped
from lifecycle_msgs.msg import Transition
from node_harness import (
    BOX,
    HEIGHT,
    PATIENCE,
    WIDTH,
    NodeProcess,
    Robot,
    camera_info,
    raw_image,
    same,
    scene,
    wait_for,
    wait_for_header,
    wait_for_more,
)
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray
from visualization_msgs.msg import Marker, MarkerArray

from siamcar_ros.data.film import open_source
from siamcar_ros.evaluation.metrics import iou
from siamcar_ros.msg import TrackArray, TrackStatus
from siamcar_ros.resources import resource_path
from siamcar_ros.ros.client import TargetRefused
from siamcar_ros.ros.messages import bbox_to_box

pytestmark = [pytest.mark.ros, pytest.mark.slow]
Start = Callable[..., Robot]


def test_start_track_stop_and_start_again(robot: Robot) -> None:
    detections = robot.collect(Detection2D, "detection")
    arrays = robot.collect(Detection2DArray, "detections")
    statuses = robot.collect(TrackStatus, "status")
    robot.start_camera()
    wait_for("idle status", lambda: [each for each in statuses if each.header.frame_id])
    assert statuses[-1].state == TrackStatus.IDLE
    assert not detections

    assert robot.track("car") == "car"
    wait_for("detections", lambda: len(detections) > 10)
    assert {each.id for each in detections} == {"car"}
    assert same([each.header for each in detections], robot.sent)
    assert all(each.results[0].hypothesis.class_id == "target" for each in detections)
    assert all(0.0 <= each.results[0].hypothesis.score <= 1.0 for each in detections)
    assert all(each.bbox.size_x > 0 and each.bbox.size_y > 0 for each in detections)
    # The first may be the empty one that ends the targets of before the node's activation.
    wait_for("arrays", lambda: len(arrays) > 10)
    assert all(each.detections[0].header == each.header for each in arrays[1:])
    tracking = [each for each in statuses if each.state == TrackStatus.TRACKING][-1]
    assert tracking.network == "compact"
    assert tracking.backend == "torch"
    assert tracking.device == "cpu"
    assert tracking.frames_received >= tracking.frames_tracked > 0
    assert tracking.network_latency > 0
    parts = ("wait", "convert", "crop", "network", "decode")
    stages = sum(getattr(tracking, f"{part}_latency") for part in parts)
    assert stages <= tracking.total_latency

    assert "car" in robot.client.stop_tracking()
    wait_for("idle status", lambda: statuses[-1].state == TrackStatus.IDLE)
    count = len(detections)
    received = statuses[-1].frames_received
    wait_for("more images", lambda: statuses[-1].frames_received > received + 5)
    assert len(detections) == count
    assert robot.client.stop_tracking() == "nothing was tracked"

    chosen = robot.track()
    wait_for("detections again", lambda: len(detections) > count + 5)
    assert {each.id for each in detections[count:]} == {chosen}
    # A second target takes the place of the only one that max_targets allows.
    robot.track("other")
    wait_for("the other target", lambda: detections[-1].id == "other")


BAD_BOXES = {
    "not finite": (math.nan, 10.0, 20.0, 20.0),
    "infinite": (10.0, 10.0, math.inf, 20.0),
    "no width": (10.0, 10.0, 0.0, 20.0),
    "negative height": (10.0, 10.0, 20.0, -5.0),
    "outside": (WIDTH + 1.0, 10.0, 20.0, 20.0),
    "above": (10.0, -30.0, 20.0, 20.0),
}


def test_bad_requests_are_refused_with_the_reason_while_tracking_goes_on(robot: Robot) -> None:
    with pytest.raises(TargetRefused, match=r"no image has arrived on /\w+/image \(0 publishers\)"):
        robot.client.init_target(BOX)
    robot.process.wait_for_log("no image on")
    detections = robot.collect(Detection2D, "detection")
    robot.start_camera()
    robot.track("good")
    for case, box in BAD_BOXES.items():
        count = len(detections)
        with pytest.raises(TargetRefused, match="box x="):
            robot.client.init_target(box, target=case)
        wait_for_more(detections, count + 1)
        assert detections[-1].id == "good"
    with pytest.raises(TargetRefused, match=r"frame_id 'other_camera'.*'camera'"):
        robot.client.init_target(BOX, Header(frame_id="other_camera"))
    old = Header()
    old.stamp.sec = 5
    with pytest.raises(
        TargetRefused, match=r"no image with the stamp 5\.000000000; kept are \d+ from"
    ):
        robot.client.init_target(BOX, old)
    count = len(detections)
    wait_for("further detections", lambda: len(detections) > count + 1)
    assert detections[-1].id == "good"


def test_box_on_a_past_image_is_run_through_to_the_newest(robot: Robot) -> None:
    detections = robot.collect(Detection2D, "detection")
    statuses = robot.collect(TrackStatus, "status")
    robot.start_camera()
    wait_for("idle status", lambda: [each for each in statuses if each.frames_received])
    wait_for("a second of images", lambda: len(robot.sent) > 30)
    before, past = statuses[-1].frames_tracked, robot.sent[-20]
    robot.client.init_target(BOX, past, target="late")
    wait_for("detections", lambda: len(detections) > 5)
    robot.process.wait_for_log("'late' has caught up with the newest image")
    # What it went through on the way is tracked, and not published.
    sent = [(each.stamp.sec, each.stamp.nanosec) for each in robot.sent]
    first = detections[0].header.stamp
    skipped = sent.index((first.sec, first.nanosec)) - sent.index(
        (past.stamp.sec, past.stamp.nanosec)
    )
    assert skipped > 1
    late = [each for each in statuses if each.state != TrackStatus.IDLE]
    assert late[0].frames_tracked > before + 1
    robot.stop_camera()
    newest = robot.sent[-1]
    wait_for("the last image", lambda: detections[-1].header == newest)


def test_a_start_on_a_silent_camera_is_refused_with_the_age_of_its_image(robot: Robot) -> None:
    robot.show(raw_image(scene(0)))
    assert robot.track("first") == "first"
    assert robot.set_parameters(image_timeout=0.3) == ""
    time.sleep(0.5)
    with pytest.raises(TargetRefused, match=r"newest image on \S+ is \d+\.\d s old \(1 publ"):
        robot.client.init_target(BOX, target="second")
    assert robot.set_parameters(image_timeout=30.0) == ""
    assert robot.client.stop_tracking() == "stopped 'first'"


@pytest.mark.parametrize("name", ["n" * 1_000_000, "a\x1b[31mred", "two\nlines"])
def test_a_name_that_is_no_name_is_refused(robot: Robot, name: str) -> None:
    robot.show(raw_image(scene(0)))
    robot.track("good")
    with pytest.raises(TargetRefused, match=r"id .*(256|cannot be printed)") as refusal:
        robot.client.init_target(BOX, target=name)
    assert len(str(refusal.value)) < 400
    assert robot.client.stop_tracking() == "stopped 'good'"


def test_a_second_node_of_the_same_name_is_reported_once(
    robot: Robot, config: Path, tmp_path: Path
) -> None:
    heard: list[DiagnosticArray] = []
    robot.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 50)
    values: dict[str, object] = {"config": config, "autostart": False}
    second = NodeProcess(tmp_path / "second.log", robot.process.namespace, values)
    robot.process.wait_for_log(f"2 nodes are called {robot.name}: all of them act on every call")

    def warned() -> bool:
        return any("2 nodes have this name" in each.status[0].message for each in heard)

    wait_for("the warning in the diagnostics", warned)
    time.sleep(2.5)
    assert robot.process.log.count("2 nodes are called") == 1
    assert second.end() == 0
    wait_for("its end", lambda: robot.client.twins == 1)


def test_image_that_is_no_longer_kept_is_refused(robot: Robot) -> None:
    detections = robot.collect(Detection2D, "detection")
    robot.start_camera()
    robot.track()
    wait_for_more(detections, 3)
    robot.stop_camera()
    first, newest = detections[0].header, robot.sent[-1]
    wait_for_header(newest, detections)
    assert robot.client.init_target(BOX, first, target="first") == "first"
    assert robot.set_parameters(ring_seconds=0.0) == ""
    with pytest.raises(TargetRefused, match=r"kept are 1 from \d+\.\d+ to \d+\.\d+.*ring_seconds"):
        robot.client.init_target(BOX, first)
    assert robot.client.init_target(BOX, newest, target="newest") == "newest"
    assert robot.set_parameters(ring_seconds=10.0) == ""


def test_stalled_and_returning_camera(robot: Robot) -> None:
    assert robot.set_parameters(image_timeout=0.5, status_rate=5.0) == ""
    detections = robot.collect(Detection2D, "detection")
    heard: list[DiagnosticArray] = []
    robot.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 50)

    def reported(level: bytes, text: str) -> bool:
        mine = [each.status[0] for each in heard if each.status[0].name.startswith(robot.name)]
        return bool(mine) and mine[-1].level == level and text in mine[-1].message

    robot.start_camera()
    robot.track()
    wait_for("detections", lambda: len(detections) > 3)
    robot.stop_camera()
    wait_for("warning", lambda: reported(DiagnosticStatus.WARN, "no image on /"))
    count = len(detections)
    robot.start_camera()
    wait_for("detections of the same track", lambda: len(detections) > count + 3)
    assert len({each.id for each in detections}) == 1
    wait_for("recovery", lambda: reported(DiagnosticStatus.OK, "running"))
    assert robot.set_parameters(image_timeout=30.0, status_rate=1.0) == ""


def test_stamps_that_go_back_start_over(robot: Robot) -> None:
    detections = robot.collect(Detection2D, "detection")
    now = time.time_ns()
    robot.show(raw_image(scene(0)), stamp=now)
    robot.track()
    robot.show(raw_image(scene(1)), stamp=now + 40_000_000)
    wait_for("detection", lambda: len(detections) == 1)
    robot.show(raw_image(scene(2)), stamp=now + 20_000_000)  # late by little: left out
    for index in range(3):  # one alone may be a wrong stamp
        robot.show(raw_image(scene(0)), stamp=now - 60_000_000_000 + index)
        time.sleep(0.05)
    robot.process.wait_for_log("image stamps went back by 60.0")
    then = Header()
    then.stamp.sec, then.stamp.nanosec = divmod(now, 10**9)
    with pytest.raises(TargetRefused, match="no image with the stamp"):
        robot.client.init_target(BOX, then)
    assert robot.client.stop_tracking() == "nothing was tracked"
    assert len(detections) == 1


def test_a_loop_shorter_than_a_time_jump_starts_over(robot: Robot) -> None:
    begin = time.time_ns()

    def played_again() -> bool:
        for index in range(10):
            robot.show(raw_image(scene(index)), stamp=begin + index * 40_000_000)
            time.sleep(0.02)
        return "image stamps went back by 0." in robot.process.log

    wait_for("new start", played_again)
    assert robot.track("second") == "second"


def test_overlay_and_markers_for_who_listens(robot: Robot) -> None:
    detections = robot.collect(Detection2D, "detection")
    info = robot.publisher("camera_info", CameraInfo)
    wait_for("subscriber of camera_info", info.get_subscription_count)
    robot.start_camera()
    robot.track("car")
    wait_for("detections", lambda: len(detections) > 3)

    overlays = robot.collect(Image, "debug_image")
    markers = robot.collect(MarkerArray, "markers")
    wait_for("overlays", lambda: len(overlays) > 2)
    assert (overlays[-1].width, overlays[-1].height) == (WIDTH, HEIGHT)
    assert overlays[-1].encoding == "bgr8"
    assert same([each.header for each in overlays], robot.sent)
    assert not markers  # without camera_info there are no rays
    info.publish(camera_info())
    wait_for("markers", lambda: len(markers) > 2)
    clear, frustum, text = markers[-1].markers
    assert clear.action == Marker.DELETEALL
    assert frustum.type == Marker.LINE_LIST
    assert len(frustum.points) == 16
    assert frustum.header.frame_id == "camera"
    assert (text.type, text.text[:4]) == (Marker.TEXT_VIEW_FACING, "car ")
    assert robot.set_parameters(debug_scale=0.5) == ""
    wait_for("smaller overlays", lambda: overlays[-1].width == WIDTH // 2)
    arrays = robot.collect(Detection2DArray, "detections")
    wait_for("detections", lambda: arrays)
    robot.client.stop_tracking()
    wait_for("markers' end", lambda: len(markers[-1].markers) == 1)
    wait_for("detections' end", lambda: not arrays[-1].detections)
    assert robot.set_parameters(debug_scale=1.0) == ""


def test_a_deactivated_node_forgets_camera_info(robot: Robot) -> None:
    """The next camera may be another one, in the same frame."""
    bearings = robot.collect(Vector3Stamped, "bearing")
    tracks = robot.collect(TrackArray, "tracks")
    info = robot.publisher("camera_info", CameraInfo)
    wait_for("subscriber of camera_info", info.get_subscription_count)
    robot.start_camera()
    robot.track()
    info.publish(camera_info())
    wait_for("bearings", lambda: bearings)
    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    robot.track("second")
    wait_for("the new target", lambda: [each.id for each in tracks[-1].tracks] == ["second"])
    assert not tracks[-1].tracks[0].bearing


def test_several_targets_and_a_mismatch_that_is_said(start: Start) -> None:
    robot = start(max_targets=3, qos_reliability="reliable")
    robot.client.wait_until_active()
    robot.publisher(reliability=ReliabilityPolicy.BEST_EFFORT)
    robot.process.wait_for_log("set the parameter qos_reliability to auto or best_effort")

    arrays = robot.collect(Detection2DArray, "detections")
    robot.start_camera()
    robot.track("a")
    wait_for("images", lambda: len(arrays) > 10)
    robot.client.init_target((20.0, 20.0, 40.0, 40.0), target="b")
    # On an image of the past, of which it is known that the node has it.
    robot.client.init_target((200.0, 150.0, 40.0, 40.0), arrays[-8].header, target="c")

    def all_there() -> bool:
        return bool(arrays) and [each.id for each in arrays[-1].detections] == ["a", "b", "c"]

    wait_for("all three in one message", all_there)
    with pytest.raises(TargetRefused, match=r"3 targets are tracked already \('a', 'b', 'c'\)"):
        robot.client.init_target(BOX, target="d")
    with pytest.raises(TargetRefused, match="has no area"):
        robot.client.init_target((1.0, 1.0, 0.0, 5.0), target="b")
    count = len(arrays)
    wait_for("further messages", lambda: len(arrays) > count + 2)
    assert all_there()
    assert robot.client.init_target(BOX, target="b") == "b"
    assert robot.client.stop_tracking() == "stopped 'a', 'c', 'b'"


def test_tracks_of_several_targets_and_the_end_of_one(start: Start) -> None:
    robot = start(max_targets=2)
    robot.client.wait_until_active()
    arrays: list[TrackArray] = robot.collect(TrackArray, "tracks")
    detections = robot.collect(Detection2DArray, "detections")
    statuses = robot.collect(TrackStatus, "status")
    bearings = robot.collect(Vector3Stamped, "bearing")
    info = robot.publisher("camera_info", CameraInfo)
    wait_for("subscriber of camera_info", info.get_subscription_count)
    robot.start_camera()
    wait_for("idle images", lambda: len(arrays) > 3)
    assert not arrays[-1].tracks
    with pytest.raises(TargetRefused, match="'car': nothing is tracked"):
        robot.client.remove_target("car")
    robot.track("square")
    robot.client.init_target((20.0, 20.0, 40.0, 40.0), target="ground", class_id="floor")

    def both() -> list[TrackArray]:
        return [each for each in arrays if len(each.tracks) == 2]

    wait_for("both targets", lambda: len(both()) > 5)
    robot.process.wait_for_log("no bearing, no position and no markers: no camera_info has arrived")
    assert robot.process.log.count("no bearing") == 1
    assert not bearings
    square, ground = both()[-1].tracks
    assert (square.id, ground.id) == ("square", "ground")
    assert (square.class_id, ground.class_id) == ("target", "floor")
    assert (both()[-1].image_width, both()[-1].image_height) == (WIDTH, HEIGHT)
    assert square.state in (TrackStatus.TRACKING, TrackStatus.UNCERTAIN, TrackStatus.LOST)
    assert math.isfinite(square.velocity.x)
    assert not square.bearing
    assert same([each.header for each in arrays], robot.sent)
    stamps = [(each.header.stamp.sec, each.header.stamp.nanosec) for each in arrays]
    assert len(stamps) == len(set(stamps)), "one message an image"
    busy = [each for each in statuses if each.state != TrackStatus.IDLE]
    stamps = [(each.header.stamp.sec, each.header.stamp.nanosec) for each in busy]
    assert len(stamps) == len(set(stamps)), "one status an image"
    assert busy[-1].targets == 2

    info.publish(camera_info())
    wait_for("bearings", lambda: len(bearings) > 2)
    last = bearings[-2]
    wait_for_header(last.header, arrays)
    seen = next(each for each in arrays if each.header == last.header).tracks[0]
    assert seen.bearing[0].direction == last.vector
    center = seen.bbox.center.position
    assert seen.bearing[0].azimuth == pytest.approx(math.atan((center.x - 160.5) / 300))

    with pytest.raises(TargetRefused, match="'car': tracked are 'square', 'ground'"):
        robot.client.remove_target("car")
    assert robot.client.remove_target("square") == "stopped 'square'"
    wait_for("the one that is left", lambda: [each.id for each in arrays[-1].tracks] == ["ground"])
    one = next(robot.client.tracks(timeout=PATIENCE))
    assert [each.id for each in one.tracks] == ["ground"]
    wait_for("its class", lambda: detections[-1].detections[0].results)
    assert detections[-1].detections[0].results[0].hypothesis.class_id == "floor"
    assert robot.client.remove_target("ground") == "stopped 'ground'"
    wait_for("nothing", lambda: not arrays[-1].tracks)
    with pytest.raises(TargetRefused, match=r"class_id .* cannot be printed"):
        robot.client.init_target(BOX, class_id="two\nlines")


def test_events_executor(start: Start) -> None:
    robot = start(events_executor=True)
    robot.client.wait_until_active()
    detections = robot.collect(Detection2D, "detection")
    robot.start_camera()
    robot.track()
    with pytest.raises(TargetRefused):
        robot.client.init_target((0.0, 0.0, 0.0, 0.0))
    wait_for("detections", lambda: len(detections) > 5)
    assert robot.process.end() == 0


def test_shipped_network_follows_the_rendered_car(start: Start) -> None:
    try:
        resource_path("models/siamcar_compact.safetensors")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    clip = open_source("clip")
    assert clip.boxes is not None
    robot = start(config="compact")
    robot.client.wait_until_active(PATIENCE)
    detections = robot.collect(Detection2D, "detection")
    images, boxes = clip.images(), clip.boxes.tolist()
    header = robot.show(raw_image(next(images)))
    robot.track("car", tuple(boxes[0]), header)
    overlaps = []
    for image, box in zip(images, boxes[1:40], strict=False):
        wait_for_header(robot.show(raw_image(image)), detections)
        overlaps.append(iou([bbox_to_box(detections[-1].bbox)], [box]).item())
    assert len(detections) == 39
    assert np.mean(overlaps) > 0.5
