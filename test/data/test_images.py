"""Image files and streams: sizes from the header, limits, damage."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamcar_ros.data.images import ImageError, decode_image, image_size, read_image

SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm", ".pgm")


def picture(height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def encoded(suffix: str, image: np.ndarray) -> bytes:
    stored = image[..., 0] if suffix == ".pgm" else image
    return cv2.imencode(suffix, stored)[1].tobytes()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has a single row of black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + width // 8))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def scanned_jpeg(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    stream = cv2.imencode(".jpg", picture(512, 512), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last, end = stream.rfind(b"\xff\xda"), stream.rfind(b"\xff\xd9")
    repeats = scans - stream.count(b"\xff\xda")
    return stream[:end] + repeats * stream[last:end] + stream[end:]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(SUFFIXES), st.integers(1, 300), st.integers(1, 300))
def test_the_header_tells_the_size(suffix: str, height: int, width: int) -> None:
    image = picture(height, width)
    stream = encoded(suffix, image)
    assert image_size(stream) == (width, height)
    assert decode_image(stream).shape == (height, width, 3)


def test_lossless_webp_and_transparent_webp_tell_their_size() -> None:
    lossless = cv2.imencode(".webp", picture(), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    transparent = cv2.imencode(".webp", np.dstack([picture(), picture()[..., :1]]))[1].tobytes()
    assert image_size(lossless) == image_size(transparent) == (40, 30)


@pytest.mark.parametrize("suffix", [".bmp", ".png", ".ppm"])
def test_files_are_read_as_stored(tmp_path: Path, suffix: str) -> None:
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), picture())
    read = read_image(tmp_path / f"a{suffix}")
    assert read is not None
    assert (read == picture()).all()


def test_files_that_do_not_decode_are_none(tmp_path: Path) -> None:
    assert read_image(tmp_path / "nothing.png") is None
    for name, data in (("empty", b""), ("text", b"no picture"), ("cut", png_header(8, 8)[:40])):
        (tmp_path / name).write_bytes(data)
        assert read_image(tmp_path / name) is None


def test_a_png_that_claims_a_billion_pixels_is_refused_from_its_header(tmp_path: Path) -> None:
    bomb = png_header(32000, 32000)
    with pytest.raises(ImageError, match="32000x32000 pixels, more than the limit of 100 million"):
        decode_image(bomb)
    (tmp_path / "1.png").write_bytes(bomb)
    with pytest.raises(ImageError, match="32000x32000"):
        read_image(tmp_path / "1.png")


def test_a_jpeg_with_hundreds_of_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="400 scans"):
        decode_image(scanned_jpeg(400))
    assert decode_image(scanned_jpeg(12)).shape == (512, 512, 3)
    (tmp_path / "1.jpg").write_bytes(scanned_jpeg(400))
    with pytest.raises(ImageError, match="400 scans"):
        read_image(tmp_path / "1.jpg")
    with pytest.raises(ImageError, match="12 scans, too many for 512x512"):
        decode_image(scanned_jpeg(12), max_pixels=512 * 512)


def test_a_thumbnail_does_not_stand_for_the_end_of_a_jpeg() -> None:
    thumbnail = cv2.imencode(".jpg", picture(8, 8))[1].tobytes()
    stream = cv2.imencode(".jpg", picture())[1].tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    whole = stream[:2] + segment + stream[2:]
    assert image_size(whole) == (40, 30)
    assert (decode_image(whole) == decode_image(stream)).all()
    with pytest.raises(ImageError, match="truncated"):
        decode_image(whole[:-100])


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(SUFFIXES), st.data())
def test_damaged_streams_decode_or_are_refused(suffix: str, data: st.DataObject) -> None:
    stream = bytearray(encoded(suffix, picture(9, 9)))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode_image(bytes(stream[: data.draw(st.integers(0, len(stream)))]))
    except ImageError:
        return
    assert image.ndim == 3
