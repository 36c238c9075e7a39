"""Raw image messages: packed encodings are viewed in place, and what does not fit is refused."""

from __future__ import annotations

import array
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_messages import picture, raw_to_bgr

from siamcar_ros.data.image_messages import CONVERTED_ENCODINGS, PACKED_ENCODINGS, ImageDecoder
from siamcar_ros.data.images import ImageError

# Where blue, green and red stand in a pixel of each packed encoding.
BGR_POSITIONS = {
    "bgr8": (0, 1, 2),
    "rgb8": (2, 1, 0),
    "bgra8": (0, 1, 2),
    "rgba8": (2, 1, 0),
    "mono8": (0, 0, 0),
    "8UC1": (0, 0, 0),
    "8UC3": (0, 1, 2),
    "8UC4": (0, 1, 2),
}


def bytes_per_pixel(encoding: str) -> int:
    return {"mono8": 1, "8UC1": 1, "bgra8": 4, "rgba8": 4, "8UC4": 4}.get(encoding, 3)


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


def test_every_packed_encoding_is_in_the_table() -> None:
    assert set(BGR_POSITIONS) == set(PACKED_ENCODINGS)


@settings(deadline=None)
@given(
    encoding=st.sampled_from(PACKED_ENCODINGS),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 5),
    full_last_row=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_packed_encodings_read_the_bytes_that_the_format_names(
    encoding: str, height: int, width: int, padding: int, full_last_row: bool, seed: int
) -> None:
    channels = bytes_per_pixel(encoding)
    step = width * channels + padding
    data = noise(step * height if full_last_row else step * height - padding, seed)
    image = raw_to_bgr(data, height=height, width=width, encoding=encoding, step=step)
    expected = [
        [[data[y * step + x * channels + c] for c in BGR_POSITIONS[encoding]] for x in range(width)]
        for y in range(height)
    ]
    assert image.dtype == np.uint8
    assert image.tolist() == expected


@pytest.mark.parametrize("encoding", PACKED_ENCODINGS)
def test_packed_encodings_are_views_of_the_message(encoding: str) -> None:
    channels = bytes_per_pixel(encoding)
    data = array.array("B", bytes(4 * (5 * channels + 3)))
    image = raw_to_bgr(data, height=4, width=5, encoding=encoding, step=5 * channels + 3)
    assert not image.any()
    for i in range(len(data)):
        data[i] = 255
    assert (image == 255).all()


def test_an_unknown_encoding_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(ImageError, match="'32FC1' is not supported") as refusal:
        raw_to_bgr(bytes(16), height=2, width=2, encoding="32FC1", step=8)
    for encoding in PACKED_ENCODINGS + CONVERTED_ENCODINGS:
        assert encoding in str(refusal.value)


@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "mono16", "yuv422", "bayer_rggb8"])
@pytest.mark.parametrize(
    ("height", "width", "step", "size", "message"),
    [
        (4, 4, 64, 255 - 60, "bytes of data"),
        (4, 4, 3, 256, "step 3"),
        (4, 4, 0, 256, "step 0"),
        (0, 4, 64, 256, "empty"),
        (4, 0, 64, 256, "empty"),
        (4, 4, 64, 0, "bytes of data"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    encoding: str, height: int, width: int, step: int, size: int, message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        raw_to_bgr(bytes(size), height=height, width=width, encoding=encoding, step=step)


def test_what_the_converter_cannot_do_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="3x1 yuv422 image"):
        raw_to_bgr(bytes(6), height=1, width=3, encoding="yuv422", step=6)


def test_messages_of_any_class_are_read_by_their_fields() -> None:
    color = picture()
    raw = SimpleNamespace(
        height=48, width=64, encoding="bgr8", step=192, is_bigendian=0, data=color.tobytes()
    )
    assert (ImageDecoder().decode(raw) == color).all()
    compressed = SimpleNamespace(format="png", data=cv2.imencode(".png", color)[1].tobytes())
    assert (ImageDecoder().decode(compressed) == color).all()


@pytest.mark.parametrize(
    "message",
    [
        SimpleNamespace(format="jpeg", data=b""),
        SimpleNamespace(format="jpeg", data=bytes(200_000)),
        SimpleNamespace(format="jpeg", data=b"no picture"),
        SimpleNamespace(format="16UC1; compressedDepth png", data=bytes(100)),
        SimpleNamespace(format="png", data=cv2.imencode(".png", picture(80, 80))[1].tobytes()),
        *(
            SimpleNamespace(height=4, width=4, step=16, is_bigendian=0, data=bytes(9), encoding=e)
            for e in ("bgr8", "mono16", "nv12", "yuyv", "sepia8")
        ),
    ],
)
def test_what_cannot_be_decoded_is_refused_before_it_is(message: SimpleNamespace) -> None:
    decoder = ImageDecoder(max_pixels=6000)
    for refuse in (decoder.check, decoder.decode):
        with pytest.raises(ImageError, match=getattr(message, "encoding", "compressed image")):
            refuse(message)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_what_can_be_decoded_passes_the_check(suffix: str) -> None:
    stream = array.array("B", cv2.imencode(suffix, picture())[1].tobytes())
    ImageDecoder().check(SimpleNamespace(format="", data=stream))
    for encoding in PACKED_ENCODINGS + CONVERTED_ENCODINGS:
        fields = {"height": 4, "width": 4, "step": 64, "is_bigendian": 0, "encoding": encoding}
        ImageDecoder().check(SimpleNamespace(data=bytes(640), **fields))


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("bgr8", "bgr"), ("rgb8", "rgb"), ("bgra8", "bgra"), ("rgba8", "rgba"), ("mono8", "gray")],
)
def test_packed_images_keep_the_order_of_their_channels(encoding: str, order: str) -> None:
    channels = 1 if order == "gray" else len(order)
    data = np.random.default_rng(0).integers(0, 255, (4, 6 * channels), np.uint8)
    message = SimpleNamespace(
        data=data.tobytes(), height=4, width=6, step=6 * channels, encoding=encoding, is_bigendian=0
    )
    stored = ImageDecoder().read(message)
    assert stored.order == order
    assert stored.array.base is not None, "a copy"
    np.testing.assert_array_equal(stored.bgr(), ImageDecoder().decode(message))


def checked(**fields: Any) -> SimpleNamespace:
    whole: dict[str, Any] = {"height": 4, "width": 6, "step": 18, "encoding": "bgr8"}
    whole |= {"data": bytes(72), "is_bigendian": 0}
    return SimpleNamespace(**whole | fields)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data": b""}, "0 bytes of data"),
        ({"step": 17}, "step 17"),
        ({"height": 0}, "empty"),
        ({"encoding": "nonsense"}, "'nonsense' is not supported"),
        ({"encoding": "rgb16", "step": 18}, "step 18"),
        ({"encoding": "bayer_rggb8", "step": 6, "data": bytes(23)}, "23 bytes of data"),
        ({"encoding": "nv12", "step": 5}, "step 5"),
    ],
)
def test_a_check_refuses_what_the_header_shows(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        ImageDecoder().check(checked(**fields))
    ImageDecoder().check(checked())


@pytest.mark.parametrize("data", [b"", bytes(100), b"GIF89a" + bytes(50), b"\xff\xd8\xff"])
def test_a_check_refuses_streams_of_no_known_format(data: bytes) -> None:
    message = SimpleNamespace(data=data, format="jpeg")
    with pytest.raises(ImageError, match="cannot be decoded"):
        ImageDecoder().check(message)
    whole = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    ImageDecoder().check(SimpleNamespace(data=whole, format="jpeg"))
