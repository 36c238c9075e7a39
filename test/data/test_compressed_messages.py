"""Compressed image messages: JPEG, PNG, WebP and compressed mosaics."""

from __future__ import annotations

import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_messages import compressed_to_bgr, mosaic_of, picture

from siamcar_ros.data.image_messages import ImageDecoder
from siamcar_ros.data.images import ImageError


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_compressed_images_decode(extension: str) -> None:
    stream = cv2.imencode(extension, picture())[1].tobytes()
    image = compressed_to_bgr(array.array("B", stream), f"bgr8; {extension[1:]} compressed bgr8")
    assert np.abs(image.astype(int) - picture()).max() <= 12


def test_gray_and_16_bit_compressed_images_come_out_as_bgr() -> None:
    gray = picture()[..., 0]
    deep = cv2.imencode(".png", gray.astype(np.uint16) * 257)[1].tobytes()
    image = compressed_to_bgr(deep, "mono16; png compressed ")
    assert np.abs(image.astype(int) - gray[..., None]).max() <= 1


def test_an_orientation_tag_does_not_turn_the_image() -> None:
    jpeg = cv2.imencode(".jpg", picture())[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    tagged = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    turned = cv2.imdecode(np.frombuffer(tagged, np.uint8), cv2.IMREAD_COLOR)
    assert turned is not None
    assert turned.shape == (64, 48, 3)
    assert compressed_to_bgr(tagged, "jpeg").shape == (48, 64, 3)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.97])
def test_a_truncated_stream_is_refused(extension: str, kept: float) -> None:
    stream = cv2.imencode(extension, picture())[1].tobytes()
    with pytest.raises(ImageError, match="jpeg"):
        compressed_to_bgr(stream[: int(kept * len(stream))], "jpeg")


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_image_error(stream: bytes) -> None:
    with pytest.raises(ImageError):
        compressed_to_bgr(stream, "jpeg")


def test_a_depth_stream_is_refused_by_name() -> None:
    with pytest.raises(ImageError, match="depth map"):
        compressed_to_bgr(bytes(100), "16UC1; compressedDepth png")


@pytest.mark.parametrize("padding", [0, 5000, 300_000])
def test_a_jpeg_in_a_padded_buffer_is_whole(padding: int) -> None:
    stream = cv2.imencode(".jpg", picture())[1].tobytes()
    image = compressed_to_bgr(stream + bytes(padding), "jpeg")
    assert (image == compressed_to_bgr(stream, "jpeg")).all()
    with pytest.raises(ImageError, match="truncated"):
        compressed_to_bgr(stream[: len(stream) // 2] + bytes(padding), "jpeg")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_compressed_mosaic_gives_the_colors_back(pattern: str, bits: int) -> None:
    mosaic = mosaic_of(picture(), pattern)
    stored = mosaic.astype(np.uint8) if bits == 8 else mosaic * 257
    stream = cv2.imencode(".png", stored)[1].tobytes()
    image = compressed_to_bgr(stream, f"bayer_{pattern}{bits}; png compressed ")
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(image[inner].astype(int) - picture()[inner]).max() <= 3


def test_a_stream_that_has_colors_already_is_no_mosaic() -> None:
    stream = cv2.imencode(".png", picture())[1].tobytes()
    image = compressed_to_bgr(stream, "bayer_rggb8; png compressed bgr8")
    assert (image == picture()).all()


def test_a_picture_that_is_too_large_is_refused_unread() -> None:
    stream = cv2.imencode(".png", picture())[1].tobytes()
    with pytest.raises(ImageError, match=r"64x48 pixels, more than the limit of 0\.003 million"):
        ImageDecoder(max_pixels=3000).decode(SimpleNamespace(data=stream, format="png"))
