"""Decoding image files and encoded streams within limits.

The size is read from the header before anything is decompressed, because a PNG of 100 kB can claim
a billion pixels, and a JPEG of the same size can make the decoder run over the image 400 times.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import Image

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels: three times an 8K frame."""

#: Progressive JPEGs have about ten scans. Each one costs a pass over the whole image.
_MAX_SCANS = 50
_MAX_SCANNED = 4  # scans times pixels, in units of the pixel limit

_COLOR = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
}
_AS_STORED = cv2.IMREAD_IGNORE_ORIENTATION
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_NOT_FRAME_HEADERS = (0xC4, 0xC8, 0xCC)  # of 0xC0 to 0xCF
_PNM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s")


class ImageError(ValueError):
    """The pixels of an image cannot be decoded: unknown format, corrupt data, or too large."""


def read_image(path: Path, divisor: int = 1) -> Image | None:
    """Read an image file as (H, W, 3) uint8 BGR; None if it is missing or does not decode.

    The orientation tag is ignored: boxes and masks refer to the pixels as stored. The size is
    reduced by `divisor` (1, 2 or 4), which is cheap for a JPEG.

    Raises:
        ImageError: it has more than `MAX_PIXELS`, or too many scans for its size.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    _check_size(data, MAX_PIXELS)
    return _decode(data, _COLOR[divisor] | _AS_STORED) if image_size(data) else None


def decode_image(
    data: bytes, *, flags: int = _COLOR[1] | _AS_STORED, max_pixels: int = MAX_PIXELS
) -> NDArray[Any]:
    """Decode a JPEG, PNG, WebP, BMP, TIFF or PNM stream; bytes after its end are ignored.

    With the default flags of `cv2.imdecode` the image is (H, W, 3) uint8 BGR, its orientation tag
    ignored.
    """
    if image_size(data) is None:
        raise ImageError(
            f"its {len(data)} bytes are corrupt or not in a supported format"
            " (JPEG, PNG, WebP, BMP, TIFF, PNM)"
        )
    _check_size(data, max_pixels)
    # libjpeg would fill what is missing with gray and report success. The marker is compared with
    # the last scan's, because an embedded thumbnail ends with the same one.
    if data.startswith(_JPEG) and data.rfind(_JPEG_END) <= data.rfind(_JPEG_SCAN):
        raise ImageError("it is truncated: a JPEG without its end marker")
    image = _decode(data, flags)
    if image is None:
        raise ImageError(f"its {len(data)} bytes are corrupt")
    return image


def image_size(data: bytes) -> tuple[int, int] | None:
    """Read an image's (width, height) from its header; None if the format is unknown."""
    try:
        if data.startswith(_PNG):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(_JPEG):
            width, height = _jpeg_size(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            width, height = _webp_size(data)
        elif data[:2] == b"BM":
            is_old = struct.unpack_from("<I", data, 14)[0] == 12
            width, height = map(abs, struct.unpack_from("<HH" if is_old else "<ii", data, 18))
        elif data[:4] in (b"II*\0", b"MM\0*"):
            width, height = _tiff_size(data)
        elif match := _PNM.match(data):
            width, height = int(match[1]), int(match[2])
        else:
            return None
    except (struct.error, IndexError, KeyError):
        return None
    return width, height


def _check_size(data: bytes, max_pixels: int) -> None:
    width, height = image_size(data) or (0, 0)
    scans = data.count(_JPEG_SCAN) if data.startswith(_JPEG) else 1
    if width * height > max_pixels:
        raise ImageError(
            f"it has {width}x{height} pixels, more than the limit of {max_pixels / 1e6:g} million"
        )
    if scans > _MAX_SCANS or (scans > 1 and width * height * scans > _MAX_SCANNED * max_pixels):
        raise ImageError(f"it is a JPEG with {scans} scans, too many for {width}x{height} pixels")


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


def _tiff_size(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    found: dict[int, int] = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in (256, 257) and kind in (3, 4):
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return found[256], found[257]
