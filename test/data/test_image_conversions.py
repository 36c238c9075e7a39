"""Encodings that OpenCV converts give the colors back: 16-bit, Bayer, YUV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from image_messages import mosaic_of, picture, raw_to_bgr

from siamcar_ros.data.images import ImageError


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_sixteen_bit_gray_honors_byte_order_and_step(encoding: str, bigendian: bool) -> None:
    values = np.linspace(0, 65535, 30).astype(np.uint16).reshape(5, 6)
    stored = np.zeros((5, 16), np.uint8)
    stored[:, :12] = values.astype(">u2" if bigendian else "<u2").view(np.uint8)
    image = raw_to_bgr(
        stored.tobytes(), height=5, width=6, encoding=encoding, step=16, is_bigendian=bigendian
    )
    expected = np.repeat(values[..., None] * (255.0 / 65535.0), 3, axis=-1)
    assert image.shape == (5, 6, 3)
    assert np.abs(image - expected).max() <= 1.0


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_the_colors_back(pattern: str, bits: int) -> None:
    color = picture()
    mosaic = mosaic_of(color, pattern)
    raw = mosaic.astype(np.uint8) if bits == 8 else mosaic * 257
    image = raw_to_bgr(
        raw.tobytes(), height=48, width=64, encoding=f"bayer_{pattern}{bits}", step=64 * bits // 8
    )
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(image[inner].astype(int) - color[inner]).max() <= 3


@pytest.mark.parametrize(
    ("encoding", "luma", "blue_first"),
    [("yuv422", 1, 0), ("uyvy", 1, 0), ("yuv422_yuy2", 0, 1), ("yuyv", 0, 1)],
)
def test_yuv422_gives_the_colors_back(encoding: str, luma: int, blue_first: int) -> None:
    color = picture()
    ycrcb = cv2.cvtColor(color, cv2.COLOR_BGR2YCrCb).astype(np.float64)
    stored = np.zeros((48, 64, 2), np.uint8)
    # Video range: Y in 16..235, U and V in 16..240.
    stored[..., luma] = np.round(16 + ycrcb[..., 0] * 219 / 255)
    stored[:, 0::2, blue_first] = np.round(128 + (ycrcb[:, 0::2, 2] - 128) * 224 / 255)
    stored[:, 1::2, blue_first] = np.round(128 + (ycrcb[:, 0::2, 1] - 128) * 224 / 255)
    image = raw_to_bgr(stored.tobytes(), height=48, width=64, encoding=encoding, step=128)
    assert np.abs(image.astype(int) - color).max() <= 6


@pytest.mark.parametrize("encoding", ["bgr16", "rgb16", "bgra16", "rgba16"])
def test_sixteen_bit_color(encoding: str) -> None:
    color = picture()
    raw = color.astype(np.uint16) * 257
    if encoding.startswith("rgb"):
        raw = raw[..., ::-1]
    if "a" in encoding:
        raw = np.dstack([raw, np.full(raw.shape[:2], 65535, np.uint16)])
    step = raw.shape[1] * raw.shape[2] * 2
    image = raw_to_bgr(raw.tobytes(), height=48, width=64, encoding=encoding, step=step)
    assert np.abs(image.astype(int) - color).max() <= 1


def yuv420_of(color: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luma, and both chroma planes at half the resolution, all in video range."""
    ycrcb = cv2.cvtColor(color, cv2.COLOR_BGR2YCrCb).astype(np.float64)
    luma = np.round(16 + ycrcb[..., 0] * 219 / 255)
    red, blue = (np.round(128 + (ycrcb[::2, ::2, i] - 128) * 224 / 255) for i in (1, 2))
    return luma.astype(np.uint8), blue.astype(np.uint8), red.astype(np.uint8)


@pytest.mark.parametrize("padding", [0, 16])
@pytest.mark.parametrize("encoding", ["nv12", "nv21", "yuv420"])
def test_yuv420_gives_the_colors_back(encoding: str, padding: int) -> None:
    luma, blue, red = yuv420_of(picture())

    def padded(plane: np.ndarray, by: int) -> bytes:
        return np.pad(plane, ((0, 0), (0, by))).tobytes()

    if encoding == "yuv420":
        chroma = padded(blue, padding // 2) + padded(red, padding // 2)
    else:
        pair = (blue, red) if encoding == "nv12" else (red, blue)
        chroma = padded(np.stack(pair, -1).reshape(24, 64), padding)
    data = padded(luma, padding) + chroma
    image = raw_to_bgr(data, height=48, width=64, encoding=encoding, step=64 + padding)
    assert np.abs(image.astype(int) - picture()).max() <= 8
    if not padding:  # some drivers give the bytes of all planes for each row
        same = raw_to_bgr(data, height=48, width=64, encoding=encoding, step=96)
        assert (same == image).all()
    with pytest.raises(ImageError, match="bytes of data"):
        raw_to_bgr(data[:-40], height=48, width=64, encoding=encoding, step=64 + padding)
    with pytest.raises(ImageError, match="odd size"):
        raw_to_bgr(data, height=47, width=64, encoding=encoding, step=64 + padding)
