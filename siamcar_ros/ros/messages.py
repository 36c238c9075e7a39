"""Results of the tracker as ROS messages."""

from __future__ import annotations

from typing import Any

from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
)

from siamcar_ros.msg import TrackStatus
from siamcar_ros.tracking import TrackResult, TrackState

Box = tuple[float, float, float, float]

_STATES = {
    TrackState.TRACKING: TrackStatus.TRACKING,
    TrackState.UNCERTAIN: TrackStatus.UNCERTAIN,
    TrackState.LOST: TrackStatus.LOST,
}
STAGES = ("wait", "convert", "crop", "network", "decode")


def box_of(bbox: BoundingBox2D) -> Box:
    """(x, y, w, h), top-left, of a box given by its centre.

    Raises ValueError for a turned box: the tracker's boxes are upright.
    """
    if bbox.center.theta != 0.0:
        raise ValueError(
            f"bbox.center.theta is {bbox.center.theta}, only upright boxes are tracked"
        )
    w, h = bbox.size_x, bbox.size_y
    return bbox.center.position.x - w / 2, bbox.center.position.y - h / 2, w, h


def detection(header: Any, target: str, result: TrackResult, class_id: str) -> Detection2D:
    """One target in one image.

    The box is the tracker's latest. A LOST target has no entry in `results`: nothing was seen.
    """
    # rosidl aborts the process on a whole number in a float64 field.
    x, y, w, h = map(float, result.box)
    message = Detection2D(header=header, id=target)
    message.bbox.center.position.x = x + w / 2
    message.bbox.center.position.y = y + h / 2
    message.bbox.size_x, message.bbox.size_y = w, h
    if result.state is not TrackState.LOST:
        hypothesis = ObjectHypothesis(class_id=class_id, score=float(result.score))
        message.results.append(ObjectHypothesisWithPose(hypothesis=hypothesis))
    return message


def detection_array(header: Any, detections: list[Detection2D]) -> Detection2DArray:
    """All targets in one image."""
    return Detection2DArray(header=header, detections=detections)


def status(
    header: Any, target: str, result: TrackResult, stages: dict[str, float], total: float
) -> TrackStatus:
    """State, score and latencies of one target in one image; the counters are left at 0.

    stages: seconds for each of `STAGES`; total: from the callback's start to the publication.
    """
    message = TrackStatus(header=header, id=target, state=_STATES[result.state])
    message.score = float(result.score)
    for stage in STAGES:
        setattr(message, f"{stage}_latency", stages.get(stage, 0.0))
    message.total_latency = total
    return message
