"""Positions of targets, from a depth image, from their height or from the ground plane."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3D, Detection3DArray

from siamcar_ros.data.detections import stamp_of
from siamcar_ros.data.images import ImageError
from siamcar_ros.msg import Track, TrackArray
from siamcar_ros.ros.complaints import Complaints
from siamcar_ros.ros.depth import Depth, depth_image, target_depth
from siamcar_ros.ros.image_subscription import ImageSubscription
from siamcar_ros.ros.messages import bbox_to_box, hypothesis
from siamcar_ros.ros.parameters import numbers
from siamcar_ros.ros.rays import MOST_STRETCH, CameraModel

if TYPE_CHECKING:
    from siamcar_ros.ros.node import TrackerNode

# Tracks and depth images that wait for each other, at most.
_WAITING = 16


class Positions:
    """Publishes `~/detections_3d` and, with `target_tf`, a frame on /tf for each target.

    A target's distance comes from the depth image of the same moment, if the parameter `depth`
    names its topic; if that is not available, from `target_height`, then from `ground_plane`. A
    target of unknown distance is left out, and nothing is published if none is known.
    """

    def __init__(self, node: TrackerNode, create: Callable[..., Any]) -> None:
        self._node, settings = node, node.settings
        self._complaints = Complaints(node, "no position from depth")
        self._lock = threading.Lock()
        self._depths: deque[Image] = deque(maxlen=_WAITING)
        self._waiting: deque[tuple[TrackArray, CameraModel]] = deque(maxlen=_WAITING)
        self._publisher = create(Detection3DArray, "~/detections_3d")
        self._frames = create(TFMessage, "/tf", depth=100) if settings.target_tf else None

    def subscribe(self) -> ImageSubscription:
        """Subscribe to the depth images."""
        settings = self._node.settings
        return ImageSubscription(
            self._node,
            transport="raw",
            reliability=settings.qos_reliability,
            on_message=self._on_depth,
            topic=settings.depth,
        )

    @property
    def wanted(self) -> bool:
        """Whether positions can be computed and would be received."""
        settings = self._node.settings
        known = settings.depth or settings.target_height or settings.ground_plane
        listened = self._frames is not None or self._publisher.get_subscription_count()
        return bool(known and listened)

    def add(self, tracks: TrackArray, model: CameraModel) -> None:
        """Publish the positions of an image's targets, once its depth image has arrived."""
        if not self._node.settings.depth:
            self._publish(tracks, model, None)
            return
        with self._lock:
            self._waiting.append((tracks, model))
        self._match()

    def forget(self) -> None:
        """Forget what waits for its depth image, and the depth images."""
        with self._lock:
            self._waiting.clear()
            self._depths.clear()

    def _on_depth(self, message: Image) -> None:
        with self._lock:
            if self._depths and stamp_of(message) < stamp_of(self._depths[-1]):
                self._depths.clear()  # stamps went back
            self._depths.append(message)
        self._match()

    def _match(self) -> None:
        """Publish the waiting tracks for which the nearest depth image is known."""
        slop = self._node.settings.depth_slop * 1e9
        while True:
            with self._lock:
                if not self._waiting:
                    return
                tracks, model = self._waiting[0]
                stamp = stamp_of(tracks)
                newest = stamp_of(self._depths[-1]) if self._depths else 0
                if newest < stamp and len(self._waiting) < _WAITING:
                    return  # its depth image may still come
                self._waiting.popleft()
                near = {abs(stamp_of(each) - stamp): each for each in self._depths}
            nearest = near[min(near)] if near and min(near) <= slop else None
            if nearest is None:
                self._complaints.say(
                    f"no depth image within depth_slop ({self._node.settings.depth_slop:g} s)"
                )
            self._publish(tracks, model, nearest)

    def _publish(self, tracks: TrackArray, model: CameraModel, message: Image | None) -> None:
        size = (tracks.image_width, tracks.image_height)
        image = None
        if message is not None:
            try:
                image = depth_image(message)
            except ImageError as error:
                self._complaints.say(f"the depth image cannot be used: {error}")
        if image is not None:
            (height, width), stretch = image[0].shape, size[0] / size[1]
            if abs(width / height / stretch - 1) > MOST_STRETCH:
                self._complaints.say(
                    f"depth images are {width} by {height}, images {size[0]} by {size[1]}"
                )
                image = None
        found = [
            each
            for track in tracks.tracks
            if track.bearing and (each := self._detection(track, model, size, image)) is not None
        ]
        for each in found:
            each.header = tracks.header
        if not found:
            return
        self._publisher.publish(Detection3DArray(header=tracks.header, detections=found))
        if self._frames is not None:
            self._frames.publish(TFMessage(transforms=[_transform(each) for each in found]))

    def _detection(
        self,
        track: Track,
        model: CameraModel,
        size: tuple[int, int],
        image: tuple[NDArray[Any], float] | None,
    ) -> Detection3D | None:
        box = bbox_to_box(track.bbox)
        middle, left, right, top, foot = model.middle_rays(box)
        angles = track.bearing[0].covariance
        depth = None
        if image is not None:
            pixels, unit = image
            scale = np.tile(np.array(pixels.shape[1::-1]) / size, 2)
            x, y, w, h = (scale * box).tolist()
            depth = target_depth(pixels, (x, y, w, h), unit)
        if depth is None:
            depth = self._inferred(float(foot[1] - top[1]), foot, float(np.sqrt(angles[3])))
        if depth is None:
            return None
        z = depth.distance
        message = Detection3D(id=track.id)
        center = message.bbox.center
        (center.position.x, center.position.y), center.position.z = (z * middle).tolist(), z
        center.orientation.w = 1.0
        message.bbox.size.x = float(z * (right[0] - left[0]))
        message.bbox.size.y = float(z * (foot[1] - top[1]))
        message.bbox.size.z = depth.extent
        result = hypothesis(track.class_id, track.score)
        result.pose.pose = center
        covariance = np.diag((angles[0] * z**2, angles[3] * z**2, depth.deviation**2, 0, 0, 0))
        result.pose.covariance = covariance.astype(float).ravel()
        message.results = [result]
        return message

    def _inferred(self, slope: float, foot: NDArray[Any], deviation: float) -> Depth | None:
        """The distance from the target's height, or from the ground below it.

        `slope` is the difference in y of the rays through the box's lower and upper side, `foot`
        (2,) the ray through its lower side, `deviation` that of the elevation in radians.
        """
        if self._node.settings.target_height and slope > 0:
            z = self._node.settings.target_height / slope
            return Depth(z, z * deviation / slope, 0.0)
        plane = numbers("ground_plane", self._node.settings.ground_plane, 4)
        if not plane:
            return None
        normal, distance = np.array(plane[:3]), plane[3] / float(np.linalg.norm(plane[:3]))
        below = float(normal @ (*foot, 1.0)) / float(np.linalg.norm(normal))
        if below * distance <= 1e-6 * abs(distance):
            return None  # at or above the horizon
        z = distance / below
        return Depth(z, z * deviation / abs(below), 0.0)


def _transform(detection: Detection3D) -> TransformStamped:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", detection.id)
    message = TransformStamped(header=detection.header, child_frame_id=f"target_{name}")
    position, translation = detection.bbox.center.position, message.transform.translation
    translation.x, translation.y, translation.z = position.x, position.y, position.z
    message.transform.rotation.w = 1.0
    return message
