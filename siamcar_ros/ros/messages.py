"""Results of the tracker as ROS messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
)

from siamcar_ros.geometry import Box
from siamcar_ros.geometry import Image as Pixels
from siamcar_ros.msg import Track, TrackStatus
from siamcar_ros.tracking import TrackResult, TrackState

# Every client of a service receives all clients' answers before its own are picked out: with
# rclpy's default depth of 10, answers are lost when many clients call at once.
SERVICE_QOS = QoSProfile(depth=1000)
# History, depth and reliability as parameters: qos_overrides./tracker/detection.publisher.depth
OVERRIDABLE = QoSOverridingOptions.with_default_policies(
    callback=lambda qos: SetParametersResult(
        successful=qos.depth > 0, reason=f"depth is at least 1, not {qos.depth}"
    )
)


@contextmanager
def checked_overrides() -> Iterator[None]:
    """Raise ValueError for a parameter qos_overrides that rclpy rejects."""
    try:
        yield
    except rclpy_implementation.RCLError:
        raise
    except (InvalidQosOverridesError, RuntimeError, ParameterException) as error:
        raise ValueError(f"a parameter qos_overrides is not allowed: {error}") from error


STATE_NUMBERS = {
    TrackState.TRACKING: TrackStatus.TRACKING,
    TrackState.UNCERTAIN: TrackStatus.UNCERTAIN,
    TrackState.LOST: TrackStatus.LOST,
}
STATES = {number: state for state, number in STATE_NUMBERS.items()}
"""The state of a track for each of its numbers in TrackStatus."""


def bbox_to_box(bbox: BoundingBox2D) -> Box:
    """Return (x, y, w, h), top-left corner and size, of a box given by its center.

    Raises ValueError for a rotated box: only upright boxes are tracked.
    """
    if bbox.center.theta != 0.0:
        raise ValueError(
            f"bbox.center.theta is {bbox.center.theta:g}: only upright boxes can be tracked"
        )
    w, h = bbox.size_x, bbox.size_y
    return bbox.center.position.x - w / 2, bbox.center.position.y - h / 2, w, h


def box_to_bbox(box: Box) -> BoundingBox2D:
    """Return the message for a box (x, y, w, h)."""
    # rosidl aborts the process on a whole number in a float64 field.
    x, y, w, h = map(float, box)
    bbox = BoundingBox2D(size_x=w, size_y=h)
    bbox.center.position.x, bbox.center.position.y = x + w / 2, y + h / 2
    return bbox


def detection(header: Any, target: str, result: TrackResult, class_id: str) -> Detection2D:
    """Return the message for one target in one image.

    The box is the tracker's latest. A LOST target has no entry in `results`.
    """
    message = Detection2D(header=header, id=target, bbox=box_to_bbox(result.box))
    if result.state is not TrackState.LOST:
        message.results.append(hypothesis(class_id, result.score))
    return message


def hypothesis(class_id: str, score: float) -> ObjectHypothesisWithPose:
    """Return a detection's result; its pose is left empty."""
    return ObjectHypothesisWithPose(
        hypothesis=ObjectHypothesis(class_id=class_id, score=float(score))
    )


def image_message(header: Any, pixels: Pixels) -> Image:
    """Return the message for an image (H, W, 3) in BGR."""
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
    message.data.frombytes(np.ascontiguousarray(pixels).data.cast("B"))
    return message


def pinhole_info(header: Any, size: tuple[int, int], focal: float) -> CameraInfo:
    """Return the message for a lens without distortion, centered on the image.

    Its size is width and height. A focal length of 0 pixels leaves K zero, that is, uncalibrated.
    """
    width, height = size
    info = CameraInfo(header=header, width=width, height=height, distortion_model="plumb_bob")
    info.d = [0.0] * 5
    if focal:
        cx, cy = width / 2 - 0.5, height / 2 - 0.5
        info.k = [focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def track(
    target: str, result: TrackResult, class_id: str, velocity: tuple[float, float], lost: float
) -> Track:
    """Return the message for one target in one image; the bearing is left empty.

    `velocity` is that of the box's center in pixels per second, `lost` the time in seconds since
    the target was last seen.
    """
    message = Track(id=target, class_id=class_id, state=STATE_NUMBERS[result.state])
    message.score, message.seconds_lost = float(result.score), float(lost)
    message.bbox = box_to_bbox(result.box)
    message.velocity.x, message.velocity.y = map(float, velocity)
    return message
