"""Turns the camera's messages into frames in the order of their stamps."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from siamcar_ros.data.image_messages import ImageDecoder, ImageError
from siamcar_ros.data.video_messages import VideoDecoder
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.image_subscription import VIDEO, ImageSubscription
from siamcar_ros.ros.stamps import StampFilter
from siamcar_ros.ros.worker import TrackWorker

if TYPE_CHECKING:
    from siamcar_ros.ros.node import TrackerNode

_MEGA = 1_000_000
# Seconds between log lines about the same problem.
_LOG_PERIOD = 5.0
# Seconds that a callback sleeps to let the worker run.
_HAND_OVER = 0.00005


class ImageInput(ImageSubscription):
    """Subscribes to the camera, keeps usable images in the ring, and gives the worker the newest.

    It writes the counters `received`, `refused`, `out_of_order`, `dropped` and `trouble`. When
    stamps go back, it has the node forget all images and end all tracks.

    Attributes:
        last_arrival: `time.perf_counter()` when the last image arrived.
    """

    def __init__(self, node: TrackerNode, worker: TrackWorker) -> None:
        self.last_arrival = time.perf_counter()
        self._tracker, self._worker, self._logger = node, worker, node.get_logger()
        settings = node.settings
        self._stamps = StampFilter(settings.time_jump)
        max_pixels = _MEGA * settings.max_megapixels
        self._decoder = ImageDecoder(
            settings.image_depth, max_pixels=max_pixels, say=self._logger.info
        )
        on_message = self._on_image
        if settings.image_transport in VIDEO:
            on_message = partial(self._on_packet, VideoDecoder(max_pixels))
        super().__init__(
            node,
            transport=settings.image_transport,
            reliability=settings.qos_reliability,
            on_message=on_message,
        )

    def _on_packet(self, decoder: VideoDecoder, packet: Any) -> None:
        """Take the images that a packet of a video completes."""
        try:
            images = decoder.decode(packet)
        except ImageError as error:
            self._tracker.counters.received += 1
            self._refuse(error)
            return
        for image in images:
            self._on_image(image)

    def _on_image(self, message: Any) -> None:
        frame, counters = Frame(message, self._decoder), self._tracker.counters
        counters.received += 1
        self.last_arrival = frame.received
        try:
            frame.check()  # first: the stamp of an unusable image is not trusted
        except ImageError as error:
            self._refuse(error)
            return
        self._stamps.time_jump = self._tracker.settings.time_jump
        frames, jump = self._stamps.accept(frame)
        if not frames:
            counters.out_of_order += 1
            others = self.publishers
            hint = f": {others} nodes publish on the topic" if others > 1 else ""
            self._logger.warning(
                f"images arrive out of the order of their stamps and are dropped{hint}",
                throttle_duration_sec=_LOG_PERIOD,
            )
            return
        if jump < 0:
            targets = ", ".join(map(repr, self._worker.targets)) or "none"
            back = f"image stamps went back by {-jump:.3f} s"
            self._logger.warning(
                f"{back}: forgetting all images and stopping the tracks ({targets})",
                throttle_duration_sec=_LOG_PERIOD,
            )
            self._tracker.forget(back)
        elif jump > 0:
            self._logger.warning(
                f"image stamps jumped ahead by {jump:.3f} s", throttle_duration_sec=_LOG_PERIOD
            )
        for each in frames:
            full = self._tracker.ring.push(each)
            if full:
                self._logger.info(f"{full}: see ring_memory_mb")
        counters.dropped += self._worker.mailbox.put(frame)
        # Let the worker have the interpreter at once: the executor's bookkeeping can wait.
        time.sleep(_HAND_OVER)

    def _refuse(self, error: ImageError) -> None:
        self._tracker.counters.refused += 1
        self._tracker.counters.trouble = str(error)
        self._logger.error(f"an image cannot be used: {error}", throttle_duration_sec=_LOG_PERIOD)
