"""Parts of the node, without processes: mailbox, ring, parameters, markers, overlay."""

from __future__ import annotations

import gc
import math
import sys
import threading
import weakref
from concurrent.futures import CancelledError
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from node_harness import BOX, Log, camera_info, frame, raw_image, scene
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import BoundingBox2D, Detection2DArray
from visualization_msgs.msg import MarkerArray

from siamcar_ros.msg import TrackStatus
from siamcar_ros.resources import resource_path
from siamcar_ros.ros.diagnostics import Counters, Health
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.loading import LoadedTracker, evict, load_tracker
from siamcar_ros.ros.mailbox import Mailbox, MailboxClosed
from siamcar_ros.ros.messages import bbox_to_box, detection
from siamcar_ros.ros.outputs import Outputs
from siamcar_ros.ros.parameters import NodeSettings, checked_name, descriptor, markdown
from siamcar_ros.ros.rays import CameraModelError, bearing, corner_rays
from siamcar_ros.ros.ring import FrameRing
from siamcar_ros.ros.targets import Target, Tracked
from siamcar_ros.tracking import TrackerParams, TrackResult, TrackState
from siamcar_ros.tracking.overlay import draw_overlay
from siamcar_ros.tracking.stored_image import StoredImage
from siamcar_ros.tracking.velocity import Motion


def test_mailbox_keeps_the_newest_and_counts_the_others() -> None:
    mailbox = Mailbox()
    assert [mailbox.put(frame(stamp)) for stamp in range(5)] == [False, True, True, True, True]
    future = mailbox.submit(lambda: 7)
    requests, newest = mailbox.take(wait=True)
    assert newest is not None
    assert newest.stamp == 4
    assert [(function(), asked) for function, asked in requests] == [(7, future)]
    assert mailbox.take(wait=False) == ([], None)


def test_closed_mailbox_wakes_the_waiting_and_refuses() -> None:
    mailbox = Mailbox()
    ended = threading.Event()

    def worker() -> None:
        with pytest.raises(MailboxClosed):
            mailbox.take(wait=True)
        ended.set()

    thread = threading.Thread(target=worker)
    thread.start()
    mailbox.close()
    assert ended.wait(10)
    thread.join()
    with pytest.raises(MailboxClosed):
        mailbox.submit(lambda: None)


def test_requests_left_in_a_closed_mailbox_are_cancelled() -> None:
    mailbox = Mailbox()
    future = mailbox.submit(lambda: None)
    mailbox.close()
    with pytest.raises(CancelledError):
        future.result(timeout=1)


def test_ring_is_limited_in_age_and_in_bytes_and_says_what_it_holds() -> None:
    ring = FrameRing(seconds=4, memory=10**6)
    assert ring.newest() is None
    assert ring.span() is None
    for stamp in range(10):
        ring.push(frame(stamp))
    assert ring.span() == (5, 9)
    assert ring.at(4) is None
    found = ring.at(7)
    assert found is not None
    assert found.stamp == 7
    ring.resize(seconds=4, memory=650)  # two frames of 300 bytes
    assert ring.span() == (8, 9)
    said = "the memory for past images, 0.00065 MB, holds the last 1.0 s (2 images), not 4 s"
    assert [ring.push(frame(stamp)) for stamp in (10, 11)] == [said, ""]
    assert ring.seconds == 1.0
    ring.resize(seconds=4, memory=1)
    assert len(ring) == 1  # the newest stays
    ring.clear()
    assert len(ring) == 0


def test_ring_goes_forward_by_arrival_and_ends_at_the_newest() -> None:
    ring = FrameRing(seconds=1e9, memory=10**6)
    frames = [frame(stamp, received=0.1 * stamp) for stamp in range(10)]
    for each in frames:
        ring.push(each)
    assert ring.after(frames[0]) is frames[1]
    assert ring.after(frames[0], skip=0.35) is frames[4]
    assert ring.after(frames[0], skip=99.0) is frames[9]
    assert ring.after(frames[9]) is None
    forgotten = frame(0, received=-5.0)
    assert ring.after(forgotten) is frames[0]


def test_nodes_of_one_process_share_a_network_and_free_it(config: Path) -> None:
    settings = NodeSettings(config=str(config), backend="torch", max_targets=2)
    one, other = load_tracker(settings), load_tracker(settings.changed({"lr": 0.1}))
    assert one.tracker.network is other.tracker.network
    assert one.tracker is not other.tracker
    assert (one.network, one.backend, one.device) == ("compact", "torch", "cpu")
    network = weakref.ref(one.tracker.network)
    del one, other
    gc.collect()
    assert network() is None


def test_a_network_that_hangs_is_not_shared_with_the_next_tracker(config: Path) -> None:
    settings = NodeSettings(config=str(config), backend="torch")
    one = load_tracker(settings)
    evict(one)
    assert load_tracker(settings).tracker.network is not one.tracker.network


def test_settings_are_checked_together() -> None:
    with pytest.raises(ValueError, match="image_transport is one of raw, compressed"):
        NodeSettings(image_transport="theora")
    with pytest.raises(ValueError, match=r"backend is one of auto, .*torch.*, not 'tensorflow'"):
        NodeSettings(backend="tensorflow")
    with pytest.raises(ValueError, match=r"precision is one of auto, fp32, .*, not 'fp8'"):
        NodeSettings(precision="fp8")
    with pytest.raises(ValueError, match=r"lost_below 0\.8 .* uncertain_below 0\.2: set both"):
        NodeSettings(lost_below=0.8, uncertain_below=0.2)
    settings = NodeSettings().changed({"lr": 0.5, "use_sim_time": True})
    assert settings.tracker == TrackerParams(lr=0.5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 257, "257 bytes, more than the limit of 256"), ("a\nb", "cannot be printed")],
)
def test_names_are_short_and_printable(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        NodeSettings(class_id=name)
    assert len(str(error.value)) < 400
    assert checked_name("id", "é" * 128) == "é" * 128


def test_every_tracker_knob_is_a_parameter_and_every_parameter_is_documented() -> None:
    names = [each.name for each in fields(NodeSettings)]
    assert set(TrackerParams.names()) <= set(names)
    table = markdown()
    assert all(f"| `{name}` |" in table for name in names)
    assert descriptor("max_targets").integer_range[0].to_value == 64


def test_shipped_parameter_file_holds_the_defaults() -> None:
    content = yaml.safe_load(resource_path("config/tracker.yaml").read_text())
    shipped = content["/**"]["ros__parameters"]
    knobs = set(TrackerParams.names())
    defaults = {each.name: each.default for each in fields(NodeSettings) if each.name not in knobs}
    assert shipped == defaults


def test_box_round_trip_and_lost_detection_claims_nothing() -> None:
    header = camera_info().header
    seen = detection(header, "a", TrackResult((1, 2, 3, 4), 0.5, TrackState.UNCERTAIN), "cat")
    assert bbox_to_box(seen.bbox) == (1.0, 2.0, 3.0, 4.0)
    assert seen.results[0].hypothesis.class_id == "cat"
    assert not detection(header, "a", TrackResult(BOX, 0.1, TrackState.LOST), "cat").results
    turned = BoundingBox2D()
    turned.center.theta = 0.3
    with pytest.raises(ValueError, match="upright"):
        bbox_to_box(turned)


def distorted(model: str, coefficients: list[float]) -> CameraInfo:
    info = camera_info()
    info.distortion_model = model
    info.d = coefficients
    return info


@pytest.mark.parametrize(
    "info",
    [
        distorted("plumb_bob", [0.0] * 5),
        distorted("plumb_bob", [-0.2, 0.05, 0.001, -0.001, 0.0]),
        distorted("rational_polynomial", [-0.2, 0.05, 0.001, -0.001, 0.0, 0.01, 0.0, 0.0]),
        distorted("equidistant", [0.05, -0.01, 0.0, 0.0]),
    ],
)
def test_rays_project_back_onto_the_corners(info: CameraInfo) -> None:
    rays = corner_rays(info, BOX, (320, 240), rectified=False)
    points = np.column_stack([rays, np.ones(4)])[:, None]
    matrix, coefficients = np.array(info.k).reshape(3, 3), np.array(info.d)
    zero = np.zeros(3)
    if info.distortion_model == "equidistant":
        pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, matrix, coefficients)
    else:
        pixels, _ = cv2.projectPoints(points, zero, zero, matrix, coefficients)
    x, y, w, h = BOX
    corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]) - 0.5
    np.testing.assert_allclose(pixels.reshape(4, 2), corners, atol=1e-2)


def test_rays_know_binning_regions_scaling_and_rectified_images() -> None:
    whole = corner_rays(camera_info(), BOX, (320, 240), rectified=False)
    binned = camera_info()
    binned.binning_x = binned.binning_y = 2
    x, y, w, h = BOX
    half = (x / 2, y / 2, w / 2, h / 2)
    np.testing.assert_allclose(corner_rays(binned, half, (160, 120), rectified=False), whole)
    np.testing.assert_allclose(corner_rays(camera_info(), half, (160, 120), rectified=False), whole)
    region = camera_info()
    region.roi.x_offset, region.roi.y_offset, region.roi.width, region.roi.height = (
        100,
        80,
        160,
        120,
    )
    moved = (x - 100, y - 80, w, h)
    np.testing.assert_allclose(corner_rays(region, moved, (160, 120), rectified=False), whole)
    with pytest.raises(CameraModelError, match="P has no focal length"):
        corner_rays(camera_info(), BOX, (320, 240), rectified=True)
    with pytest.raises(CameraModelError, match="images of 160 by 120, these are 160 by 90"):
        corner_rays(binned, half, (160, 90), rectified=False)
    with pytest.raises(CameraModelError, match="'plumb_bob' with 3 coefficients"):
        corner_rays(distorted("plumb_bob", [0.1] * 3), BOX, (320, 240), rectified=False)


def test_a_camera_that_cannot_be_is_refused() -> None:
    nowhere, wild = camera_info(), camera_info()
    nowhere.k = [math.nan] * 9
    wild.k[2] = math.nan
    wide = distorted("equidistant", [1e-9, 0.0, 0.0, 0.0])
    wide.k[0] = wide.k[4] = 60.0
    for info, reason in (
        (nowhere, "K has no focal length"),
        (wild, "no finite ray"),
        (distorted("plumb_bob", [math.nan] * 5), "no finite ray"),
        (distorted("kannala_brandt4", [0.01] * 4), "'kannala_brandt4' is not understood"),
        (wide, "89 degrees and more off"),
    ):
        with pytest.raises(CameraModelError, match=reason):
            corner_rays(info, (0.0, 100.0, 20.0, 20.0), (320, 240), rectified=False)


@pytest.mark.parametrize(
    ("info", "rectified"),
    [
        (distorted("plumb_bob", [-0.2, 0.05, 0.001, -0.001, 0.0]), False),
        (distorted("rational_polynomial", [-0.2, 0.05, 0.001, -0.001, 0.0, 0.01, 0, 0]), False),
        (distorted("equidistant", [0.05, -0.01, 0.0, 0.0]), False),
        (distorted("plumb_bob", [-0.2, 0.05, 0.001, -0.001, 0.0]), True),
    ],
)
def test_the_bearing_of_a_known_point_is_found(info: CameraInfo, rectified: bool) -> None:
    """A point up and to the right is projected into the image and found again."""
    azimuth, elevation = 0.2, 0.1
    point = np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            -np.sin(elevation),
            np.cos(azimuth) * np.cos(elevation),
        ]
    )
    matrix, zero = np.array(info.k).reshape(3, 3), np.zeros(3)
    coefficients = np.array(info.d)
    if rectified:
        info.p = [250.0, 0.0, 150.0, 0.0, 0.0, 250.0, 110.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        matrix, coefficients = np.array(info.p).reshape(3, 4)[:, :3], np.zeros(4)
    if info.distortion_model == "equidistant":
        pixel, _ = cv2.fisheye.projectPoints(point[None, None], zero, zero, matrix, coefficients)
    else:
        pixel, _ = cv2.projectPoints(point[None, None], zero, zero, matrix, coefficients)
    x, y = (pixel.ravel() + 0.5).tolist()  # camera models count from pixels' centers
    found = bearing(info, (x - 20, y - 10, 40, 20), 1.0, (320, 240), rectified=rectified)
    assert found.azimuth == pytest.approx(azimuth, abs=1e-4)
    assert found.elevation == pytest.approx(elevation, abs=1e-4)
    direction = [found.direction.x, found.direction.y, found.direction.z]
    np.testing.assert_allclose(direction, point, atol=1e-4)
    unsure = bearing(info, (x - 20, y - 10, 40, 20), 0.0, (320, 240), rectified=rectified)
    np.testing.assert_allclose(unsure.covariance, 4 * found.covariance)
    # About 40 and 20 of some 300 pixels, uniform: a twelfth of the squares.
    deviations = np.sqrt(12 * unsure.covariance[[0, 3]])
    np.testing.assert_allclose(deviations, [40 / matrix[0, 0], 20 / matrix[1, 1]], rtol=0.25)


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


class Publishers:
    """What Outputs publishes, by topic, and to which topics someone listens; None: to all."""

    def __init__(self) -> None:
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
    node = Publishers()
    settings = NodeSettings(debug_rate=0.0)
    loaded = LoadedTracker(None, "compact", "torch", "cpu", "")  # type: ignore[arg-type]
    return Outputs(node, settings, Counters(received=3), loaded), node  # type: ignore[arg-type]


def test_annotations_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foxglove_msgs", None)
    monkeypatch.setattr("siamcar_ros.ros.parameters.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="annotations needs foxglove_msgs, which is not installed"):
        NodeSettings(annotations=True)


def test_annotations_are_published_while_someone_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """With classes that take any fields, as foxglove_msgs' own are not installed everywhere."""
    package = ModuleType("foxglove_msgs.msg")
    for name in ("Color", "Point2", "PointsAnnotation", "TextAnnotation", "ImageAnnotations"):
        setattr(package, name, SimpleNamespace)
    monkeypatch.setitem(sys.modules, "foxglove_msgs", SimpleNamespace(msg=package))
    monkeypatch.setitem(sys.modules, "foxglove_msgs.msg", package)
    monkeypatch.setattr("siamcar_ros.ros.parameters.find_spec", lambda name: name)
    node = Publishers()
    loaded = LoadedTracker(None, "compact", "torch", "cpu", "")  # type: ignore[arg-type]
    out = Outputs(node, NodeSettings(annotations=True), Counters(), loaded)  # type: ignore[arg-type]
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
    out.camera_info = camera_info()
    seen = tracked_scene(a=TrackResult(BOX, 0.9, TrackState.TRACKING))
    node.heard = set()
    with monkeypatch.context() as patch:
        for name in ("messages", "bearing", "corner_rays", "draw_overlay", "TrackArray"):
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
    out.camera_info = camera_info()
    out.publish(seen)
    assert markers[0].markers[1].lifetime.sec == 1
    out.camera_info.header.frame_id = "other"
    out.publish(seen)
    out.camera_info = distorted("plumb_bob", [0.1] * 3)
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
    out.publish_idle(camera_info().header)
    out.publish(tracked_scene(**{each: TrackResult(BOX, 0.9, TrackState.LOST) for each in "ab"}))
    assert [each.targets for each in node.sent["~/status"]] == [1, 0, 2]
    for status in node.sent["~/status"]:
        assert (status.frames_received, status.network, status.device) == (3, "compact", "cpu")
    counts = Counters(received=9, refused=1, out_of_order=2, dropped=3, tracked=2, failed=4)
    status = counts.fill(TrackStatus())
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


def test_health_names_the_worst() -> None:
    known = SimpleNamespace(
        active=True,
        topic="/image",
        publishers=0,
        silence=0.1,
        silence_allowed=2.0,
        used=5,
        failed=0,
        trouble="",
        busy=0.1,
        busy_allowed=5.0,
        twins=1,
        values={},
    )
    assert Health(**vars(known)).summary()[1] == "running"
    known.silence = 3.0
    assert "no image on /image for 3.0 s (0 publishers)" in Health(**vars(known)).summary()[1]
    known.failed, known.trouble = 2, "corrupt"
    corrupt = "2 images not used: corrupt"
    assert Health(**vars(known)).summary() == (DiagnosticStatus.WARN, corrupt)
    known.used = 0
    assert Health(**vars(known)).summary() == (DiagnosticStatus.ERROR, corrupt)
    known.used, known.failed, known.silence, known.twins = 5, 0, 0.1, 2
    assert Health(**vars(known)).summary()[0] == DiagnosticStatus.WARN
    assert "2 nodes have this name" in Health(**vars(known)).summary()[1]
    known.busy = 7.0
    assert Health(**vars(known)).summary() == (
        DiagnosticStatus.ERROR,
        "the tracker is stuck: busy for 7.0 s",
    )
    known.active = False
    assert Health(**vars(known)).summary()[1] == "inactive"
