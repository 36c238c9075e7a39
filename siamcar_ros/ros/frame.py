"""One image as received from the middleware."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from siamcar_ros.data.detections import stamp_of
from siamcar_ros.data.image_messages import ImageDecoder
from siamcar_ros.tracking.stored_image import StoredImage


@dataclass(frozen=True, eq=False)
class Frame:
    """A received sensor_msgs/Image or CompressedImage.

    Attributes:
        message: the message; its pixels are decoded only by `image`.
        decoder: of the camera.
        received: `time.perf_counter()` at the start of the callback.
    """

    message: Any
    decoder: ImageDecoder = field(default_factory=ImageDecoder)
    received: float = field(default_factory=time.perf_counter)

    @property
    def header(self) -> Any:
        """The message's std_msgs/Header."""
        return self.message.header

    @property
    def stamp(self) -> int:
        """The header's stamp in nanoseconds."""
        return stamp_of(self.message)

    @property
    def size(self) -> int:
        """Size of the message's data in bytes."""
        return len(self.message.data)

    @property
    def format(self) -> str:
        """The encoding of a raw image, the format of a compressed one."""
        message = self.message
        return str(message.encoding if hasattr(message, "encoding") else message.format)

    def check(self) -> None:
        """Raise ImageError if header and size show that the image cannot be decoded."""
        self.decoder.check(self.message)

    def image(self) -> StoredImage:
        """Return the pixels, a read-only view if the encoding is packed; or raise ImageError."""
        return self.decoder.read(self.message)
