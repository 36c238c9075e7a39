"""How 16-bit images are scaled to 8 bits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from image_messages import compressed_to_bgr, raw

from siamcar_ros.data.image_messages import ImageDecoder


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
