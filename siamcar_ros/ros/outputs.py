"""The node's publishers, and what is published for one frame."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import Point, Vector3Stamped
from numpy.typing import NDArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA
from vision_msgs.msg import Detection2D, Detection2DArray
from visualization_msgs.msg import Marker, MarkerArray

from siamcar_ros.data.image_messages import ImageError
from siamcar_ros.data.images import image_size
from siamcar_ros.msg import TrackArray, TrackStatus
from siamcar_ros.ros import messages
from siamcar_ros.ros.complaints import Complaints
from siamcar_ros.ros.messages import OVERRIDABLE
from siamcar_ros.ros.position import Positions
from siamcar_ros.ros.rays import CameraModel, CameraModelError
from siamcar_ros.ros.targets import Target, Tracked
from siamcar_ros.runtime import Network
from siamcar_ros.tracking import TrackResult, TrackState
from siamcar_ros.tracking.annotations import image_annotations
from siamcar_ros.tracking.overlay import COLORS, draw_overlay, label
from siamcar_ros.tracking.velocity import Motion

if TYPE_CHECKING:
    from siamcar_ros.ros.node import TrackerNode

_FRUSTUM, _LABEL = "target_frustum", "target_label"
# Seconds after which RViz removes a marker that is not replaced, as when the node has ended.
_LIFETIME = 1


class Outputs:
    """Publishes a frame's results: detections first, then tracks.

    A message is built only while someone subscribes to its topic.

    Attributes:
        positions: those of the targets.
    """

    def __init__(self, node: TrackerNode, network: Network) -> None:
        self._node, self._network = node, network
        self._drawn_at = 0.0
        self._detected = False
        self._motions: dict[Target, Motion] = {}
        self._image_size = (0, 0)
        self._complaints = Complaints(node, "no bearing, no position and no markers", math.inf)
        self._publishers: list[Any] = []

        def create(kind: type, name: str, depth: int = 10) -> Any:
            publisher = node.create_lifecycle_publisher(
                kind, name, QoSProfile(depth=depth), qos_overriding_options=OVERRIDABLE
            )
            self._publishers.append(publisher)
            return publisher

        self._detection = create(Detection2D, "~/detection")
        self._detections = create(Detection2DArray, "~/detections")
        self._tracks = create(TrackArray, "~/tracks")
        self._bearing = create(Vector3Stamped, "~/bearing")
        self._status = create(TrackStatus, "~/status")
        self._markers = create(MarkerArray, "~/markers")
        self._debug = create(Image, "~/debug_image", depth=1)
        self._annotations = None
        if node.settings.annotations:
            import foxglove_msgs.msg as foxglove

            self._foxglove = foxglove
            self._annotations = create(foxglove.ImageAnnotations, "~/annotations")
        self.positions = Positions(node, create)

    def destroy(self) -> None:
        """Remove the publishers."""
        for each in self._publishers:
            self._node.destroy_lifecycle_publisher(each)

    def publish(self, tracked: Tracked, *, with_goals: bool = False) -> TrackArray | None:
        """Publish the results of one frame; return the tracks.

        None if neither a subscriber nor, `with_goals`, the feedback of the action needs them.
        """
        changed = bool(tracked.results) or self._detected  # else nothing is tracked still
        total = self._publish_detections(tracked) if changed else 0.0
        self._detected = bool(tracked.results)
        if tracked.results and _subscribed(self._status):
            self.publish_status(tracked.frame.header, tracked, total)
        if tracked.image is not None:
            self._image_size = (tracked.image.shape[1], tracked.image.shape[0])
        self._follow_motions(tracked)
        tracks = None
        if with_goals or _subscribed(self._tracks, self._bearing) or self.positions.wanted:
            tracks = self._publish_tracks(tracked)
        if changed and _subscribed(self._markers):
            self._publish_markers(tracked)
        if _subscribed(self._debug):
            self._publish_overlay(tracked, total)
        if self._annotations is not None and _subscribed(self._annotations):
            stamp = tracked.frame.header.stamp

            def make(name: str, **fields: Any) -> Any:
                return getattr(self._foxglove, name)(**fields)

            self._annotations.publish(image_annotations(make, stamp, tracked.results))
        return tracks

    def _publish_detections(self, tracked: Tracked) -> float:
        """Publish the detections; return the latency in seconds.

        That is from the frame's arrival to the publication of the oldest target's detection.
        """
        header, detections = tracked.frame.header, []
        wanted = _subscribed(self._detection, self._detections)
        if wanted:
            detections = [
                messages.detection(header, target, result, self._class_id(tracked, target))
                for target, result in tracked.results.items()
            ]
        if detections:
            self._detection.publish(detections[0])
        total = time.perf_counter() - tracked.frame.received
        if wanted:
            self._detections.publish(Detection2DArray(header=header, detections=detections))
        return total

    def publish_status(
        self, header: Any, tracked: Tracked | None = None, total: float = 0.0
    ) -> None:
        """Publish the node's status, with the header of the newest image and the results for it.

        `total` is in seconds, from the start of the image callback to the publication.
        """
        network, counters = self._network, self._node.counters
        status = TrackStatus(header=header, state=TrackStatus.IDLE, total_latency=total)
        status.network, status.backend = network.name, network.backend
        status.device = network.device
        status.frames_received = counters.received
        status.frames_tracked = counters.tracked
        status.frames_dropped = counters.dropped + counters.out_of_order
        status.frames_failed = counters.failed + counters.refused
        if tracked is not None:
            oldest = next(iter(tracked.results.values()))
            status.state = messages.STATE_NUMBERS[oldest.state]
            status.targets = len(tracked.results)
            for stage, seconds in tracked.stages.items():
                setattr(status, f"{stage}_latency", seconds)
        self._status.publish(status)

    def _class_id(self, tracked: Tracked, target: str) -> str:
        return tracked.targets[target].class_id or self._node.settings.class_id

    def _follow_motions(self, tracked: Tracked) -> None:
        """Update the velocities of the frame's targets, and drop those of all others."""
        motions = {}
        for name, result in tracked.results.items():
            target = tracked.targets[name]
            motions[target] = self._motions.get(target) or Motion(target.started)
            motions[target].add(tracked.frame.stamp, result)
        self._motions = motions

    def _publish_tracks(self, tracked: Tracked) -> TrackArray:
        frame = tracked.frame
        if tracked.image is None:
            if hasattr(frame.message, "width"):
                self._image_size = (frame.message.width, frame.message.height)
            else:  # a compressed image that nobody needed decoded
                self._image_size = image_size(bytes(frame.message.data)) or self._image_size
        width, height = self._image_size
        message = TrackArray(header=frame.header, image_width=width, image_height=height)
        model = self._camera_model(tracked) if tracked.results else None
        for target, result in tracked.results.items():
            motion = self._motions[tracked.targets[target]]
            class_id = self._class_id(tracked, target)
            track = messages.track(target, result, class_id, motion.velocity, motion.lost)
            if model is not None and result.state is not TrackState.LOST:
                try:
                    track.bearing = [model.bearing(result.box, result.score)]
                except CameraModelError as error:
                    self._complaints.say(str(error))
            message.tracks.append(track)
        self._tracks.publish(message)
        if message.tracks and message.tracks[0].bearing:
            vector = message.tracks[0].bearing[0].direction
            self._bearing.publish(Vector3Stamped(header=frame.header, vector=vector))
        if model is not None and self.positions.wanted:
            self.positions.add(message, model)
        return message

    def _camera_model(self, tracked: Tracked) -> CameraModel | None:
        """Return the model of the camera; None, which is logged, if it is unknown."""
        info, frame_id = self._node.camera_info, tracked.frame.header.frame_id
        try:
            if info is None:
                raise CameraModelError("no camera_info has arrived")
            if info.header.frame_id != frame_id:
                raise CameraModelError(
                    f"camera_info has frame_id {info.header.frame_id[:256]!r}, the images have "
                    f"{frame_id[:256]!r}"
                )
            return CameraModel(
                info, self._image_size, rectified=self._node.settings.image_rectified
            )
        except CameraModelError as error:
            self._complaints.say(str(error))
            return None

    def _publish_markers(self, tracked: Tracked) -> None:
        """Publish the markers of all targets, which replace the previous ones."""
        header, depth = tracked.frame.header, self._node.settings.marker_depth
        markers = [Marker(header=header, ns=_FRUSTUM, action=Marker.DELETEALL)]
        if tracked.results:
            model = self._camera_model(tracked)
            if model is None:
                return
            try:
                for index, (target, result) in enumerate(tracked.results.items()):
                    rays = model.corner_rays(result.box)
                    markers += _frustum(header, index, rays, depth, target, result)
            except CameraModelError as error:
                self._complaints.say(str(error))
                return
        self._markers.publish(MarkerArray(markers=markers))

    def _publish_overlay(self, tracked: Tracked, total: float) -> None:
        now, settings = time.perf_counter(), self._node.settings
        if settings.debug_rate and now - self._drawn_at < 0.9 / settings.debug_rate:
            return
        self._drawn_at = now
        try:
            image = tracked.frame.image() if tracked.image is None else tracked.image
        except ImageError:
            return  # it was logged when the encoding was first seen
        caption = f"{1000 * total:.1f} ms" if tracked.results else "no target"
        drawn = draw_overlay(
            image.bgr(), tracked.results, scale=settings.debug_scale, caption=caption
        )
        self._debug.publish(messages.image_message(tracked.frame.header, drawn))


def _subscribed(*publishers: Any) -> bool:
    return any(each.get_subscription_count() for each in publishers)


def _frustum(
    header: Any,
    index: int,
    rays: NDArray[np.float64],
    depth: float,
    target: str,
    result: TrackResult,
) -> list[Marker]:
    """Return the markers of one target, colored by its state: pyramid, and label at its far end.

    `index` tells the targets apart, `rays` are the four through the box's corners, `depth` is that
    of the pyramid in meters.
    """
    marker, text = (
        Marker(header=header, ns=namespace, id=index, type=kind, action=Marker.ADD)
        for namespace, kind in ((_FRUSTUM, Marker.LINE_LIST), (_LABEL, Marker.TEXT_VIEW_FACING))
    )
    blue, green, red = (channel / 255 for channel in COLORS[result.state])
    for each in (marker, text):
        each.lifetime.sec = _LIFETIME
        each.pose.orientation.w = 1.0
        each.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
    marker.scale.x = 0.004 * depth
    text.scale.z = 0.05 * depth
    text.text = label(target, result)
    x, y = rays.min(0).tolist()
    text.pose.position = Point(x=depth * x, y=depth * y - text.scale.z, z=depth)
    apex = Point()
    corners = [Point(x=depth * x, y=depth * y, z=depth) for x, y in rays.tolist()]
    for corner, following in zip(corners, corners[1:] + corners[:1], strict=True):
        marker.points += [apex, corner, corner, following]
    return [marker, text]
