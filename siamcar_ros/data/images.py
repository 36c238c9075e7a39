"""Decoding image files and encoded streams within limits.

The size is read from the header before anything is decompressed, because a PNG of 100 kB can claim
a billion pixels.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import Image

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels: three times an 8K frame."""

_COLOR = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
}
_AS_STORED = cv2.IMREAD_IGNORE_ORIENTATION
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_NOT_FRAME_HEADERS = (0xC4, 0xC8, 0xCC)  # of 0xC0 to 0xCF


class ImageError(ValueError):
    """The pixels of an image cannot be decoded: unknown format, corrupt data, or too large."""


def read_image(path: Path, divisor: int = 1) -> Image | None:
    """Read an image file as (H, W, 3) uint8 BGR; None if it is missing or does not decode.

    The orientation tag is ignored: boxes and masks refer to the pixels as stored. The size is
    reduced by `divisor` (1, 2 or 4), which is cheap for a JPEG.

    Raises:
        ImageError: it has more than `MAX_PIXELS`.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    _check_size(image_size(data), MAX_PIXELS)
    return _decode(data, _COLOR[divisor] | _AS_STORED)


def decode_image(
    data: bytes, *, flags: int = _COLOR[1] | _AS_STORED, max_pixels: int = MAX_PIXELS
) -> NDArray[Any]:
    """Decode a JPEG, PNG, WebP, BMP, TIFF or PNM stream; bytes after its end are ignored.

    With the default flags of `cv2.imdecode` the image is (H, W, 3) uint8 BGR, its orientation tag
    ignored.

    Raises:
        ImageError: the format is unknown, the data is corrupt or truncated, or the image exceeds
            the limits.
    """
    _check_size(image_size(data), max_pixels)
    # libjpeg would fill what is missing with gray and report success. The marker is compared with
    # the last scan's, because an embedded thumbnail ends with the same one.
    if data.startswith(_JPEG) and data.rfind(_JPEG_END) <= data.rfind(_JPEG_SCAN):
        raise ImageError("it is truncated: a JPEG without its end marker")
    image = _decode(data, flags)
    if image is None:
        raise ImageError(
            f"its {len(data)} bytes are corrupt or not in a supported format"
            " (JPEG, PNG, WebP, BMP, TIFF, PNM)"
        )
    _check_size((image.shape[1], image.shape[0]), max_pixels)
    return image


def image_size(data: bytes) -> tuple[int, int] | None:
    """Read the (width, height) of a JPEG, PNG or WebP from its header; None for other data."""
    try:
        if data.startswith(_PNG):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(_JPEG):
            width, height = _jpeg_size(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            width, height = _webp_size(data)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return width, height


def _check_size(size: tuple[int, int] | None, max_pixels: int) -> None:
    width, height = size or (0, 0)
    if width * height > max_pixels:
        raise ImageError(
            f"it has {width}x{height} pixels, more than the limit of {max_pixels / 1e6:g} million"
        )


def _decode(data: bytes, flags: int) -> NDArray[Any] | None:
    try:
        decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return decoded


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        while data[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if data[at] != 0xFF or length < 2:
            raise IndexError("not a JPEG segment")
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + length


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
