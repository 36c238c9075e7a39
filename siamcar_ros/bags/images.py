"""Pixels of ROS images as BGR arrays, for the node and for bag replay alike. Imports no rclpy.

The functions take the fields of `sensor_msgs/Image` and `sensor_msgs/CompressedImage`, so they
serve the classes of rclpy, of rosbags, and any other object with those attributes.

Packed 8-bit encodings (`PACKED_ENCODINGS`) are viewed in place: nothing is copied, whatever the row
step or the order of the channels. The others (`CONVERTED_ENCODINGS`) are converted by cv_bridge or,
where that is not installed, by rosbags-image. 16-bit images are scaled by 255/65535.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BgrImage = NDArray[np.uint8]

# encoding -> bytes per pixel, and the channels to take so that they come out as blue, green, red.
_PACKED: dict[str, tuple[int, slice]] = {
    "bgr8": (3, slice(None)),
    "rgb8": (3, slice(None, None, -1)),
    "bgra8": (4, slice(0, 3)),
    "rgba8": (4, slice(2, None, -1)),
    "mono8": (1, slice(None)),
    # OpenCV's generic types carry no colour order; images made with OpenCV are BGR.
    "8UC1": (1, slice(None)),
    "8UC3": (3, slice(None)),
    "8UC4": (4, slice(0, 3)),
}
# encoding -> name that every release of cv_bridge and rosbags-image knows, dtype, channels.
_CONVERTED: dict[str, tuple[str, type[np.generic], int]] = {
    "mono16": ("mono16", np.uint16, 1),
    "16UC1": ("mono16", np.uint16, 1),
    "bgr16": ("bgr16", np.uint16, 3),
    "rgb16": ("rgb16", np.uint16, 3),
    "bgra16": ("bgra16", np.uint16, 4),
    "rgba16": ("rgba16", np.uint16, 4),
    "yuv422": ("yuv422", np.uint8, 2),
    "uyvy": ("yuv422", np.uint8, 2),
    "yuv422_yuy2": ("yuv422_yuy2", np.uint8, 2),
    "yuyv": ("yuv422_yuy2", np.uint8, 2),
    **{
        f"bayer_{pattern}{bits}": (f"bayer_{pattern}{bits}", dtype, 1)
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
        for bits, dtype in ((8, np.uint8), (16, np.uint16))
    },
}
PACKED_ENCODINGS = tuple(_PACKED)
CONVERTED_ENCODINGS = tuple(_CONVERTED)

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_PADDING = 4096  # cameras that pad their JPEGs to a block leave zeros behind the end marker


class ImageError(ValueError):
    """An image message whose pixels cannot be had: unknown encoding, wrong sizes, corrupt data."""


def message_to_bgr(message: Any) -> BgrImage:
    """The pixels of a `sensor_msgs/Image` or `sensor_msgs/CompressedImage` of any Python class.

    Returns (H, W, 3) uint8 in BGR order; a view of `message.data` for the packed encodings, which
    must then not be written to. Raises ImageError as `raw_to_bgr` and `compressed_to_bgr` do.
    """
    if hasattr(message, "encoding"):
        return raw_to_bgr(
            message.data,
            height=message.height,
            width=message.width,
            encoding=message.encoding,
            step=message.step,
            is_bigendian=bool(message.is_bigendian),
        )
    return compressed_to_bgr(message.data, message.format)


def raw_to_bgr(
    data: Any, *, height: int, width: int, encoding: str, step: int, is_bigendian: bool = False
) -> BgrImage:
    """Raw pixels as (H, W, 3) uint8 in BGR order.

    data: any object with the buffer protocol that holds `height` rows of `step` bytes, of which the
    pixels are the first; bytes behind the last pixel are not needed. For the packed encodings the
    result is a view of it: its strides may be negative (rgb8) or zero (mono8), and it must not be
    written to.

    Raises ImageError for an encoding not in `PACKED_ENCODINGS` or `CONVERTED_ENCODINGS`, an empty
    image, a step shorter than a row, and data shorter than the image.
    """
    if encoding in _PACKED:
        channels, order = _PACKED[encoding]
        pixels = _view(data, (height, width, channels), step, encoding)
        return np.broadcast_to(pixels, (height, width, 3)) if channels == 1 else pixels[..., order]
    if encoding in _CONVERTED:
        name, dtype, channels = _CONVERTED[encoding]
        row_bytes = width * channels * np.dtype(dtype).itemsize
        rows = _view(data, (height, row_bytes, 1), step, encoding)
        packed = np.ascontiguousarray(rows).reshape(-1).view(dtype)
        if dtype is np.uint16 and is_bigendian != (sys.byteorder == "big"):
            packed = packed.byteswap()
        return _convert(packed, name, height, width)
    supported = ", ".join(PACKED_ENCODINGS + CONVERTED_ENCODINGS)
    raise ImageError(f"image encoding {encoding!r} is not supported; supported are {supported}")


def compressed_to_bgr(data: Any, format: str = "") -> BgrImage:
    """JPEG, PNG or any other stream that OpenCV reads, as (H, W, 3) uint8 in BGR order.

    format: the message's format field; only `compressedDepth` streams are told by it. An
    orientation tag in the stream is ignored: boxes are in the pixels that the camera sent.

    Raises ImageError for an empty, corrupt or truncated stream, naming the format.
    """
    if "compressedDepth" in format:
        raise ImageError(f"compressed image of format {format!r} is a depth map, no image")
    stream = np.frombuffer(data, np.uint8)
    refusal = f"compressed image of format {format!r}"
    head, tail = stream[:2].tobytes(), stream[-_JPEG_PADDING:].tobytes()
    if head == _JPEG_START and _JPEG_END not in tail:
        # libjpeg would fill what is missing with grey and report success.
        raise ImageError(f"{refusal} is truncated: a JPEG without its end")
    try:
        image = cv2.imdecode(stream, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"{refusal} cannot be decoded: {error}") from error
    if image is None:
        raise ImageError(
            f"{refusal} cannot be decoded: its {stream.size} bytes are corrupt or in no format that"
            " OpenCV reads"
        )
    return np.asarray(image, np.uint8)


def _view(data: Any, shape: tuple[int, int, int], step: int, encoding: str) -> BgrImage:
    """`data` as uint8 of `shape`, with `step` bytes from row to row, not copied."""
    height, width, channels = shape
    flat = np.frombuffer(data, np.uint8)
    if height < 1 or width < 1:
        raise ImageError(f"{encoding} image is empty: {width}x{height}")
    if step < width * channels:
        raise ImageError(f"{encoding} image has step {step}, a row needs {width * channels} bytes")
    needed = step * (height - 1) + width * channels
    if flat.size < needed:
        raise ImageError(f"{encoding} image has {flat.size} bytes of data, it needs {needed}")
    return np.ndarray(shape, np.uint8, flat, strides=(step, channels, 1))


def _convert(packed: NDArray[Any], encoding: str, height: int, width: int) -> BgrImage:
    message = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        step=packed.nbytes // height,
        is_bigendian=int(sys.byteorder == "big"),
        data=packed.view(np.uint8),
    )
    convert, conversion_error = _converter()
    try:
        return np.asarray(convert(message), np.uint8)
    except (conversion_error, cv2.error) as error:
        raise ImageError(
            f"{width}x{height} {encoding} image is not convertible: {error}"
        ) from error


@functools.cache
def _converter() -> tuple[Callable[[Any], Any], type[Exception]]:
    """What turns the other encodings into bgr8, and the exception that it raises."""
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except (ImportError, AttributeError):  # AttributeError: a cv_bridge built for another numpy
        try:
            from rosbags.image import ImageError as RosbagsImageError
            from rosbags.image import image_to_cvimage
        except ImportError as error:
            raise ImageError(
                "this encoding needs cv_bridge or rosbags-image: pip install rosbags-image"
            ) from error
        return functools.partial(image_to_cvimage, color_space="bgr8"), RosbagsImageError
    return functools.partial(CvBridge().imgmsg_to_cv2, desired_encoding="bgr8"), CvBridgeError
