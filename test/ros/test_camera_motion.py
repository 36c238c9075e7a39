"""The camera's turn from angular rates, and where it moves what the camera sees."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf2_msgs")

from geometry_msgs.msg import TransformStamped
from node_harness import Log, camera_info
from sensor_msgs.msg import CameraInfo, Imu
from tf2_msgs.msg import TFMessage

from siamcar_ros.ros import complaints
from siamcar_ros.ros.camera_motion import CameraMotion, StaticFrames, Turns, rotation_of_rpy
from siamcar_ros.ros.node import TrackerNode
from siamcar_ros.ros.parameters import NodeSettings
from siamcar_ros.ros.rays import CameraModel
from siamcar_ros.ros.ring import FrameRing

MS = 1_000_000
BOX = (4.0, 4.0, 2.0, 2.0)


class Subscriber:
    """A node that only subscribes."""

    def __init__(self, **settings: Any) -> None:
        self.settings = NodeSettings(**settings)
        self.camera_info: CameraInfo | None = camera_info()
        self.log = Log()

    def subscribe(self, *_: object) -> None:
        """Nothing arrives."""

    def get_logger(self) -> Log:
        return self.log


def test_rates_hold_until_the_next_and_turn_what_is_seen_the_other_way() -> None:
    turns = Turns()
    for index in range(60):  # to the right at 1 rad/s for 0.3 s, then at 0.5 rad/s
        turns.add(10 * MS * index, np.array((0.0, 1.0 if index < 30 else 0.5, 0.0)))
    turn = turns.between(200 * MS + 3 * MS, 400 * MS + 7 * MS)
    assert turn is not None
    x, y, z = turn @ (0, 0, 1)
    assert np.arctan2(x, z) == pytest.approx(-(0.097 + 0.5 * 0.107), abs=1e-9)
    assert y == pytest.approx(0)


def test_a_gap_in_the_rates_is_an_unknown_turn() -> None:
    turns = Turns()
    assert turns.between(0, 10 * MS) is None
    turns.add(100 * MS, np.zeros(3))
    assert turns.between(20 * MS, 110 * MS) is None  # they begin too late
    assert turns.between(100 * MS, 150 * MS) is not None
    assert turns.between(100 * MS, 170 * MS) is None  # they end too early
    turns.add(90 * MS, np.ones(3))  # out of order: left out
    np.testing.assert_array_equal(turns.between(100 * MS, 150 * MS), np.eye(3))
    turns.add(300 * MS, np.zeros(3))
    assert turns.between(100 * MS, 310 * MS) is None


def test_stamps_that_start_over_begin_anew() -> None:
    turns = Turns()
    turns.add(10**12, np.ones(3))
    turns.add(5 * MS, np.zeros(3))
    np.testing.assert_array_equal(turns.between(5 * MS, 15 * MS), np.eye(3))


def test_rates_of_images_that_are_forgotten_are_forgotten() -> None:
    """As when a simulation is reset, by less than the 20 s for which rates are kept."""
    found, _ = motion()
    for index in range(100):
        found._on_rate(imu(10 * MS * index, "camera", 0.0, 1.0, 0.0))
    node: Any = SimpleNamespace(
        ring=FrameRing(seconds=0, memory=1), camera_motion=found, _outputs=None, _worker=None
    )
    TrackerNode.forget(node, "image stamps went back")
    for index in range(10):
        found._on_rate(imu(10 * MS * index, "camera", 0.0, 0.0, 0.0))
    assert found.shift(10 * MS, 30 * MS, BOX, (10, 10)) == pytest.approx((0.0, 0.0))


def motion(**settings: object) -> tuple[CameraMotion, Subscriber]:
    node = Subscriber(camera_rates="rates", **settings)
    found = CameraMotion(node)  # type: ignore[arg-type]
    node.camera_info = info = camera_info()
    info.width, info.height = 10, 10
    info.k = [100.0, 0.0, 4.5, 0.0, 100.0, 4.5, 0.0, 0.0, 1.0]
    return found, node


def imu(stamp: int, frame_id: str, x: float, y: float, z: float) -> Imu:
    message = Imu()
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    rate = message.angular_velocity
    rate.x, rate.y, rate.z = x, y, z
    return message


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ((0.0, 1.0, 0.0), (-2.0, 0.0)),  # the camera turns right: the target goes left
        ((1.0, 0.0, 0.0), (0.0, 2.0)),  # up: it goes down
        ((0.0, 0.0, 1.0), (0.0, 0.0)),  # about the axis: the middle stays
    ],
)
def test_what_stands_still_moves_against_the_camera(
    rate: tuple[float, float, float], expected: tuple[float, float]
) -> None:
    found, _ = motion()
    for index in range(5):
        found._on_rate(imu(10 * MS * index, "camera", *rate))
    shift = found.shift(10 * MS, 30 * MS, BOX, (10, 10))
    assert shift == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("by_parameter", [True, False])
def test_the_sensor_may_be_mounted_otherwise(by_parameter: bool) -> None:
    """In a body frame (x forward, y left, z up) a turn to the right is about -z."""
    optical = (-np.pi / 2, 0.0, -np.pi / 2)
    found, node = motion(camera_rates_rpy=",".join(map(str, optical)) if by_parameter else "")
    if not by_parameter:
        found._on_rate(imu(0, "body", 0.0, 0.0, -1.0))
        assert "/tf_static does not connect 'body' and 'camera'" in node.log.lines[0]
        assert found._frames is not None
        found._frames.add(TFMessage(transforms=[fixed("base", "body", 0, 0, 0, 1)]))
        # optical in base: the quaternion of (-90, 0, -90) degrees
        found._frames.add(TFMessage(transforms=[fixed("base", "camera", -0.5, 0.5, -0.5, 0.5)]))
    for index in range(5):
        found._on_rate(imu(10 * MS * index, "body", 0.0, 0.0, -1.0))
    shift = found.shift(10 * MS, 30 * MS, BOX, (10, 10))
    assert shift == pytest.approx((-2.0, 0.0), abs=2e-3)


def fixed(parent: str, child: str, x: float, y: float, z: float, w: float) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    turn = message.transform.rotation
    turn.x, turn.y, turn.z, turn.w = map(float, (x, y, z, w))
    return message


def test_frames_that_are_not_connected_and_loops_have_no_rotation() -> None:
    frames = StaticFrames(Subscriber())  # type: ignore[arg-type]
    frames.add(TFMessage(transforms=[fixed("a", "b", 0, 0, 1, 0), fixed("c", "c", 0, 0, 0, 1)]))
    frames.add(TFMessage(transforms=[fixed("a", "d", 0, 0, 0, 0)]))  # no rotation at all
    for pair in (("a", "b"), ("b", "a")):
        turn = frames.rotation(*pair)
        assert turn is not None
        np.testing.assert_allclose(turn, np.diag((-1, -1, 1)), atol=1e-12)
    assert frames.rotation("a", "elsewhere") is None
    assert frames.rotation("c", "c") is None
    assert frames.rotation("a", "d") is None
    quarter = rotation_of_rpy(0.0, 0.0, np.pi / 2) @ (1, 0, 0)
    np.testing.assert_allclose(quarter, (0, 1, 0), atol=1e-12)


def test_what_is_not_known_is_said_and_moves_nothing() -> None:
    found, node = motion()
    assert found.shift(0, 10 * MS, BOX, (10, 10)) is None
    assert "no angular rates for the images" in node.log.lines[-1]
    node.camera_info, info = None, node.camera_info
    found._on_rate(imu(0, "body", 0.0, 0.0, 0.0))
    assert found.shift(0, 10 * MS, BOX, (10, 10)) is None
    assert "no camera_info for the images" in node.log.lines[-1]
    node.camera_info = CameraInfo()
    found._on_rate(imu(0, "body", 0.0, 0.0, 0.0))
    assert "camera_info has no frame_id" in node.log.lines[-1]
    node.camera_info = info
    absent = imu(0, "camera", 0.0, 0.0, 0.0)
    absent.angular_velocity_covariance[0] = -1.0
    for message in (absent, imu(0, "camera", float("nan"), 0.0, 0.0)):
        found._on_rate(message)
        assert "no usable angular velocity" in node.log.lines[-1]
    found._on_rate(imu(0, "camera", 0.0, 0.0, 0.0))
    node.camera_info = CameraInfo()
    assert found.shift(0, 10 * MS, BOX, (10, 10)) is None
    assert "no focal length" in node.log.lines[-1]


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
@pytest.mark.parametrize("rectified", [False, True])
def test_projection_is_the_inverse_of_the_rays(model: str, rectified: bool) -> None:
    info = camera_info()
    info.distortion_model, info.d = model, [0.05, -0.02, 0.001, 0.0]
    info.r = rotation_of_rpy(0.01, -0.02, 0.03).ravel().tolist()
    info.p = [250.0, 0.0, 150.0, 0.0, 0.0, 260.0, 110.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.binning_x = info.binning_y = 2
    points = np.array([[0.0, 0.0], [70.0, 50.0], [159.0, 119.0]])
    camera = CameraModel(info, (160, 120), rectified=rectified)
    seen = camera.project(np.column_stack([camera.rays(points), np.ones(3)]))
    np.testing.assert_allclose(seen, points, atol=1e-3)


def test_raw_and_rectified_images_of_a_stereo_camera_give_the_same_rays() -> None:
    """The raw image is turned by R against the rectified one, in whose frame rays are."""
    info = camera_info()
    turn = rotation_of_rpy(0.02, -0.03, 0.01)
    info.r = turn.ravel().tolist()
    info.p = [280.0, 0.0, 155.0, -30.0, 0.0, 280.0, 118.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ahead = np.array((0.1, -0.05, 1.0))
    raw, (f, cx, cy) = turn.T @ ahead, (300.0, 160.0, 120.0)
    in_raw = [raw[0] / raw[2] * f + cx + 0.5, raw[1] / raw[2] * f + cy + 0.5]
    in_rectified = [0.1 * 280 + 155 + 0.5, -0.05 * 280 + 118 + 0.5]
    for point, rectified in ((in_raw, False), (in_rectified, True)):
        found = CameraModel(info, (320, 240), rectified=rectified).rays([point])
        np.testing.assert_allclose(found, [ahead[:2]], atol=1e-6)


def test_a_warning_is_repeated_after_a_while_however_many_others_there_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node, now = Subscriber(), 100.0
    monkeypatch.setattr(complaints.time, "monotonic", lambda: now)
    warnings = complaints.Complaints(node, "no turn")  # type: ignore[arg-type]
    for _ in range(3):
        for number in range(200):
            warnings.say(f"no frame {number}")
    assert node.log.lines == [f"no turn: no frame {number}" for number in range(64)]
    now += 11.0
    warnings.say("no frame 3")
    assert node.log.lines[64:] == ["no turn: no frame 3"]
