"""The messages that are written to and read from bags, without ROS.

rosbags knows ROS 2's common interfaces but not vision_msgs; those definitions are given here, as
released in vision_msgs 4 (Humble and later). Boxes are (x, y, w, h) in pixels, top-left corner,
0-based; a Detection2D holds center and size instead. A detection without a target (absent, or not
found by the tracker) has a box of size zero.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from siamcar_ros.geometry import Image, box_center

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
DETECTION = "vision_msgs/msg/Detection2D"

_JPEG_QUALITY = 95
_VISION_MSGS = {
    "Point2D": "float64 x\nfloat64 y\n",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": (
        "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
    ),
    "Detection2D": (
        "std_msgs/Header header\nObjectHypothesisWithPose[] results\n"
        "BoundingBox2D bbox\nstring id\n"
    ),
    "Detection2DArray": "std_msgs/Header header\nDetection2D[] detections\n",
}


@functools.cache
def typestore() -> Typestore:
    """ROS 2 Jazzy's message types and vision_msgs 4."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name, text in _VISION_MSGS.items():
        store.register(get_types_from_msg(text, f"vision_msgs/msg/{name}"))
    return store


def header(stamp: int, frame_id: str) -> Any:
    """std_msgs/Header with a stamp in nanoseconds."""
    types = typestore().types
    time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    return types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def image_message(image: Image, stamp: int, frame_id: str) -> Any:
    """sensor_msgs/Image of an (H, W, 3) BGR uint8 array."""
    height, width = image.shape[:2]
    return typestore().types[IMAGE](
        header=header(stamp, frame_id),
        height=height,
        width=width,
        encoding="bgr8",
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(image).reshape(-1),
    )


def jpeg_message(image: Image, stamp: int, frame_id: str) -> Any:
    """sensor_msgs/CompressedImage of an (H, W, 3) BGR uint8 array, as JPEG."""
    stream = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return compressed_message(stream.tobytes(), "jpeg", stamp, frame_id)


def compressed_message(data: bytes, format: str, stamp: int, frame_id: str) -> Any:
    """sensor_msgs/CompressedImage of an encoded stream; format is "jpeg" or "png"."""
    return typestore().types[COMPRESSED_IMAGE](
        header=header(stamp, frame_id), format=format, data=np.frombuffer(data, np.uint8)
    )


def detection_message(
    box: Sequence[float] | None,
    stamp: int,
    frame_id: str,
    *,
    id: str,
    class_id: str,
    score: float | None = 1.0,
) -> Any:
    """vision_msgs/Detection2D of a box (x, y, w, h).

    Without a box, or with NaN in it, there is no target. Without a score the box is kept and
    `results` is empty: the target is not seen in it.
    """
    types = typestore().types
    results = [] if score is None else [_hypothesis(class_id, score)]
    if box is None or not np.isfinite(box).all():
        box, results = (0.0, 0.0, 0.0, 0.0), []
    x, y, width, height = map(float, box)
    center_x, center_y = box_center((x, y, width, height))
    position = types["vision_msgs/msg/Point2D"](x=center_x, y=center_y)
    return types[DETECTION](
        header=header(stamp, frame_id),
        results=results,
        bbox=types["vision_msgs/msg/BoundingBox2D"](
            center=types["vision_msgs/msg/Pose2D"](position=position, theta=0.0),
            size_x=width,
            size_y=height,
        ),
        id=id,
    )


def _hypothesis(class_id: str, score: float) -> Any:
    types = typestore().types
    pose = types["geometry_msgs/msg/Pose"](
        position=types["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0),
        orientation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )
    return types["vision_msgs/msg/ObjectHypothesisWithPose"](
        hypothesis=types["vision_msgs/msg/ObjectHypothesis"](class_id=class_id, score=score),
        pose=types["geometry_msgs/msg/PoseWithCovariance"](
            pose=pose, covariance=np.zeros(36, np.float64)
        ),
    )
