"""Rotations between frames that do not move, from /tf_static."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

if TYPE_CHECKING:
    from siamcar_ros.ros.node import TrackerNode

Matrix = NDArray[np.float64]

_LONGEST_CHAIN = 100


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
