"""Image messages to BGR: values against a plain per-pixel reading, no copies, clear refusals."""

from __future__ import annotations

import array
import sys
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamcar_ros.data.image_messages import (
    CONVERTED_ENCODINGS,
    PACKED_ENCODINGS,
    ImageDecoder,
)
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


def raw(data: Any, **fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"data": data, "is_bigendian": 0, **fields})


def raw_to_bgr(data: Any, **fields: Any) -> np.ndarray:
    return ImageDecoder().decode(raw(data, **fields))


def compressed_to_bgr(data: Any, format: str) -> np.ndarray:
    return ImageDecoder().decode(SimpleNamespace(data=data, format=format))


def bytes_per_pixel(encoding: str) -> int:
    return {"mono8": 1, "8UC1": 1, "bgra8": 4, "rgba8": 4, "8UC4": 4}.get(encoding, 3)


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture, so that lossy and demosaiced copies stay near it."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    return np.stack([200 - 2 * x, 40 + 2 * y, 30 + x + y], axis=-1).astype(np.uint8)


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


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_sixteen_bit_grey_honours_byte_order_and_step(encoding: str, bigendian: bool) -> None:
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
    mosaic = np.zeros(color.shape[:2], np.uint16)
    for i, letter in enumerate(pattern):
        y, x = divmod(i, 2)
        mosaic[y::2, x::2] = color[y::2, x::2, "bgr".index(letter)]
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


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_compressed_images_decode(extension: str) -> None:
    stream = cv2.imencode(extension, picture())[1].tobytes()
    image = compressed_to_bgr(array.array("B", stream), f"bgr8; {extension[1:]} compressed bgr8")
    assert np.abs(image.astype(int) - picture()).max() <= 12


def test_grey_and_deep_compressed_images_come_out_as_bgr() -> None:
    grey = picture()[..., 0]
    deep = cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes()
    image = compressed_to_bgr(deep, "mono16; png compressed ")
    assert np.abs(image.astype(int) - grey[..., None]).max() <= 1


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


def test_messages_of_any_class_are_read_by_their_fields() -> None:
    color = picture()
    raw = SimpleNamespace(
        height=48, width=64, encoding="bgr8", step=192, is_bigendian=0, data=color.tobytes()
    )
    assert (ImageDecoder().decode(raw) == color).all()
    compressed = SimpleNamespace(format="png", data=cv2.imencode(".png", color)[1].tobytes())
    assert (ImageDecoder().decode(compressed) == color).all()


def test_a_half_installed_cv_bridge_is_not_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python half imports, and fails for want of the other half when it is used."""

    class CvBridge:
        def imgmsg_to_cv2(self, *arguments: Any, **options: Any) -> Any:
            raise ModuleNotFoundError("No module named 'cv_bridge.boost.cv_bridge_boost'")

    half = SimpleNamespace(CvBridge=CvBridge, CvBridgeError=TypeError)
    monkeypatch.setitem(sys.modules, "cv_bridge", half)
    image = raw_to_bgr(noise(2 * 48), height=6, width=8, encoding="yuyv", step=16)
    assert image.shape == (6, 8, 3)


@pytest.mark.parametrize("padding", [0, 5000, 300_000])
def test_a_jpeg_in_a_padded_buffer_is_whole(padding: int) -> None:
    stream = cv2.imencode(".jpg", picture())[1].tobytes()
    image = compressed_to_bgr(stream + bytes(padding), "jpeg")
    assert (image == compressed_to_bgr(stream, "jpeg")).all()
    with pytest.raises(ImageError, match="truncated"):
        compressed_to_bgr(stream[: len(stream) // 2] + bytes(padding), "jpeg")


def mosaic_of(color: np.ndarray, pattern: str) -> np.ndarray:
    mosaic = np.zeros(color.shape[:2], np.uint16)
    for i, letter in enumerate(pattern):
        y, x = divmod(i, 2)
        mosaic[y::2, x::2] = color[y::2, x::2, "bgr".index(letter)]
    return mosaic


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


def deep(values: np.ndarray, decoder: ImageDecoder) -> np.ndarray:
    height, width = values.shape
    data = values.astype("<u2").tobytes()
    message = raw(data, height=height, width=width, encoding="mono16", step=2 * width)
    return decoder.decode(message)[..., 0]


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_significant_bits_are_found_and_said_once(bits: int) -> None:
    said: list[str] = []
    decoder = ImageDecoder(say=said.append)
    ramp = np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16).reshape(16, 16)
    expected = np.arange(256).reshape(16, 16)
    for _ in range(3):
        assert np.abs(deep(ramp, decoder).astype(int) - expected).max() <= 1
    assert len(said) == 1
    assert f"{bits} significant bits" in said[0]
    half = deep(ramp // 2, decoder).astype(int)
    assert np.abs(half - expected / 2).max() <= 1, "a darker image stays darker"
    stream = cv2.imencode(".png", ramp)[1].tobytes()
    compressed = compressed_to_bgr(stream, "mono16; png compressed ")
    assert np.abs(compressed[..., 1].astype(int) - expected).max() <= 1


def test_more_significant_bits_than_before_are_taken_and_said() -> None:
    said: list[str] = []
    decoder = ImageDecoder(say=said.append)
    assert deep(np.full((2, 2), 512), decoder)[0, 0] == 128
    assert deep(np.full((2, 2), 4095), decoder)[0, 0] == 255
    assert deep(np.full((2, 2), 512), decoder)[0, 0] == 32
    assert [text.split("so ")[-1][:7] for text in said] == ["10 sign", "12 sign"]


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        ("bits:14", [107, 112, 117, 123, 128]),
        ("range:7000,8000", [0, 35, 103, 171, 240]),
        ("percentile:0,100", [0, 64, 128, 191, 255]),
    ],
)
def test_thermal_counts_are_scaled_as_asked(depth: str, expected: list[int]) -> None:
    said: list[str] = []
    decoder = ImageDecoder(depth, say=said.append)
    counts = np.linspace(6868, 8192, 5 * 16).reshape(5, 16)
    if depth.startswith("percentile"):
        counts = np.repeat(np.linspace(6868, 8192, 5), 4)[:, None].repeat(16, 1)
    for _ in range(2):
        rows = deep(counts, decoder)[:, 0]
    found = rows[::4] if len(rows) == 20 else rows
    assert np.abs(found.astype(int) - expected).max() <= 4
    assert len(said) == 1


@pytest.mark.parametrize(
    "depth", ["", "bits", "bits:7", "bits:12.5", "bits:x", "auto:3", "range:5", "range:9,2",
              "range:-1,5", "percentile:1", "percentile:0,101", "linear:0,1", "range:nan,5"]
)  # fmt: skip
def test_a_depth_that_is_none_is_refused_with_the_forms(depth: str) -> None:
    with pytest.raises(ValueError, match="percentile:LOW,HIGH"):
        ImageDecoder(depth)


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


def test_a_picture_that_is_too_large_is_refused_unread() -> None:
    stream = cv2.imencode(".png", picture())[1].tobytes()
    with pytest.raises(ImageError, match=r"64x48 pixels, more than the limit of 0\.003 million"):
        ImageDecoder(max_pixels=3000).decode(SimpleNamespace(data=stream, format="png"))


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
