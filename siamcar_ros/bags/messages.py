"""The messages that are written to and read from bags, without ROS.

rosbags knows ROS 2's common interfaces. Added are vision_msgs as released in version 4 (Humble and
later), the image annotations of foxglove_msgs 3, and this package's own. Boxes are (x, y, w, h) in
pixels, top-left corner, 0-based; a Detection2D holds center and size instead. A detection without
a target (absent, or not found by the tracker) has a box of size zero.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from siamcar_ros.geometry import Box, Image, box_center
from siamcar_ros.resources import resource_path
from siamcar_ros.tracking import TrackResult, TrackState
from siamcar_ros.tracking.velocity import Motion

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
_FOXGLOVE_MSGS = {
    "Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a\n",
    "Point2": "float64 x\nfloat64 y\n",
    "CircleAnnotation": (
        "builtin_interfaces/Time timestamp\nPoint2 position\nfloat64 diameter\n"
        "float64 thickness\nColor fill_color\nColor outline_color\n"
    ),
    "PointsAnnotation": (
        "builtin_interfaces/Time timestamp\nuint8 UNKNOWN=0\nuint8 POINTS=1\nuint8 LINE_LOOP=2\n"
        "uint8 LINE_STRIP=3\nuint8 LINE_LIST=4\nuint8 type\nPoint2[] points\n"
        "Color outline_color\nColor[] outline_colors\nColor fill_color\nfloat64 thickness\n"
    ),
    "TextAnnotation": (
        "builtin_interfaces/Time timestamp\nPoint2 position\nstring text\nfloat64 font_size\n"
        "Color text_color\nColor background_color\n"
    ),
    "ImageAnnotations": (
        "CircleAnnotation[] circles\nPointsAnnotation[] points\nTextAnnotation[] texts\n"
    ),
}
# The states of TrackStatus.
_STATES = {TrackState.TRACKING: 1, TrackState.UNCERTAIN: 2, TrackState.LOST: 3}


@functools.cache
def typestore() -> Typestore:
    """ROS 2 Jazzy's message types and those named above."""
    store = get_typestore(Stores.ROS2_JAZZY)
    own = sorted(resource_path("msg").glob("*.msg"))
    for package, texts in (
        ("vision_msgs", _VISION_MSGS),
        ("foxglove_msgs", _FOXGLOVE_MSGS),
        ("siamcar_ros", {file.stem: file.read_text(encoding="utf-8") for file in own}),
    ):
        for name, text in texts.items():
            store.register(get_types_from_msg(text, f"{package}/msg/{name}"))
    return store


def message(kind: str, **fields: Any) -> Any:
    """A message of a type such as `IMAGE`; fields that are not given are zero or empty."""
    store = typestore()
    described = store.fielddefs[kind][1]
    blank = {name: _blank(*form) for name, form in described if name not in fields}
    return store.types[kind](**fields, **blank)


def _blank(node: Any, form: Any) -> Any:
    """The zero of one field, as rosbags describes it."""
    if node == Nodetype.NAME:
        return message(form)
    if node == Nodetype.BASE:
        kind = form[0]
        return "" if kind == "string" else 0.0 if kind.startswith("float") else 0
    (element, detail), length = form
    count = length if node == Nodetype.ARRAY else 0
    if element == Nodetype.BASE and detail[0] != "string":
        return np.zeros(count, detail[0])
    return [_blank(element, detail) for _ in range(count)]


def time_message(stamp: int) -> Any:
    """builtin_interfaces/Time of a stamp in nanoseconds."""
    return message("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)


def header(stamp: int, frame_id: str) -> Any:
    """std_msgs/Header with a stamp in nanoseconds."""
    return message("std_msgs/msg/Header", stamp=time_message(stamp), frame_id=frame_id)


def image_message(image: Image, stamp: int, frame_id: str) -> Any:
    """sensor_msgs/Image of an (H, W, 3) BGR uint8 array."""
    height, width = image.shape[:2]
    pixels = np.ascontiguousarray(image).reshape(-1)
    head, size = header(stamp, frame_id), {"height": height, "width": width, "step": 3 * width}
    return message(IMAGE, header=head, encoding="bgr8", data=pixels, **size)


def jpeg_message(image: Image, stamp: int, frame_id: str) -> Any:
    """sensor_msgs/CompressedImage of an (H, W, 3) BGR uint8 array, as JPEG."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    stream = cv2.imencode(".jpg", np.ascontiguousarray(image), quality)[1]
    return compressed_message(stream.tobytes(), "jpeg", stamp, frame_id)


def compressed_message(data: bytes, format: str, stamp: int, frame_id: str) -> Any:
    """sensor_msgs/CompressedImage of an encoded stream; format is "jpeg" or "png"."""
    stream = np.frombuffer(data, np.uint8)
    return message(COMPRESSED_IMAGE, header=header(stamp, frame_id), format=format, data=stream)


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
    results = []
    if box is None or not np.isfinite(box).all():
        box, score = (0.0, 0.0, 0.0, 0.0), None
    if score is not None:
        pose = message("geometry_msgs/msg/PoseWithCovariance")
        pose.pose.orientation.w = 1.0
        seen = message("vision_msgs/msg/ObjectHypothesis", class_id=class_id, score=score)
        kind = "vision_msgs/msg/ObjectHypothesisWithPose"
        results.append(message(kind, hypothesis=seen, pose=pose))
    x, y, width, height = map(float, box)
    bbox = _bounding_box((x, y, width, height))
    return message(DETECTION, header=header(stamp, frame_id), results=results, bbox=bbox, id=id)


def tracks_message(
    name: str, result: TrackResult, motion: Motion, size: tuple[int, int], stamp: int, frame_id: str
) -> Any:
    """siamcar_ros/TrackArray of one target in an image of size (width, height), without bearing."""
    x, y = motion.velocity
    track = message(
        "siamcar_ros/msg/Track",
        id=name,
        class_id="target",
        state=_STATES[result.state],
        score=0.0 if math.isnan(result.score) else result.score,
        bbox=_bounding_box(result.box),
        velocity=message("vision_msgs/msg/Point2D", x=x, y=y),
        seconds_lost=motion.lost,
    )
    image = {"image_width": size[0], "image_height": size[1]}
    return message(
        "siamcar_ros/msg/TrackArray", header=header(stamp, frame_id), tracks=[track], **image
    )


def foxglove_message(name: str, **fields: Any) -> Any:
    """A message of foxglove_msgs, as `image_annotations` makes them."""
    return message(f"foxglove_msgs/msg/{name}", **fields)


def _bounding_box(box: Box) -> Any:
    x, y = box_center(box)
    position = message("vision_msgs/msg/Point2D", x=x, y=y)
    center = message("vision_msgs/msg/Pose2D", position=position)
    size = {"size_x": box[2], "size_y": box[3]}
    return message("vision_msgs/msg/BoundingBox2D", center=center, **size)
