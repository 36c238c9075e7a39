"""What is published for a frame, and what is not, without a running node."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from node_harness import BOX, Log, camera_info, raw_image, scene
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray
from visualization_msgs.msg import MarkerArray

from siamcar_ros.ros.diagnostics import Counters
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.outputs import Outputs
from siamcar_ros.ros.parameters import NodeSettings
from siamcar_ros.ros.targets import Target, Tracked
from siamcar_ros.tracking import TrackResult, TrackState
from siamcar_ros.tracking.overlay import draw_overlay
from siamcar_ros.tracking.stored_image import StoredImage
from siamcar_ros.tracking.velocity import Motion

NETWORK = SimpleNamespace(name="compact", backend="torch", device="cpu")


class Publishers:
    """What Outputs publishes, by topic, and to which topics someone listens; None: to all."""

    def __init__(self, **settings: Any) -> None:
        self.settings = NodeSettings(**settings)
        self.counters = Counters(received=3)
        self.camera_info: CameraInfo | None = None
        self.heard: set[str] | None = None
        self.sent: dict[str, list[Any]] = {}
        self.log = Log()

    def create_lifecycle_publisher(self, kind: type, topic: str, *_: object, **__: object) -> Any:
        sent = self.sent.setdefault(topic, [])

        def count() -> int:
            return int(self.heard is None or topic in self.heard)

        return SimpleNamespace(publish=sent.append, get_subscription_count=count)

    def get_logger(self) -> Log:
        return self.log


def tracked_scene(**results: TrackResult) -> Tracked:
    message = raw_image(scene(0))
    message.header.frame_id = "camera"
    targets = {name: Target() for name in results}
    image = StoredImage(scene(0), "bgr")
    return Tracked(Frame(message), image, results, targets=targets)


@pytest.fixture
def outputs() -> tuple[Outputs, Publishers]:
    node = Publishers(debug_rate=0.0)
    return Outputs(node, NETWORK), node  # type: ignore[arg-type]


def test_annotations_are_published_while_someone_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """With classes that take any fields, as foxglove_msgs' own are not installed everywhere."""
    package = ModuleType("foxglove_msgs.msg")
    for name in ("Color", "Point2", "PointsAnnotation", "TextAnnotation", "ImageAnnotations"):
        setattr(package, name, SimpleNamespace)
    monkeypatch.setitem(sys.modules, "foxglove_msgs", SimpleNamespace(msg=package))
    monkeypatch.setitem(sys.modules, "foxglove_msgs.msg", package)
    monkeypatch.setattr("siamcar_ros.ros.parameters.find_spec", lambda name: name)
    node = Publishers(annotations=True)
    out = Outputs(node, NETWORK)  # type: ignore[arg-type]
    shown = tracked_scene(a=TrackResult(BOX, 0.9, TrackState.TRACKING))
    out.publish(shown)
    node.heard = set()
    out.publish(shown)
    (message,) = node.sent["~/annotations"]
    assert [each.text for each in message.texts] == ["a 0.90"]
    (outline,) = message.points
    assert outline.timestamp == shown.frame.header.stamp
    assert [(each.x, each.y) for each in outline.points] == [
        (140, 100),
        (180, 100),
        (180, 130),
        (140, 130),
    ]


def test_the_end_of_the_targets_is_published_once(outputs: tuple[Outputs, Publishers]) -> None:
    publish, node = outputs[0].publish, outputs[1]
    seen = TrackResult(BOX, 0.9, TrackState.TRACKING)
    for each in ({}, {"a": seen, "b": seen}, {}, {}, {"a": seen}):
        publish(tracked_scene(**each))
    arrays: list[Detection2DArray] = node.sent["~/detections"]
    assert [len(each.detections) for each in arrays] == [2, 0, 1]
    assert all(each.header.frame_id == "camera" for each in arrays)


def test_no_message_is_built_that_nobody_needs(
    outputs: tuple[Outputs, Publishers], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, node = outputs
    node.camera_info = camera_info()
    seen = tracked_scene(a=TrackResult(BOX, 0.9, TrackState.TRACKING))
    node.heard = set()
    with monkeypatch.context() as patch:
        for name in ("messages", "CameraModel", "draw_overlay", "TrackArray"):
            patch.setattr(f"siamcar_ros.ros.outputs.{name}", None)
        for each in (seen, tracked_scene()):
            assert out.publish(each) is None
    assert not any(node.sent.values())
    # The velocity follows from all images, those of which nobody has heard included.
    for second in (1, 2):
        seen.frame.message.header.stamp.sec = second
        tracks = out.publish(seen, with_goals=True)
    assert tracks is not None
    assert tracks.tracks[0].velocity.x == 0.0
    assert tracks.tracks[0].bearing
    node.heard = {"~/bearing"}
    out.publish(seen)
    assert node.sent["~/bearing"][-1].vector == tracks.tracks[0].bearing[0].direction


def test_idle_tracks_tell_the_size_of_each_image(outputs: tuple[Outputs, Publishers]) -> None:
    out, node = outputs
    node.heard = {"~/tracks"}  # nobody needs the pixels: compressed images are not decoded
    for height, width in ((48, 64), (96, 128)):
        message = CompressedImage(format="jpeg")
        stream = cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1]
        message.data.frombytes(stream.tobytes())
        out.publish(Tracked(Frame(message)))
    sizes = [(each.image_width, each.image_height) for each in node.sent["~/tracks"]]
    assert sizes == [(64, 48), (128, 96)]


def test_markers_go_by_themselves_and_need_the_cameras_own_info(
    outputs: tuple[Outputs, Publishers],
) -> None:
    out, node = outputs
    markers: list[MarkerArray] = node.sent["~/markers"]
    overlays: list[Image] = node.sent["~/debug_image"]
    seen = tracked_scene(a=TrackResult(BOX, 0.9, TrackState.TRACKING))
    node.camera_info = camera_info()
    out.publish(seen)
    assert markers[0].markers[1].lifetime.sec == 1
    node.camera_info.header.frame_id = "other"
    out.publish(seen)
    node.camera_info = camera_info("plumb_bob", [0.1] * 3)
    out.publish(seen)
    assert len(markers) == 1
    assert len(overlays) == 3
    tracks = node.sent["~/tracks"]
    assert [len(each.tracks[0].bearing) for each in tracks] == [1, 0, 0]
    assert [each.header for each in node.sent["~/bearing"]] == [seen.frame.header]
    assert "has frame_id 'other', the images have 'camera'" in node.log.lines[0]
    assert "3 coefficients" in node.log.lines[1]


def test_every_status_carries_the_counters(outputs: tuple[Outputs, Publishers]) -> None:
    out, node = outputs
    out.publish(tracked_scene(a=TrackResult(BOX, 0.9, TrackState.TRACKING)))
    out.publish_status(camera_info().header)
    out.publish(tracked_scene(**{each: TrackResult(BOX, 0.9, TrackState.LOST) for each in "ab"}))
    assert [each.targets for each in node.sent["~/status"]] == [1, 0, 2]
    for status in node.sent["~/status"]:
        assert (status.frames_received, status.network, status.device) == (3, "compact", "cpu")
    node.counters = Counters(received=9, refused=1, out_of_order=2, dropped=3, tracked=2, failed=4)
    out.publish_status(camera_info().header)
    status = node.sent["~/status"][-1]
    assert (status.frames_dropped, status.frames_failed, status.frames_tracked) == (5, 5, 2)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_overlay_leaves_the_image_alone(scale: float) -> None:
    image = scene(0)[:, :, ::-1]
    before = image.copy()
    results = {
        "inside": TrackResult(BOX, 0.9, TrackState.TRACKING),
        "outside": TrackResult((-50.0, 230.0, 900.0, 900.0), 0.1, TrackState.LOST),
    }
    drawn = draw_overlay(image, results, scale=scale, caption="12.3 ms")
    assert drawn.shape == (round(240 * scale), round(320 * scale), 3)
    assert drawn.flags.c_contiguous
    np.testing.assert_array_equal(image, before)


def test_a_target_that_is_started_anew_has_no_past(outputs: tuple[Outputs, Publishers]) -> None:
    out, node = outputs
    seen = {"a": TrackResult(BOX, 0.9, TrackState.TRACKING)}
    first, second = tracked_scene(**seen), tracked_scene(**seen)
    second.frame.message.header.stamp.sec = 1
    third = replace(second, targets={"a": Target("a", "car")})
    for each in (first, replace(second, targets=first.targets), third):
        out.publish(each)
    tracks = [each.tracks[0] for each in node.sent["~/tracks"]]
    assert [each.class_id for each in tracks] == ["target", "target", "car"]
    assert [math.isnan(each.velocity.x) for each in tracks] == [True, False, True]
    assert "no camera_info has arrived" in node.log.lines[0]
    assert len(node.log.lines) == 1
    assert not node.sent["~/bearing"]


def test_velocity_is_the_slope_of_the_places_and_lost_counts_from_the_last_seen() -> None:
    motion = Motion(started=0)
    tenth = 10**8
    for index in range(8):  # turns around after 0.4 s, which the window has forgotten at the end
        x = 10.0 * index if index < 4 else 80.0 - 10.0 * index
        motion.add(index * tenth, TrackResult((x, 5.0 * index, 8, 6), 0.9, TrackState.TRACKING))
        if index == 0:
            assert math.isnan(motion.velocity[0])
        if index == 3:
            assert motion.velocity == pytest.approx((100.0, 50.0))
    assert motion.velocity == pytest.approx((-100.0, 50.0))
    motion.add(9 * tenth, TrackResult((900, 900, 8, 6), 0.0, TrackState.LOST))
    assert motion.lost == pytest.approx(0.2)
    assert motion.velocity == pytest.approx((-100.0, 50.0))
    motion.add(10 * tenth, TrackResult((0, 0, 8, 6), 0.9, TrackState.UNCERTAIN))
    assert motion.lost == 0.0
