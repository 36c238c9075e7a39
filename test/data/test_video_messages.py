"""Video packets on a topic, as images."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from siamcar_ros.data.image_messages import ImageDecoder
from siamcar_ros.data.images import ImageError
from siamcar_ros.data.video_messages import VideoDecoder

av = pytest.importorskip("av", reason="PyAV is not installed: pip install av")

WIDTH, HEIGHT = 96, 64


def picture(index: int, width: int = WIDTH) -> NDArray[np.uint8]:
    """A bright square on a gradient, moved by two pixels an image."""
    image = np.full(
        (HEIGHT, width, 3), np.linspace(0, 120, width, dtype=np.uint8)[:, None], np.uint8
    )
    image[20:40, 10 + 2 * index : 30 + 2 * index] = (40, 200, 240)
    return image


def packets(count: int, encoder: str = "libx264", width: int = WIDTH) -> list[Any]:
    """FFMPEGPackets with a key frame every 8, their index as the header."""
    context = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = width, HEIGHT, "yuv420p"
    context.framerate, context.gop_size = 30, 8
    context.options = {"tune": "zerolatency", "preset": "ultrafast"}
    images = [av.VideoFrame.from_ndarray(picture(i, width), format="bgr24") for i in range(count)]
    for i, each in enumerate(images):
        each.pts = i
    made = [packet for each in [*images, None] for packet in context.encode(each)]
    return [
        SimpleNamespace(header=i, encoding=f"{encoder};yuv420p;bgr8;bgr8", data=bytes(packet))
        for i, packet in enumerate(made)
    ]


@pytest.mark.parametrize(("encoder", "width"), [("libx264", 96), ("libx264", 90), ("libx265", 96)])
def test_images_come_out_with_the_headers_of_their_packets(encoder: str, width: int) -> None:
    decoder, pixels = VideoDecoder(), ImageDecoder()
    for index, packet in enumerate(packets(20, encoder, width)):
        (image,) = decoder.decode(packet)
        assert (image.header, image.width, image.height) == (index, width, HEIGHT)
        pixels.check(image)
        difference = np.abs(pixels.decode(image).astype(float) - picture(index, width))
        assert difference.mean() < 12


def test_a_stream_begins_with_its_next_key_frame_and_survives_lost_packets() -> None:
    decoder, sent = VideoDecoder(), packets(32)
    for packet in sent[3:8]:
        with pytest.raises(ImageError, match="images come from the next key frame on"):
            decoder.decode(packet)
    heard = [each for packet in sent[8:16] for each in decoder.decode(packet)]
    assert [each.header for each in heard] == list(range(8, 16))
    heard = []
    for packet in [*sent[16:18], *sent[19:]]:  # one is missing, up to the key frame 24
        with contextlib.suppress(ImageError):
            heard += decoder.decode(packet)
    assert [each.header for each in heard][-8:] == list(range(24, 32))


def test_what_is_no_video_is_refused_and_the_stream_goes_on() -> None:
    first, second = packets(2)
    decoder = VideoDecoder()
    with pytest.raises(ImageError, match="codec 'theora' is not one of h264, hevc, av1, vp9"):
        decoder.decode(SimpleNamespace(header=0, encoding="theora", data=b"x"))
    assert len(decoder.decode(first)) == 1
    with pytest.raises(ImageError, match="cannot be decoded"):
        decoder.decode(SimpleNamespace(header=1, encoding="h264", data=b"\0\0\1\x65 no video"))
    decoder.decode(second)
    with pytest.raises(ImageError, match="96x64 video is larger than 100 pixels"):
        VideoDecoder(max_pixels=100).decode(first)


def test_without_pyav_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="pip install av"):
        VideoDecoder()
