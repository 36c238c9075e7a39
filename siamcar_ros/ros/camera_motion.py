"""The camera's rotation between two images, from a gyroscope or a gimbal's encoders."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from geometry_msgs.msg import Vector3Stamped
from numpy.typing import NDArray
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Imu
from tf2_msgs.msg import TFMessage

from siamcar_ros.data.detections import stamp_of
from siamcar_ros.geometry import Box, box_center
from siamcar_ros.ros.complaints import Complaints
from siamcar_ros.ros.parameters import numbers
from siamcar_ros.ros.rays import CameraModel, CameraModelError

if TYPE_CHECKING:
    from siamcar_ros.ros.node import TrackerNode

Matrix = NDArray[np.float64]

# Nanoseconds for which a rate is valid. The rotation across a longer gap is unknown.
_HOLD = 60_000_000
# Nanoseconds for which rates are kept: a new target may start on an image that old.
_KEPT = 20 * 10**9
# Frames between a frame and the root of its tree, at most.
_LONGEST_CHAIN = 100


class Turns:
    """Integrates a camera's angular rates to its rotation between two stamps. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rates: deque[tuple[int, Matrix]] = deque()

    def add(self, stamp: int, rate: Matrix) -> None:
        """Add the camera's angular velocity (3,) in its optical frame, rad/s, at `stamp` (ns)."""
        with self._lock:
            if self._rates and stamp <= self._rates[-1][0]:
                if self._rates[-1][0] - stamp < _KEPT:
                    return  # out of order
                self._rates.clear()  # a bag has started over
            self._rates.append((stamp, rate))
            while stamp - self._rates[0][0] > _KEPT:
                self._rates.popleft()

    def between(self, begin: int, end: int) -> Matrix | None:
        """Return the (3, 3) matrix from the optical frame at stamp `begin` to that at `end` (ns).

        Each rate is valid until the next one, for 60 ms at most; None across a longer gap.
        """
        with self._lock:
            first = max(bisect_right(self._rates, begin, key=itemgetter(0)) - 1, 0)
            rates = [each for each in islice(self._rates, first, None) if each[0] < end]
        if not rates or rates[0][0] - begin > _HOLD:
            return None
        turn = np.eye(3)
        edges = [begin, *(stamp for stamp, _ in rates[1:]), end]
        for (since, rate), start, stop in zip(rates, edges, edges[1:], strict=False):
            if stop - since > _HOLD:
                return None
            # The camera turns by rate * time; what it sees turns the other way.
            turn = cv2.Rodrigues(-rate * (stop - start) / 1e9)[0] @ turn
        return turn


class CameraMotion:
    """Predicts where a static target appears in the next image, from the camera's own rotation.

    Subscribes to the topic that the parameter `camera_rates` names.
    """

    def __init__(self, node: TrackerNode) -> None:
        settings = node.settings
        self._node = node
        self._complaints = Complaints(node, "the camera's motion is unknown")
        self._turns = Turns()
        rpy = numbers("camera_rates_rpy", settings.camera_rates_rpy, 3)
        self._fixed = rotation_of_rpy(*rpy).T if rpy else None
        self._frames = None if rpy else StaticFrames(node)
        kind = Imu if settings.camera_rates_type == "imu" else Vector3Stamped
        qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.subscribe(kind, settings.camera_rates, self._on_rate, qos)

    def shift(
        self, before: int, now: int, box: Box, image_size: tuple[int, int]
    ) -> tuple[float, float] | None:
        """Return the shift (x, y) in pixels of a box due to the camera's turn between two images.

        The box is in the image of the stamp `before`, in nanoseconds; the size of both images is
        width and height. None, which is logged, if the turn, the camera model or the sensor's
        mounting is unknown.
        """
        info, turn = self._node.camera_info, self._turns.between(before, now)
        if info is None or turn is None:
            what = "no camera_info" if info is None else "no angular rates"
            self._complaints.say(f"{what} for the images")
            return None
        center = box_center(box)
        try:
            model = CameraModel(info, image_size, rectified=self._node.settings.image_rectified)
            (ray,) = model.rays([center])
            direction = turn @ (*ray, 1.0)
            if direction[2] < 0.1:
                return None  # behind the camera now
            (found,) = model.project(direction[None])
        except CameraModelError as error:
            self._complaints.say(str(error))
            return None
        dx, dy = (found - center).tolist()
        return dx, dy

    def forget(self) -> None:
        """Forget all rates, as when stamps have gone back."""
        self._turns = Turns()

    def _on_rate(self, message: Any) -> None:
        vector = getattr(message, "angular_velocity", None) or message.vector
        rate = np.array((vector.x, vector.y, vector.z))
        # An IMU without a gyroscope says so by a covariance of -1.
        absent = hasattr(message, "angular_velocity") and message.angular_velocity_covariance[0] < 0
        if absent or not np.isfinite(rate).all():
            self._complaints.say(
                f"{self._node.settings.camera_rates} has no usable angular velocity"
            )
            return
        turn = self._into_optical(message.header.frame_id)
        if turn is not None:
            self._turns.add(stamp_of(message), turn @ rate)

    def _into_optical(self, sensor: str) -> Matrix | None:
        """The rotation from the sensor's frame to the camera's optical frame."""
        if self._fixed is not None:
            return self._fixed
        info = self._node.camera_info
        if info is None:
            return None  # `shift` says so
        camera = info.header.frame_id
        if not camera:
            self._complaints.say("camera_info has no frame_id: set it, or camera_rates_rpy")
            return None
        if sensor == camera:
            return np.eye(3)
        assert self._frames is not None
        turn = self._frames.rotation(camera, sensor)
        if turn is None:
            self._complaints.say(
                f"/tf_static does not connect {sensor[:256]!r} and {camera[:256]!r}: publish the "
                "sensor's mounting, or set the parameter camera_rates_rpy"
            )
        return turn


class StaticFrames:
    """The tree of fixed frames. (tf2_ros does more, but is not installed everywhere.)"""

    def __init__(self, node: TrackerNode) -> None:
        self._parents: dict[str, tuple[str, Matrix]] = {}
        kept = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.subscribe(TFMessage, "/tf_static", self.add, kept)

    def add(self, message: Any) -> None:
        """Add the transforms of a tf2_msgs/TFMessage; unusable rotations are ignored."""
        for each in message.transforms:
            q = each.transform.rotation
            turn = rotation_of_quaternion(q.x, q.y, q.z, q.w)
            if turn is not None:
                self._parents[each.child_frame_id] = each.header.frame_id, turn

    def rotation(self, target: str, source: str) -> Matrix | None:
        """Return the (3, 3) matrix that takes vectors from frame `source` to frame `target`.

        None if they are not connected.
        """
        one, other = self._to_root(target), self._to_root(source)
        if one is None or other is None or one[0] != other[0]:
            return None
        return np.asarray(one[1].T @ other[1])

    def _to_root(self, frame: str) -> tuple[str, Matrix] | None:
        turn = np.eye(3)
        for _ in range(_LONGEST_CHAIN):
            if frame not in self._parents:
                return frame, turn
            frame, up = self._parents[frame]
            turn = up @ turn
        return None  # a loop


def rotation_of_quaternion(x: float, y: float, z: float, w: float) -> Matrix | None:
    """Return the (3, 3) rotation matrix of a quaternion; None if its norm is 0 or not finite."""
    length = float(np.linalg.norm((x, y, z, w)))
    if not np.isfinite(length) or length < 1e-6:
        return None
    x, y, z, w = (each / length for each in (x, y, z, w))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * (w * cross + cross @ cross)


def rotation_of_rpy(roll: float, pitch: float, yaw: float) -> Matrix:
    """Return the (3, 3) rotation matrix of URDF's roll, pitch and yaw in radians."""
    about = np.diag((roll, pitch, yaw))
    x, y, z = (np.asarray(cv2.Rodrigues(axis)[0]) for axis in about)
    return np.asarray(z @ y @ x)
