"""Images from the packets of a video stream on a topic. Needs PyAV; does not import rclpy.

Works on the fields of `ffmpeg_image_transport_msgs/FFMPEGPacket` and
`foxglove_msgs/CompressedVideo`.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from siamcar_ros.data.images import MAX_PIXELS, ImageError

# Names of codecs and of their encoders: h264, libx264, hevc_nvenc ...
_CODECS = {"h264": "264", "hevc": "265|hevc", "av1": "av1", "vp9": "vp9"}


class VideoDecoder:
    """Decodes the packets of one camera, in their order; ValueError if PyAV is not installed."""

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        try:
            import av
        except ImportError as error:
            raise ValueError("video streams are decoded with PyAV: pip install av") from error
        self._av, self._max_pixels = av, max_pixels
        self._codec, self._context = "", cast(Any, None)
        self._begun, self._count = False, 0
        self._headers: dict[int, Any] = {}

    def decode(self, message: Any) -> list[Any]:
        """The images that are complete with this FFMPEGPacket or CompressedVideo, usually one.

        Returns:
            objects with the fields of a sensor_msgs/Image, in `yuv420` where the stream is, with
            the headers of their packets.

        Raises:
            ImageError: unknown codec, broken packet, no key frame yet, an image that is incomplete
                because a packet was lost, or one that is too large.
        """
        av = self._av
        name = str(getattr(message, "encoding", "") or getattr(message, "format", ""))
        codec = next((c for c, words in _CODECS.items() if re.search(words, name)), None)
        if codec is None:
            raise ImageError(f"video of codec {name[:40]!r} is not one of {', '.join(_CODECS)}")
        if codec != self._codec:
            self._codec, self._context = codec, av.CodecContext.create(codec, "r")
            self._context.thread_type = "SLICE"  # threads by frame would delay each image
            self._headers.clear()
        packet = av.Packet(bytes(message.data))
        packet.pts = packet.dts = self._count
        self._headers[self._count] = header_of(message)
        self._count += 1
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError as error:
            hint = "" if self._begun else "; images come from the next key frame on"
            raise ImageError(f"{codec} packet cannot be decoded: {error}{hint}") from error
        self._begun |= bool(frames)
        return [self._image(frame) for frame in frames]

    def _image(self, frame: Any) -> Any:
        header = self._headers.get(frame.pts)
        self._headers = {pts: each for pts, each in self._headers.items() if pts > frame.pts}
        if frame.is_corrupt:
            raise ImageError("an image of the video is incomplete: a packet was lost")
        width, height = frame.width, frame.height
        if width * height > self._max_pixels:
            raise ImageError(f"{width}x{height} video is larger than {self._max_pixels} pixels")
        even = width % 2 == height % 2 == 0
        planar = even and frame.format.name in ("yuv420p", "yuvj420p")
        pixels = frame.to_ndarray() if planar else frame.to_ndarray(format="bgr24")
        return SimpleNamespace(
            header=header,
            width=width,
            height=height,
            encoding="yuv420" if planar else "bgr8",
            step=width if planar else 3 * width,
            is_bigendian=0,
            data=np.ravel(pixels),
        )


def header_of(message: Any) -> Any:
    """The Header of an image or a packet; foxglove's has its two fields in the message itself."""
    if hasattr(message, "header"):
        return message.header
    from std_msgs.msg import Header

    return Header(stamp=message.timestamp, frame_id=message.frame_id)
