"""Folders of still images with or without masks, and of videos with a mask a frame."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from siamcar_ros.data import DataError, DataFault, build_mixture
from siamcar_ros.data.frames import Frame
from siamcar_ros.data.readers.stills import (
    MaskedVideos,
    StillImages,
    read_segments,
)

Picture = Callable[..., Path]
Check = Callable[[Frame], None]

BOX = (50, 35, 105, 85)


def add_map(image: Path, box: tuple[int, int, int, int]) -> None:
    """A map of segments beside an image: 1 is the ground, 2 the target."""
    segments = np.ones((120, 160), np.uint8)
    segments[box[1] : box[3], box[0] : box[2]] = 2
    cv2.imwrite(str(image.with_suffix(".png")), segments)


def overlap(box: NDArray[np.float32]) -> float:
    """Intersection over union with the target."""
    low, high = np.maximum(box[:2], BOX[:2]), np.minimum(box[2:], BOX[2:])
    common = float(np.prod(high - low))
    areas = [float(np.prod(np.subtract(b[2:], b[:2]))) for b in (box, BOX)]
    return common / (sum(areas) - common)


def test_a_map_of_segments_gives_the_target(
    tmp_path: Path, picture: Picture, check: Check, rng: np.random.Generator
) -> None:
    add_map(picture(tmp_path / "sub/a.jpg", BOX), BOX)
    source = StillImages(tmp_path, rectangles=0)
    assert len(source) == 1, "the map is no image"
    for _ in range(5):
        one, other = source.pair(rng)
        assert one is other
        assert one.mask is not None
        check(one)


SEGMENTS = np.repeat([[0, 1, 2, 3]], 4, 0).astype(np.uint8)
IMAGE = np.zeros((4, 4, 3), np.uint8)


def test_a_palette_is_read_as_its_colors(tmp_path: Path) -> None:
    """Of the usual colors of objects 1 to 3 none has any blue."""
    picture = PIL.Image.fromarray(SEGMENTS)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    picture.save(tmp_path / "a.png")
    found = read_segments(tmp_path / "a.png", IMAGE)
    assert found.dtype == np.uint8
    assert len(np.unique(found[0])) == 4
    assert np.array_equal(found == 0, SEGMENTS == 0)


def test_numbers_of_16_bits_stay_apart(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), SEGMENTS.astype(np.uint16) * 256)
    assert np.array_equal(read_segments(tmp_path / "a.png", IMAGE), SEGMENTS)
    many = np.arange(400, dtype=np.uint16).reshape(20, 20)
    cv2.imwrite(str(tmp_path / "a.png"), many)
    with pytest.raises(DataFault, match="399 segments"):
        read_segments(tmp_path / "a.png", np.zeros((20, 20, 3), np.uint8))


def test_a_map_that_claims_billions_of_pixels_is_refused_unread(tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 99999, 99999, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(header + zlib.crc32(header[12:]).to_bytes(4, "big"))
    with pytest.raises(DataFault, match="99999x99999 pixels, more than the limit"):
        read_segments(tmp_path / "a.png", IMAGE)
    with pytest.raises(DataFault, match="missing"):
        read_segments(tmp_path / "b.png", IMAGE)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPEG", ".bmp"])
def test_a_map_is_no_image_whatever_its_photograph_is_called(
    tmp_path: Path, picture: Picture, suffix: str
) -> None:
    path = picture(tmp_path / "a.png", BOX)
    image = cv2.imread(str(path))
    coded = cv2.imencode(suffix.lower(), image)[1]
    path.with_suffix(suffix).write_bytes(coded.tobytes())
    assert len(StillImages(tmp_path, rectangles=0)) == 1
    path.with_suffix(suffix).unlink()
    assert len(StillImages(tmp_path, rectangles=0)) == 1, "alone it is an image"


def test_without_a_map_the_object_about_the_middle_is_found(
    tmp_path: Path, picture: Picture, rng: np.random.Generator
) -> None:
    picture(tmp_path / "images/a.jpg", BOX)
    cache = tmp_path / "cache"
    for _ in range(2):
        frame = StillImages(tmp_path / "images", rectangles=0, cache=cache).pair(rng)[0]
        assert frame.mask is not None
        assert overlap(frame.box) > 0.6
        assert len(list(cache.iterdir())) == 1


def test_rectangles_lie_in_the_image(
    tmp_path: Path, picture: Picture, rng: np.random.Generator
) -> None:
    picture(tmp_path / "a.jpg", (0, 0, 160, 120))
    source = StillImages(tmp_path)
    for _ in range(50):
        x1, y1, x2, y2 = source.pair(rng)[0].box
        assert 0 <= x1 < x2 <= 160
        assert 0 <= y1 < y2 <= 120


def test_each_image_and_video_is_a_scene(
    tmp_path: Path, picture: Picture, rng: np.random.Generator
) -> None:
    for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"):
        add_map(picture(tmp_path / name, BOX), BOX)
    stills = StillImages(tmp_path, rectangles=0.5)
    assert len({stills.pair(rng)[0].scene for _ in range(60)}) == 4
    pairs = [MaskedVideos(tmp_path).pair(rng) for _ in range(20)]
    assert all(one.scene == other.scene for one, other in pairs)
    assert len({one.scene for one, _ in pairs}) == 2


def test_large_images_are_reduced_with_their_maps(
    tmp_path: Path, picture: Picture, check: Check, rng: np.random.Generator
) -> None:
    add_map(picture(tmp_path / "a.jpg", BOX), BOX)
    frame = StillImages(tmp_path, rectangles=0, short_side=60).pair(rng)[0]
    assert frame.image.shape == (60, 80, 3)
    check(frame)


def test_broken_images_are_named_and_fail_past_their_share(
    tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.jpg", BOX)
    (tmp_path / "d.jpg").write_bytes(b"nothing")
    source = StillImages(tmp_path)
    assert [path.name for path in source.skipped] == ["d.jpg"]
    assert "d.jpg: not an image" in caplog.text
    sets = {"mine": {"kind": "stills", "root": str(tmp_path)}}
    assert build_mixture(sets, 0.25).sizes() == {"mine": 3}
    with pytest.raises(DataError, match="'mine': 1 files are missing or broken"):
        build_mixture(sets, 0.01)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no readable image"):
        StillImages(tmp_path)


def test_masked_videos(
    tmp_path: Path, picture: Picture, check: Check, rng: np.random.Generator
) -> None:
    for i in range(6):
        box = (20 + 5 * i, 30, 60 + 5 * i, 80)
        path = picture(tmp_path / f"bear/{i:05d}.jpg", box)
        mask = np.zeros((120, 160), np.uint8)
        mask[box[1] : box[3], box[0] : box[2]] = 255
        cv2.imwrite(str(path.with_suffix(".png")), mask)
    (tmp_path / "bear/00003.png").unlink()
    source = MaskedVideos(tmp_path, max_gap=1)
    assert [path.name for path in source.skipped] == ["00003.jpg"]
    assert len(source) == 5
    before = source.fingerprint()
    for _ in range(30):
        one, other = source.pair(rng)
        check(one)
        check(other)
        assert abs(float(one.box[0] - other.box[0])) <= 10
    (tmp_path / "bear/00000.jpg").write_bytes((tmp_path / "bear/00001.jpg").read_bytes() + b" ")
    assert MaskedVideos(tmp_path).fingerprint() != before
