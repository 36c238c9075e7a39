"""One image as it came from the middleware."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from siamcar_ros.data.detections import stamp_of
from siamcar_ros.data.image_messages import message_to_bgr
from siamcar_ros.geometry import Image as BgrImage


@dataclass(frozen=True, eq=False)
class Frame:
    """A received sensor_msgs/Image or CompressedImage.

    Attributes:
        message: the message; its pixels are looked at only when `image` is called.
        received: `time.perf_counter()` at the start of the callback.
    """

    message: Any
    received: float = field(default_factory=time.perf_counter)

    @property
    def header(self) -> Any:
        """The message's std_msgs/Header."""
        return self.message.header

    @property
    def stamp(self) -> int:
        """Nanoseconds of the header's stamp."""
        return stamp_of(self.message)

    @property
    def size(self) -> int:
        """Bytes that the message's pixels take."""
        return len(self.message.data)

    @property
    def format(self) -> str:
        """The encoding of a raw image, the format of a compressed one."""
        message = self.message
        return str(message.encoding if hasattr(message, "encoding") else message.format)

    def image(self) -> BgrImage:
        """The pixels as (H, W, 3) BGR; a read-only view where the encoding allows it.

        Raises `siamcar_ros.data.image_messages.ImageError` where they cannot be had.
        """
        return message_to_bgr(self.message)
