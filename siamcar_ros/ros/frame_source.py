"""A node that publishes the frames of a video, a sequence folder, a camera or the rendered clip.

    ros2 run siamcar_ros frame_source --ros-args -p source:=film.mp4 -r image:=/camera/image_raw

Publishes `image` (and, or, `image/compressed`), `camera_info`, and `ground_truth`
(vision_msgs/Detection2D) where the target's box is known; all carry the same header. It ends with
the source, unless `loop` is set. A camera is read as fast as it films, so that what is published is
its newest image; the stamp is then the time of reading.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose

from siamcar_ros.demo.scene import Image as Pixels
from siamcar_ros.demo.sources import Source, SourceError, open_source
from siamcar_ros.ros.command_line import initialise

_TRANSPORTS = ("raw", "compressed", "both")
_RELIABILITIES = {
    "reliable": ReliabilityPolicy.RELIABLE,
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
}
# Seconds between a subscriber's first sight and the first frame: it, too, has to find us.
_SETTLE = 0.5
# Seconds that a camera is given for the image that it is at when the node ends.
_LAST_IMAGE = 1.0


class FrameSource(Node):
    """Publishes one source's frames at a rate; `ended` when there are no more.

    Attributes:
        failure: what ended a camera.
    """

    def __init__(self) -> None:
        super().__init__("frame_source")
        name = self._parameter(
            "source",
            "clip",
            "Video file, sequence folder, camera number or device, or clip[:SEED]",
            any_type=True,  # a camera's number is an integer to the command line
        )
        rate = self._parameter("rate", 0.0, "Frames a second; 0 takes the source's own.", 1000.0)
        self._loop = self._parameter("loop", False, "Start again at the end.")
        transport = self._parameter("image_transport", "raw", "raw, compressed or both.")
        reliability = self._parameter("qos_reliability", "reliable", "reliable or best_effort.")
        self._frame_id = self._parameter("frame_id", "camera", "frame_id of the headers.")
        self._waiting = self._parameter(
            "wait_for_subscriber", False, "Publish nothing until someone subscribes to the image."
        )
        self._hold = self._parameter(
            "first_frame_hold", 0.0, "Seconds from the first frame to the second, at least.", 60.0
        )
        focal = self._parameter(
            "focal", 0.0, "Focal length in pixels for camera_info; 0 is the source's own.", 1e6
        )
        self._quality = self._parameter("jpeg_quality", 90, "Of compressed images, 1 to 100.")
        log = self._parameter("frame_log", "", "CSV file to write at the end: index, stamp in ns.")
        if transport not in _TRANSPORTS:
            raise SourceError(f"image_transport is one of {', '.join(_TRANSPORTS)}: {transport!r}")
        if reliability not in _RELIABILITIES:
            raise SourceError(
                f"qos_reliability is one of {', '.join(_RELIABILITIES)}: {reliability!r}"
            )

        self.source: Source = open_source(str(name))
        self._focal = focal or self.source.focal or 0.0
        self._log_path = Path(log) if log else None
        if self._log_path is not None:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            self._log_path.open("a").close()  # refused now, not at the end
        self._log: list[str] = []
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=5,
            reliability=_RELIABILITIES[reliability],
            durability=DurabilityPolicy.VOLATILE,
        )
        self._raw = self._compressed = None
        if transport != "compressed":
            self._raw = self.create_publisher(Image, "image", qos)
        if transport != "raw":
            # as image_transport has it: a remapping of the base topic moves this one along
            base = self.resolve_topic_name("image")
            self._compressed = self.create_publisher(CompressedImage, f"{base}/compressed", qos)
        # kept for late joiners that ask for it: who wants every header misses none
        kept = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._info = self.create_publisher(CameraInfo, "camera_info", kept)
        self._truth = None
        if self.source.boxes is not None:
            self._truth = self.create_publisher(Detection2D, "ground_truth", 50)

        self.ended = False
        self.failure: Exception | None = None
        self._count = 0
        self._images: Iterator[Pixels] = self.source.images()
        self._next: Pixels | None = next(self._images, None)
        if self._next is None:
            raise SourceError(f"{self.source.name} has no frames")
        self._settled_at = self._held_until = 0.0
        self._rate = rate
        self._camera: threading.Thread | None = None
        height, width = self._next.shape[:2]
        pace = (
            f"{rate or self.source.rate:g} Hz" if rate or not self.source.live else "its own rate"
        )
        self.get_logger().info(
            f"{self.source.name}: {self.source.length or 'unknown number of'} frames, "
            f"{width}x{height} at {pace} on {self.resolve_topic_name('image')}"
        )
        if self.source.live:
            self._camera = threading.Thread(target=self._film, name="camera", daemon=True)
            self._camera.start()
        else:
            self.create_timer(1 / (rate or self.source.rate), self._tick)

    def _parameter(
        self,
        name: str,
        default: Any,
        text: str,
        most: float | None = None,
        *,
        any_type: bool = False,
    ) -> Any:
        described = ParameterDescriptor(description=text, read_only=True, dynamic_typing=any_type)
        if most is not None:
            limits = FloatingPointRange(from_value=0.0, to_value=most)
            described.floating_point_range = [limits]
        return self.declare_parameter(name, default, described).value

    def _subscribed(self) -> bool:
        """Whether someone has listened to the image for a moment."""
        publishers = [each for each in (self._raw, self._compressed) if each is not None]
        if not any(each.get_subscription_count() for each in publishers):
            self._settled_at = 0.0
            return False
        self._settled_at = self._settled_at or time.monotonic() + _SETTLE
        return time.monotonic() >= self._settled_at

    def _may_begin(self) -> bool:
        self._waiting = self._waiting and not self._subscribed()
        return not self._waiting

    def _film(self) -> None:
        """Read a camera to its end, in a thread of its own, and publish what is due."""
        period = 1 / self._rate if self._rate else 0.0
        due = 0.0
        try:
            for image in self._images:
                stamp, now = self.get_clock().now(), time.monotonic()
                if self.ended:
                    return
                if now < due or not self._may_begin():
                    continue
                due = max(due + period, now) if self._count else now + max(period, self._hold)
                self._publish(image, stamp)
        except Exception as error:
            self.failure = error
        self.ended = True

    def _tick(self) -> None:
        if self.ended or not self._may_begin():
            return
        if self._count == 0:
            self._held_until = time.monotonic() + self._hold
        elif time.monotonic() < self._held_until:
            return
        image = self._next
        if image is None:
            if not self._loop:
                self.get_logger().info(f"{self._count} frames published: the source has ended")
                self.ended = True
                return
            self._images = self.source.images()
            image = next(self._images)
        self._publish(image)
        # the next frame is read now, so that it goes out without delay when its time comes
        self._next = next(self._images, None)

    def _publish(self, image: Pixels, stamp: Time | None = None) -> None:
        """stamp: of a live image; others are stamped as they go out."""
        header = Header(frame_id=self._frame_id)
        height, width = image.shape[:2]
        raw = packed = None
        if self._raw is not None:
            raw = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
            raw.data.frombytes(np.ascontiguousarray(image).data.cast("B"))
        if self._compressed is not None and self._compressed.get_subscription_count():
            quality = [cv2.IMWRITE_JPEG_QUALITY, self._quality]
            packed = CompressedImage(header=header, format="bgr8; jpeg compressed bgr8")
            packed.data.frombytes(cv2.imencode(".jpg", image, quality)[1].data.cast("B"))
        # last before publishing, and in all messages: they refer to this one header
        stamp = stamp or self.get_clock().now()
        header.stamp = stamp.to_msg()
        if raw is not None and self._raw is not None:
            self._raw.publish(raw)
        if packed is not None and self._compressed is not None:
            self._compressed.publish(packed)
        self._info.publish(self._camera_info(header, width, height))
        index = self._count % self.source.length if self.source.length else self._count
        if self._truth is not None and self.source.boxes is not None:
            x, y, w, h = self.source.boxes[index].tolist()
            if np.isfinite((x, y, w, h)).all():
                truth = Detection2D(header=header, id="ground_truth")
                truth.bbox.center.position.x, truth.bbox.center.position.y = x + w / 2, y + h / 2
                truth.bbox.size_x, truth.bbox.size_y = w, h
                hypothesis = ObjectHypothesisWithPose()
                hypothesis.hypothesis.score = 1.0
                truth.results = [hypothesis]
                self._truth.publish(truth)
        if self._log_path is not None:
            self._log.append(f"{index},{stamp.nanoseconds}\n")
        self._count += 1

    def _camera_info(self, header: Header, width: int, height: int) -> CameraInfo:
        """A lens without distortion; with an unknown focal length K is zero: uncalibrated."""
        info = CameraInfo(header=header, width=width, height=height, distortion_model="plumb_bob")
        info.d = [0.0] * 5
        if self._focal:
            f, cx, cy = self._focal, width / 2, height / 2
            info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
            info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
            info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info

    def close(self) -> None:
        """Write the frame log and take the node down."""
        self.ended = True
        if self._camera is not None:
            self._camera.join(_LAST_IMAGE)
        if self._log_path is not None:
            self._log_path.write_text("".join(self._log))
        self.destroy_node()


def _on_signal(action: Callable[[], object]) -> None:
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: action())


def main(arguments: list[str] | None = None) -> int:
    """Run the node until its source ends or it is interrupted; 1 where the source fails."""
    # to open a source, or to render it, takes seconds: until then a signal ends the process at once
    _on_signal(lambda: sys.exit(0))
    # rclpy's own handlers would take the context away in the middle of a publication
    status = initialise(__doc__ or "", arguments, signal_handler_options=SignalHandlerOptions.NO)
    if status is not None:
        return status
    node: FrameSource | None = None
    try:
        node = FrameSource()
        interrupted = threading.Event()
        _on_signal(interrupted.set)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not (node.ended or interrupted.is_set()):
            executor.spin_once(timeout_sec=0.2)
        if node.failure is not None:
            raise node.failure
    except (SourceError, OSError, ParameterException) as error:
        rclpy.logging.get_logger("frame_source").fatal(str(error))
        return 1
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
