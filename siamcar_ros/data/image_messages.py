"""Pixels of ROS images as BGR arrays, for the node and for bags alike. Does not import rclpy.

Works on the fields of `sensor_msgs/Image` and `sensor_msgs/CompressedImage`, so the classes of
rclpy and rosbags are both accepted, and so is any other object with those attributes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.images import MAX_PIXELS, ImageError, decode_image, image_size
from siamcar_ros.geometry import Image
from siamcar_ros.tracking.stored_image import StoredImage

# encoding -> bytes per pixel, and the order of the channels.
_PACKED: dict[str, tuple[int, str]] = {
    "bgr8": (3, "bgr"),
    "rgb8": (3, "rgb"),
    "bgra8": (4, "bgra"),
    "rgba8": (4, "rgba"),
    "mono8": (1, "gray"),
    # OpenCV's generic types have no color order; images made with OpenCV are BGR.
    "8UC1": (1, "gray"),
    "8UC3": (3, "bgr"),
    "8UC4": (4, "bgra"),
}


class _Layout(NamedTuple):
    """How an encoding is stored, and the `cv2.cvtColor` code that makes it BGR."""

    dtype: type[np.generic]
    channels: int
    code: int | None


_CONVERTED: dict[str, _Layout] = {
    "mono16": _Layout(np.uint16, 1, cv2.COLOR_GRAY2BGR),
    "16UC1": _Layout(np.uint16, 1, cv2.COLOR_GRAY2BGR),
    "bgr16": _Layout(np.uint16, 3, None),
    "rgb16": _Layout(np.uint16, 3, cv2.COLOR_RGB2BGR),
    "bgra16": _Layout(np.uint16, 4, cv2.COLOR_BGRA2BGR),
    "rgba16": _Layout(np.uint16, 4, cv2.COLOR_RGBA2BGR),
    "yuv422": _Layout(np.uint8, 2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": _Layout(np.uint8, 2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": _Layout(np.uint8, 2, cv2.COLOR_YUV2BGR_YUY2),
    "yuyv": _Layout(np.uint8, 2, cv2.COLOR_YUV2BGR_YUY2),
    # OpenCV names a Bayer pattern after its second row and column.
    **{
        f"bayer_{pattern}{bits}": _Layout(dtype, 1, code)
        for pattern, code in (
            ("rggb", cv2.COLOR_BayerBG2BGR),
            ("bggr", cv2.COLOR_BayerRG2BGR),
            ("gbrg", cv2.COLOR_BayerGR2BGR),
            ("grbg", cv2.COLOR_BayerGB2BGR),
        )
        for bits, dtype in ((8, np.uint8), (16, np.uint16))
    },
}
# 4:2:0: a plane of luma, then chroma at half the resolution.
_SUBSAMPLED: dict[str, int] = {
    "nv12": cv2.COLOR_YUV2BGR_NV12,
    "nv21": cv2.COLOR_YUV2BGR_NV21,
    "yuv420": cv2.COLOR_YUV2BGR_I420,
}
PACKED_ENCODINGS = tuple(_PACKED)
CONVERTED_ENCODINGS = (*_CONVERTED, *_SUBSAMPLED)

_SIGNIFICANT_BITS = (10, 12, 14, 16)
_HEADER = 1 << 16  # bytes of a compressed image in which its size is looked for by `check`
_DEPTHS = "auto, bits:N, percentile, percentile:LOW,HIGH or range:LOW,HIGH"


class ImageDecoder:
    """Turns image messages into BGR arrays.

    Packed 8-bit encodings (`PACKED_ENCODINGS`) are viewed in place: nothing is copied, whatever the
    row step or the order of the channels. `CONVERTED_ENCODINGS` are converted by OpenCV. Compressed
    images are JPEG, PNG, WebP, BMP, TIFF or PNM; their orientation tag is ignored, because boxes
    refer to the pixels that the camera sent.

    16-bit images are scaled to 8 bits as `depth` says:

    - `auto`: the full range of the significant bits (10, 12, 14 or 16), taken from the largest
      value so far. Fixed from the first bright image on, so that brightness does not flicker.
    - `bits:N`: the full range of N bits.
    - `percentile` or `percentile:LOW,HIGH`: from the LOWth to the HIGHth percentile (1 and 99) of
      each image: contrast for thermal cameras, at the price of a brightness that follows the scene.
    - `range:LOW,HIGH`: from LOW to HIGH counts.

    A decoder keeps what `auto` found, so use one for each camera.

    Args:
        depth: how 16-bit images are scaled; ValueError if it is none of the forms above.
        max_pixels: width times height above which a compressed image is refused.
        say: called with one sentence when the scaling of 16-bit images is chosen or changes.
    """

    def __init__(
        self,
        depth: str = "auto",
        *,
        max_pixels: int = MAX_PIXELS,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._kind, self._limits = _parse_depth(depth)
        self._max_pixels = max_pixels
        self._say = say
        self._bits = 0  # that `auto` has found
        self._said = False

    def decode(self, message: Any) -> Image:
        """The pixels of a `sensor_msgs/Image` or `sensor_msgs/CompressedImage`.

        Returns:
            (H, W, 3) uint8 BGR; for the packed encodings a view of `message.data`, with strides
            that may be negative (rgb8) or zero (mono8), which must not be written to.
        """
        if not hasattr(message, "encoding"):
            return self._decompress(message.data, message.format)
        encoding, height, width = message.encoding, message.height, message.width
        if encoding in _PACKED:
            return _stored(message).bgr()
        if encoding in _SUBSAMPLED:
            return _to_bgr(_planes(message), _SUBSAMPLED[encoding], encoding)
        if encoding not in _CONVERTED:
            supported = ", ".join(PACKED_ENCODINGS + CONVERTED_ENCODINGS)
            raise ImageError(
                f"image encoding {encoding[:40]!r} is not supported; supported are {supported}"
            )
        dtype, channels, code = _CONVERTED[encoding]
        rows = view_bytes(message.data, _rows(message), message.step, encoding)[..., 0]
        packed = np.ascontiguousarray(rows).view(dtype).reshape(height, width, channels)
        if dtype is np.uint16:
            if bool(message.is_bigendian) != (sys.byteorder == "big"):
                packed = packed.byteswap()
            packed = self._to_8_bits(packed, encoding)
        return _to_bgr(packed, code, encoding)

    def read(self, message: Any) -> StoredImage:
        """Like `decode`, but packed encodings keep the order of their channels."""
        if getattr(message, "encoding", "") in _PACKED:
            return _stored(message)
        return StoredImage(self.decode(message), "bgr")

    def check(self, message: Any) -> None:
        """Refuse an image message (ImageError) by its header, encoding and amount of data.

        Nothing is decoded, so corrupt data is not noticed.
        """
        data = message.data
        if not hasattr(message, "encoding"):
            head = bytes(memoryview(data)[:_HEADER])
            width, height = image_size(head) or (0, 0)
            unknown = not width and (len(data) <= _HEADER or len(set(head)) < 2)
            if unknown or width * height > self._max_pixels or "compressedDepth" in message.format:
                self._decompress(head, message.format)  # raises with the reason
        elif message.encoding in _CONVERTED:
            view_bytes(data, _rows(message), message.step, message.encoding)
        elif message.encoding in _SUBSAMPLED:
            view_bytes(data, (message.height, message.width, 1), message.step, message.encoding)
        else:  # a view, or refused
            self.decode(message)

    def _decompress(self, data: Any, format: str) -> Image:
        """A compressed stream, which may be padded, as BGR. The first word of `format` says that a
        gray stream is a Bayer mosaic, as in `bayer_rggb8; png compressed`.
        """
        shown = format[:60]
        if "compressedDepth" in format:
            raise ImageError(f"compressed image of format {shown!r} is a depth map, not an image")
        encoding = format.partition(";")[0].strip()
        flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_COLOR
        if encoding.startswith("bayer_"):
            flags = cv2.IMREAD_UNCHANGED
        try:
            image = decode_image(bytes(data), flags=flags, max_pixels=self._max_pixels)
        except ImageError as error:
            raise ImageError(
                f"compressed image of format {shown!r} cannot be decoded: {error}"
            ) from error
        if image.dtype == np.uint16:
            image = self._to_8_bits(image, encoding or "16-bit")
        if image.dtype != np.uint8:
            raise ImageError(f"compressed image of format {shown!r} has {image.dtype} pixels")
        if image.ndim == 2:
            layout = _CONVERTED.get(encoding)
            code = cv2.COLOR_GRAY2BGR if layout is None else layout.code
            return _to_bgr(image[..., None], code, encoding)
        return np.asarray(image[..., :3], np.uint8)

    def _to_8_bits(self, values: NDArray[np.uint16], name: str) -> Image:
        low, high = self._range(values, name)
        scale = 255 / (high - low)
        floored = np.maximum(values, np.uint16(low)) if low > 0 else values
        # convertScaleAbs takes the magnitude of what lies below zero
        scaled = cv2.convertScaleAbs(floored, alpha=scale, beta=-int(low) * scale)
        return np.asarray(scaled, np.uint8).reshape(values.shape)

    def _range(self, values: NDArray[np.uint16], name: str) -> tuple[float, float]:
        """The counts that become 0 and 255; how they are chosen is logged."""
        if self._kind == "auto":
            peak = int(values.max())
            bits = next(n for n in _SIGNIFICANT_BITS if peak < 1 << n)
            if bits > self._bits:
                self._bits = bits
                self._say(
                    f"{name} images: the largest value so far is {peak}, so {bits} significant bits"
                    " are scaled to 8"
                )
            return 0, (1 << self._bits) - 1
        low, high = self._limits
        if not self._said:
            self._said = True
            counted = "percentiles" if self._kind == "percentile" else "values"
            self._say(f"{name} images: {counted} {low:g} to {high:g} are scaled to 8 bits")
        if self._kind == "percentile":
            counts = np.bincount(values[::4, ::4].ravel()).cumsum()
            low = int(np.searchsorted(counts, low / 100 * counts[-1], side="right"))
            high = int(np.searchsorted(counts, high / 100 * counts[-1]))
            return low, max(high, low + 1)
        return low, high


def _parse_depth(text: str) -> tuple[str, tuple[float, float]]:
    kind, _, rest = text.partition(":")
    refusal = ValueError(f"expected {_DEPTHS} for the depth of 16-bit images, got {text[:40]!r}")
    try:
        values = [float(value) for value in rest.split(",")] if rest else []
    except ValueError:
        raise refusal from None
    if kind == "bits" and len(values) == 1 and values[0] in range(8, 17):
        return kind, (0, 2 ** values[0] - 1)
    if kind == "auto" and not values:
        return kind, (0, 0)
    if kind == "percentile":
        values = values or [1, 99]
    limit = {"percentile": 100, "range": (1 << 16) - 1}.get(kind, math.nan)
    if len(values) != 2 or not 0 <= values[0] < values[1] <= limit:
        raise refusal
    return kind, (values[0], values[1])


def view_bytes(data: Any, shape: tuple[int, int, int], step: int, encoding: str) -> Image:
    """`data` as uint8 of `shape`, with `step` bytes from row to row, not copied."""
    height, width, channels = shape
    flat = np.frombuffer(data, np.uint8)
    if height < 1 or width < 1:
        raise ImageError(f"{encoding} image is empty: {width}x{height}")
    if step < width * channels:
        raise ImageError(f"{encoding} image has step {step}; a row needs {width * channels} bytes")
    needed = step * (height - 1) + width * channels
    if flat.size < needed:
        raise ImageError(f"{encoding} image has {flat.size} bytes of data; it needs {needed}")
    return np.ndarray(shape, np.uint8, flat, strides=(step, channels, 1))


def _rows(message: Any) -> tuple[int, int, int]:
    """The shape in bytes of an image of `_CONVERTED`."""
    dtype, channels, _ = _CONVERTED[message.encoding]
    return message.height, message.width * channels * np.dtype(dtype).itemsize, 1


def _stored(message: Any) -> StoredImage:
    """A packed image, not copied."""
    channels, order = _PACKED[message.encoding]
    shape = (message.height, message.width, channels)
    pixels = view_bytes(message.data, shape, message.step, message.encoding)
    return StoredImage(pixels[..., 0] if channels == 1 else pixels, order)


def _planes(message: Any) -> Image:
    """A 4:2:0 image as OpenCV takes it: (1.5 H, W, 1), without padding.

    The chroma rows follow the luma rows: of `step` bytes in nv12 and nv21, of half that in yuv420.
    A step of 1.5 times the width is read as the width.
    """
    height, width, encoding = message.height, message.width, message.encoding
    if height % 2 or width % 2:
        raise ImageError(f"{encoding} image has an odd size: {width}x{height}")
    step = width if 2 * message.step == 3 * width else message.step
    luma = view_bytes(message.data, (height, width, 1), step, encoding)
    rest = np.frombuffer(message.data, np.uint8)[height * step :]
    if encoding == "yuv420":  # two planes with rows of half the length
        chroma = view_bytes(rest, (height, width // 2, 1), step // 2, encoding)
    else:
        chroma = view_bytes(rest, (height // 2, width, 1), step, encoding)
    return np.concatenate((luma.ravel(), chroma.ravel())).reshape(height * 3 // 2, width, 1)


def _to_bgr(pixels: NDArray[Any], code: int | None, encoding: str) -> Image:
    if code is None:
        return np.asarray(pixels, np.uint8)
    try:
        return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    except cv2.error as error:
        height, width = pixels.shape[:2]
        raise ImageError(
            f"{width}x{height} {encoding} image cannot be converted: {error}"
        ) from error
