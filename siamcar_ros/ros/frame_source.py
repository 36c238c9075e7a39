"""The executable `frame_source`: publishes the frames of a film, a folder, a camera or a stream.

    ros2 run siamcar_ros frame_source --ros-args -p source:=film.mp4 -r image:=/camera/image_raw

With `init` it also starts a tracker node on a target in the first frame. It publishes that frame
once the tracker is active, and the others once the target is tracked.

Publishes `image` and/or `image/compressed`, `camera_info`, and `ground_truth`
(vision_msgs/Detection2D) if the source is annotated; all have the same header. A frame without the
target has a ground truth without area. The node ends with the source unless `loop` is set. Cameras
and streams are read at full speed: the newest image is published, stamped when it was read. One
that breaks off is opened again.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, cycle, islice
from typing import Any, NamedTuple

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D

from siamcar_ros.data.film import CLIP, Source, SourceError, open_source
from siamcar_ros.geometry import Box, parse_box
from siamcar_ros.geometry import Image as Pixels
from siamcar_ros.ros.command_line import declare_read_only, run_node, spin_until_interrupted
from siamcar_ros.ros.image_subscription import RELIABILITY
from siamcar_ros.ros.messages import box_to_bbox, hypothesis, image_message, pinhole_info
from siamcar_ros.ros.starter import Starter
from siamcar_ros.tracking.selection import choose_box

# Seconds between discovering a subscriber and the first frame: it must discover this node, too.
_SETTLE = 0.5
# Seconds that a camera is given to finish its current image when the node ends.
_LAST_IMAGE = 1.0


class Frame(NamedTuple):
    """A frame as it will be published; its stamp is set last."""

    first: bool  # a pass over the source begins with it
    header: Header  # shared by all its messages
    messages: list[tuple[Any, Any]]  # with the publishers that they are for


class FrameSource(Node):
    """Publishes the frames of one source.

    Attributes:
        ended: there are no more frames.
        failure: the exception that ended a camera.
    """

    def __init__(self) -> None:
        super().__init__("frame_source")

        parameter = partial(declare_read_only, self)
        name = parameter(
            "source",
            CLIP,
            "Video file, sequence folder, camera number or device, URL of a stream (rtsp, http), "
            "or clip: the film that ships.",
            any_type=True,  # a camera's number is an integer to the command line
        )
        rate = parameter(
            "rate", 0.0, "Frames per second; 0 is the source's rate.", range=(0.0, 1000.0)
        )
        self._loop = parameter("loop", False, "Start again at the end.")
        transport = parameter(
            "image_transport",
            "raw",
            "raw, compressed or both.",
            choices=("raw", "compressed", "both"),
        )
        reliability = parameter(
            "qos_reliability", "reliable", "reliable or best_effort.", choices=tuple(RELIABILITY)
        )
        self._frame_id = parameter("frame_id", "camera", "frame_id of the headers.")
        self._waiting = parameter(
            "wait_for_subscriber", False, "Publish nothing until someone subscribes to the image."
        )
        self._hold = parameter(
            "first_frame_hold",
            0.0,
            "Minimum time between the first and the second frame in seconds.",
            range=(0.0, 60.0),
        )
        init = parameter(
            "init",
            "",
            "Target in the first frame to start the tracker on: x,y,w,h in pixels, ground_truth, "
            "draw (in a window), or auto: the ground truth if there is one; empty starts nothing.",
        )
        tracker = parameter("tracker", "tracker", "Name of the tracker node that init starts.")
        self._reconnect = parameter(
            "reconnect",
            2.0,
            "Seconds after which a camera or stream that broke off is opened again; 0: never.",
            range=(0.0, 3600.0),
        )
        size = parameter("size", "", "Scale frames to WIDTHxHEIGHT; empty is the source's size.")
        preload = parameter(
            "preload",
            0,
            "Read this many frames at the start and play them forwards and backwards without end, "
            "so that reading takes no time; 0 reads as it plays.",
            range=(0, 100_000),
        )
        focal = parameter(
            "focal",
            0.0,
            "Focal length for camera_info in pixels; 0 is the source's, or uncalibrated.",
            range=(0.0, 1e6),
        )
        self._quality = parameter(
            "jpeg_quality", 90, "Of compressed images, 0 to 100.", range=(0, 100)
        )
        self._size = _parse_size(size)
        self.source: Source = open_source(str(name))
        self._focal = focal or self.source.focal or 0.0
        if preload and self.source.live:
            raise SourceError("preload needs a source with an end, not a camera")

        qos = QoSProfile(depth=5, reliability=RELIABILITY[reliability])
        topic = self.resolve_topic_name("image")
        # the forms in which an image is published
        self._forms: list[tuple[Publisher, Callable[[Header, Pixels], Any]]] = []
        if transport != "compressed":
            self._forms.append((self.create_publisher(Image, "image", qos), image_message))
        if transport != "raw":
            publisher = self.create_publisher(CompressedImage, f"{topic}/compressed", qos)
            self._forms.append((publisher, self._jpeg))
        # kept for late subscribers that ask for it, so that they miss no frame
        kept = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._info = self.create_publisher(CameraInfo, "camera_info", kept)
        self._truth = None
        if self.source.boxes is not None:
            self._truth = self.create_publisher(Detection2D, "ground_truth", kept)

        self.ended = False
        self.failure: Exception | None = None
        self._count = 0
        self._settled_at = self._held_until = 0.0
        self._rate = rate
        self._images = self.source.images()
        image = next(self._images, None)
        if image is None:
            raise SourceError(f"{self.source.name} has no frames")
        target = self._target(init, image)
        # a camera's first image only shows that it works, unless a box was drawn on it
        self._drawn = init == "draw"
        if not self.source.live or self._drawn:
            self._images = chain([image], self._images)
        self._preloads = preload > 0
        self._frames = self._read()
        if preload:
            frames = list(islice(self._frames, preload))
            self._frames = cycle(frames + frames[-2:0:-1])
        self._next = None if self.source.live else next(self._frames)
        pace = f"{rate or self.source.rate:g} Hz"
        if self.source.live and not rate:
            pace = "its own rate"
        count = self.source.length or "unknown number of"
        self.get_logger().info(f"{self.source.name}: {count} frames at {pace} on {topic}")
        self._starter = None
        if target is not None:
            self._waiting = True  # for the tracker's subscription: it must not miss the first frame
            name = self.resolve_topic_name(tracker)
            self._starter = Starter(name, target, self.get_logger())
        self._camera: threading.Thread | None = None
        if self.source.live:
            self._camera = threading.Thread(target=self._film, name="camera", daemon=True)
            self._camera.start()
        else:
            self.create_timer(1 / (rate or self.source.rate), self._tick)

    def _read(self) -> Iterator[Frame]:
        """Read the source, again and again with `loop`."""
        while True:
            for index, image in enumerate(self._images):
                yield self._prepared(image, index + len(self.source.skipped), first=index == 0)
            if not self._loop:
                return
            self._images = self.source.images()

    def _target(self, init: str, image: Pixels) -> Box | None:
        """The box in the first frame that the parameter `init` names."""
        image, true = self._scaled(image, len(self.source.skipped))
        name = self.source.name
        if init == "auto" and true is None:
            self.get_logger().info(
                f"{name} has no ground truth: no target is tracked until init_target is called; "
                "init:=x,y,w,h or init:=draw starts one on the first frame"
            )
        if init == "ground_truth" and true is None:
            raise SourceError(f"{name} has no true box in its first frame: give init:=x,y,w,h")
        if init in ("", "auto", "ground_truth"):
            return true if init else None
        return choose_box(image, name, "init:=x,y,w,h") if init == "draw" else parse_box(init)

    def _prepared(self, image: Pixels, row: int, *, first: bool) -> Frame:
        """The messages of a frame, its image in the forms that have subscribers.

        A frame that is prepared long before it is published is made in all forms: its receivers may
        not have subscribed yet.
        """
        image, box = self._scaled(image, row)
        height, width = image.shape[:2]
        frame = Frame(first, Header(frame_id=self._frame_id), [])
        header, messages = frame.header, frame.messages
        early = self._preloads or (first and not self.source.live)
        for publisher, make in self._forms:
            if early or publisher.get_subscription_count():
                messages.append((publisher, make(header, image)))
        messages.append((self._info, pinhole_info(header, (width, height), self._focal)))
        if self._truth is not None:
            truth = Detection2D(header=header, id="ground_truth")
            if box is not None:
                truth.bbox, truth.results = box_to_bbox(box), [hypothesis("", 1.0)]
            messages.append((self._truth, truth))
        return frame

    def _jpeg(self, header: Header, image: Pixels) -> CompressedImage:
        stream = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self._quality])[1]
        message = CompressedImage(header=header, format="bgr8; jpeg compressed bgr8")
        message.data.frombytes(stream.data.cast("B"))
        return message

    def _scaled(self, image: Pixels, row: int) -> tuple[Pixels, Box | None]:
        """The image and its true box, in row `row`, at the size at which they are published."""
        box, scale = None, np.ones(2)
        if self._size is not None:
            scale = np.array(self._size) / image.shape[1::-1]
            image = np.asarray(cv2.resize(image, self._size), np.uint8)
        boxes = self.source.boxes
        if boxes is not None and np.isfinite(boxes[row]).all():
            x, y, w, h = (boxes[row] * np.tile(scale, 2)).tolist()
            box = (x, y, w, h)
        return image, box

    def _may_begin(self) -> bool:
        """Whether the tracker is ready and, where one is waited for, a subscriber has settled."""
        if self._starter is not None and self._starter.busy:
            return False
        if self._waiting:
            if not any(publisher.get_subscription_count() for publisher, _ in self._forms):
                self._settled_at = 0.0
                return False
            self._settled_at = self._settled_at or time.monotonic() + _SETTLE
            self._waiting = time.monotonic() < self._settled_at
        return not self._waiting

    def _film(self) -> None:
        """Read a camera, in a thread of its own, and publish the images that are due."""
        period = 1 / self._rate if self._rate else 0.0
        due, broken = 0.0, False
        while self.failure is None:
            try:
                for image in self._images:
                    while self._drawn and not (self.ended or self._count or self._may_begin()):
                        time.sleep(0.05)
                    stamp, now = self.get_clock().now(), time.monotonic()
                    if self.ended:
                        return
                    if broken:
                        self.get_logger().info(f"{self.source.name} is back")
                        broken = False
                    if now < due or not self._may_begin():
                        continue
                    due = max(due + period, now) if self._count else now + max(period, self._hold)
                    self._publish(self._prepared(image, 0, first=not self._count), stamp)
                break
            except SourceError as error:
                if not self._reconnect:
                    self.failure = error
                    continue
                if not broken:
                    self.get_logger().warning(f"{error}: trying again every {self._reconnect:g} s")
                broken = True
                time.sleep(self._reconnect)
                self._images = self.source.images()
            except Exception as error:
                self.failure = error
        self.ended = True

    def _tick(self) -> None:
        if self.ended or time.monotonic() < self._held_until or not self._may_begin():
            return
        if self._next is None:
            self.get_logger().info(f"{self._count} frames published: the source has ended")
            self.ended = True
            return
        if self._count == 0:
            self._held_until = time.monotonic() + self._hold
        self._publish(self._next, self.get_clock().now())
        # the next frame is read now, so that it goes out without delay when its time comes
        self._next = next(self._frames, None)

    def _publish(self, frame: Frame, stamp: Time) -> None:
        frame.header.stamp = stamp.to_msg()
        for publisher, message in frame.messages:
            publisher.publish(message)
        self._count += 1
        if frame.first and self._starter is not None:
            self._starter.start(frame.header)

    def close(self) -> None:
        """Destroy the node."""
        self.ended = True
        if self._camera is not None:
            self._camera.join(_LAST_IMAGE)
        if self._starter is not None:
            self._starter.close()
        self.destroy_node()


def _parse_size(text: str) -> tuple[int, int] | None:
    """Read WIDTHxHEIGHT; None if it is empty."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if text and not found:
        raise SourceError(f"size is WIDTHxHEIGHT in pixels, such as 640x480, not {text!r}")
    return (int(found[1]), int(found[2])) if found else None


def _run() -> None:
    node = FrameSource()
    try:
        spin_until_interrupted(node, lambda: node.ended)
        if node.failure is not None:
            raise node.failure
    finally:
        node.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the node until its source ends or it is interrupted; return 1 if the source fails."""
    return run_node("frame_source", __doc__ or "", _run, arguments, own_signals=True)


if __name__ == "__main__":
    sys.exit(main())
