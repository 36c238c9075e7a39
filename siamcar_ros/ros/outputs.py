"""The node's publishers, and what is published for one frame."""

from __future__ import annotations

import time
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2D, Detection2DArray
from visualization_msgs.msg import MarkerArray

from siamcar_ros.data.image_messages import ImageError
from siamcar_ros.msg import TrackStatus
from siamcar_ros.ros import messages
from siamcar_ros.ros.diagnostics import Counters
from siamcar_ros.ros.loading import LoadedTracker
from siamcar_ros.ros.markers import CameraModelError, corner_rays, frusta, frustum
from siamcar_ros.ros.parameters import NodeSettings
from siamcar_ros.ros.worker import Tracked
from siamcar_ros.tracking.overlay import draw_overlay

_LOG_PERIOD = 10.0


class Outputs:
    """Publishes a frame's results: detections first, overlay and markers only if subscribed to.

    Args:
        node: to create publishers on; they publish nothing while it is not active.
        settings: the node's parameters.
        counters: are published with each status.
        loaded: what runs the network.

    Attributes:
        settings: may be replaced at any time.
        camera_info: the newest; markers need it.
    """

    def __init__(
        self,
        node: LifecycleNode,
        settings: NodeSettings,
        counters: Counters,
        loaded: LoadedTracker,
    ) -> None:
        self.settings = settings
        self.camera_info: CameraInfo | None = None
        self._node, self._counters, self._loaded = node, counters, loaded
        self._drawn_at = 0.0
        self._marked = self._detected = False
        create, depth = node.create_lifecycle_publisher, QoSProfile(depth=10)
        self._detection = create(Detection2D, "~/detection", depth)
        self._detections = create(Detection2DArray, "~/detections", depth)
        self._status = create(TrackStatus, "~/status", depth)
        self._markers = create(MarkerArray, "~/markers", depth)
        self._debug = create(Image, "~/debug_image", QoSProfile(depth=1))

    def destroy(self) -> None:
        """Remove the publishers."""
        for each in (self._detection, self._detections, self._status, self._markers, self._debug):
            self._node.destroy_lifecycle_publisher(each)

    def publish(self, tracked: Tracked) -> None:
        """Publish the results of one frame."""
        header = tracked.frame.header
        total = 0.0
        if tracked.results:
            detections = [
                messages.detection(header, target, result, self.settings.class_id)
                for target, result in tracked.results.items()
            ]
            self._detection.publish(detections[0])
            total = time.perf_counter() - tracked.frame.received
            self._detections.publish(messages.detection_array(header, detections))
            for target, result in tracked.results.items():
                status = messages.status(header, target, result, tracked.stages, total)
                self._publish_status(status)
        elif self._detected:  # the last targets have ended
            self._detections.publish(messages.detection_array(header, []))
        self._detected = bool(tracked.results)
        if self._markers.get_subscription_count():
            self._publish_markers(tracked)
        if self._debug.get_subscription_count():
            self._publish_overlay(tracked, total)

    def publish_idle(self, header: Any) -> None:
        """Publish that nothing is tracked, with the header of the newest image."""
        self._publish_status(TrackStatus(header=header, state=TrackStatus.IDLE))

    def _publish_status(self, status: TrackStatus) -> None:
        self._status.publish(self._loaded.fill(self._counters.fill(status)))

    def _publish_markers(self, tracked: Tracked) -> None:
        header, settings = tracked.frame.header, self.settings
        if not tracked.results:
            if self._marked:
                self._markers.publish(frusta([], header))
                self._marked = False
            return
        if self.camera_info is None or tracked.image is None:
            return
        size = (tracked.image.shape[1], tracked.image.shape[0])
        shown = []
        try:
            if self.camera_info.header.frame_id != header.frame_id:
                raise CameraModelError(
                    f"camera_info has frame_id {self.camera_info.header.frame_id[:256]!r}, the "
                    f"images have {header.frame_id[:256]!r}"
                )
            for index, result in enumerate(tracked.results.values()):
                rays = corner_rays(
                    self.camera_info, result.box, size, rectified=settings.image_rectified
                )
                shown.append(frustum(header, index, rays, settings.marker_depth, result))
        except CameraModelError as error:
            self._node.get_logger().warning(
                f"no markers: {error}", throttle_duration_sec=_LOG_PERIOD
            )
            return
        self._markers.publish(frusta(shown, header))
        self._marked = True

    def _publish_overlay(self, tracked: Tracked, total: float) -> None:
        now, settings = time.perf_counter(), self.settings
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
        height, width = drawn.shape[:2]
        message = Image(
            header=tracked.frame.header, height=height, width=width, encoding="bgr8", step=3 * width
        )
        message.data.frombytes(drawn.data.cast("B"))
        self._debug.publish(message)
