"""Images for `make torture`: good ones, and many kinds that no node can use."""

from __future__ import annotations

import random
import struct
import time
import zlib
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image


def bad_raw_images(image: np.ndarray[Any, Any], choose: random.Random) -> list[Image]:
    """Raw images that cannot be decoded, or whose header lies."""
    height, width = image.shape[:2]
    bad = [Image(), Image(height=2**31, width=2**31, encoding="bgr8", step=2**32 - 1)]
    for change in (
        {"step": width},
        {"step": 0},
        {"height": 2 * height},
        {"width": 2 * width},
        {"encoding": ""},
        {"encoding": "x" * 100_000},
        {"encoding": "rgba16"},
        {"encoding": "nv12", "width": width - 1},
        {"encoding": "bayer_rggb16"},
        {"encoding": "32FC1"},
    ):
        message = raw(image)
        for name, value in change.items():
            setattr(message, name, value)
        bad.append(message)
    for size in (0, 1, choose.randrange(image.nbytes)):
        message = raw(image)
        message.data = message.data[:size]
        bad.append(message)
    return bad


def bad_compressed_images(image: np.ndarray[Any, Any], choose: random.Random) -> list[Any]:
    """Streams that cannot be decoded, or that claim to be enormous."""
    good = bytes(jpeg(image).data)

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 32_000, 32_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6)))
    streams = [b"", b"\0" * 1000, good[: len(good) // 2], good[:3], bomb, b"GIF89a" + bytes(99)]
    streams += [choose.randbytes(5000), good[:100] + choose.randbytes(len(good) - 100)]
    streams.append(good[:200] + b"\xff\xda" * 400 + good[200:])
    messages = []
    for stream in streams:
        message = CompressedImage(format=choose.choice(["jpeg", "png", "x" * 10_000, ""]))
        message.data.frombytes(stream)
        messages.append(message)
    return messages


def raw(image: np.ndarray[Any, Any]) -> Image:
    """A bgr8 message."""
    height, width = image.shape[:2]
    message = Image(height=height, width=width, encoding="bgr8", step=3 * width)
    message.data.frombytes(np.ascontiguousarray(image).data.cast("B"))
    return message


def jpeg(image: np.ndarray[Any, Any]) -> CompressedImage:
    """A JPEG message."""
    message = CompressedImage(format="bgr8; jpeg compressed bgr8")
    message.data.frombytes(cv2.imencode(".jpg", image)[1].data.cast("B"))
    return message


def stamped(message: Any, ahead: int = 0) -> Any:
    """The message with the time, plus nanoseconds, as its stamp."""
    now = min(max(0, time.time_ns() + ahead), 2**31 * 10**9 - 1)
    message.header.frame_id = "camera"
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 10**9)
    return message
