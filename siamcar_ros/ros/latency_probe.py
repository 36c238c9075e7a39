"""A camera and a listener for `siamcar bench node`: how old an image is when its detection arrives.

    python -m siamcar_ros.ros.latency_probe /tracker '[{"width": 640, "height": 480,
        "transport": "raw", "rate": 30.0, "seconds": 5.0}]'

Shows a tracker node, which runs in another process, a moving square at each size and rate asked
for, and prints a JSON object a line with what came back.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from siamcar_ros.msg import TrackStatus
from siamcar_ros.ros.client import Detection, TargetRefused, TrackerClient
from siamcar_ros.ros.frame import stamp_ns

_SIDE = 64  # of the square, pixels
_SCENES = 16
_TIMEOUT = 60.0
_DRAIN = 1.0  # seconds for what is under way at the end


@dataclass(frozen=True)
class Showing:
    """What to show.

    Attributes:
        width, height: pixels.
        transport: "raw" (bgr8) or "compressed" (JPEG).
        rate: images a second.
        seconds: how long.
    """

    width: int
    height: int
    transport: str
    rate: float
    seconds: float


@dataclass(frozen=True)
class Heard:
    """What came of it; times in seconds.

    Attributes:
        shown: images published.
        latency: from before an image's publication to its detection's arrival, for each detection.
        node: from the node's callback to the publication of the detection, as it reports.
        overhead: `node` without the tracker's own time (crop, network, decode).
        waiting: the part of it from the callback to the worker.
    """

    shown: int
    latency: list[float]
    node: list[float]
    overhead: list[float]
    waiting: list[float]


class LatencyProbe:
    """Publishes to one tracker node and listens to it."""

    def __init__(self, tracker: str) -> None:
        self._latency: list[float] = []
        self._statuses: list[TrackStatus] = []
        self._client = TrackerClient(tracker, on_detection=self._on_detection)
        self._client.node.create_subscription(
            TrackStatus, f"{tracker}/status", self._on_status, 100
        )
        namespace = tracker.rpartition("/")[0]
        self._publishers = {
            "raw": self._client.node.create_publisher(
                Image, f"{namespace}/image", QoSProfile(depth=1)
            ),
            "compressed": self._client.node.create_publisher(
                CompressedImage, f"{namespace}/image/compressed", QoSProfile(depth=1)
            ),
        }

    def close(self) -> None:
        """Leave the graph."""
        self._client.close()

    def show(self, showing: Showing) -> Heard:
        """Show images for a while; the first ones, until the tracker runs, do not count."""
        self._client.wait_until_active(_TIMEOUT)
        publisher = self._publishers[showing.transport]
        deadline = time.monotonic() + _TIMEOUT
        while not publisher.get_subscription_count():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody subscribes to {publisher.topic_name}")
            time.sleep(0.05)
        messages = [_message(scene, showing.transport) for scene in _scenes(showing)]
        self._start(showing, publisher, messages[0])
        self._film(showing, publisher, messages, 0.5)
        time.sleep(_DRAIN)
        self._latency, self._statuses = [], []
        shown = self._film(showing, publisher, messages, showing.seconds)
        time.sleep(_DRAIN)
        heard = Heard(
            shown=shown,
            latency=self._latency,
            node=[each.total_latency for each in self._statuses],
            overhead=[
                each.total_latency - each.crop_latency - each.network_latency - each.decode_latency
                for each in self._statuses
            ],
            waiting=[each.wait_latency for each in self._statuses],
        )
        self._client.stop_tracking()
        return heard

    def _start(self, showing: Showing, publisher: Any, message: Any) -> None:
        """Show one image until the node has it, and start on its square."""
        box = (*_corner(showing, 0), float(_SIDE), float(_SIDE))
        deadline = time.monotonic() + _TIMEOUT
        while True:
            _stamp(message)
            publisher.publish(message)
            time.sleep(0.2)
            try:
                self._client.init_target(box, message.header)
                return
            except TargetRefused:
                if time.monotonic() > deadline:
                    raise

    def _film(self, showing: Showing, publisher: Any, messages: list[Any], seconds: float) -> int:
        """Publish at the rate; the number of images."""
        begin = time.perf_counter()
        count = 0
        while (due := begin + count / showing.rate) < begin + seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            message = messages[count % len(messages)]
            _stamp(message)
            publisher.publish(message)
            count += 1
        return count

    def _on_detection(self, detection: Detection) -> None:
        self._latency.append((detection.arrival - detection.stamp) / 1e9)

    def _on_status(self, status: TrackStatus) -> None:
        if status.state != TrackStatus.IDLE and stamp_ns(status.header.stamp):
            self._statuses.append(status)


def _corner(showing: Showing, index: int) -> tuple[float, float]:
    angle = 2 * np.pi * index / _SCENES
    return (
        float(round(showing.width / 2 - _SIDE / 2 + 12 * np.cos(angle))),
        float(round(showing.height / 2 - _SIDE / 2 + 12 * np.sin(angle))),
    )


def _scenes(showing: Showing) -> list[NDArray[np.uint8]]:
    """A textured square on its round over a smooth ground, (H, W, 3) BGR each."""
    random = np.random.default_rng(0)
    ground = cv2.resize(
        random.integers(60, 140, (12, 16, 3), dtype=np.uint8),
        (showing.width, showing.height),
        interpolation=cv2.INTER_CUBIC,
    )
    square = cv2.resize(random.integers(0, 255, (8, 8, 3), dtype=np.uint8), (_SIDE, _SIDE))
    scenes = []
    for index in range(_SCENES):
        scene = ground.copy()
        x, y = (int(value) for value in _corner(showing, index))
        scene[y : y + _SIDE, x : x + _SIDE] = square
        scenes.append(scene)
    return scenes


def _message(scene: NDArray[np.uint8], transport: str) -> Any:
    if transport == "compressed":
        message = CompressedImage(format="bgr8; jpeg compressed bgr8")
        message.data.frombytes(cv2.imencode(".jpg", scene)[1].tobytes())
    else:
        height, width = scene.shape[:2]
        message = Image(height=height, width=width, encoding="bgr8", step=3 * width)
        message.data.frombytes(scene.data.cast("B"))
    message.header.frame_id = "camera"
    return message


def _stamp(message: Any) -> None:
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 10**9)


def main(argv: list[str] | None = None) -> int:
    """Show everything asked for to one node."""
    tracker, showings = sys.argv[1:] if argv is None else argv
    probe = LatencyProbe(tracker)
    try:
        for showing in json.loads(showings):
            print(json.dumps(asdict(probe.show(Showing(**showing)))), flush=True)
    finally:
        probe.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
