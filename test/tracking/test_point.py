"""The box of an object about a point on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from siamcar_ros.cli import main
from siamcar_ros.data.film import open_source
from siamcar_ros.geometry import box_center, overlap
from siamcar_ros.tracking import SiamCarTracker, TargetError, box_about
from siamcar_ros.tracking.stored_image import StoredImage

SIZE = 25


class Bright:
    """A network to which an object is what is red, whatever the template shows."""

    takes_pixels, score_size, offset, stride = True, SIZE, 32, 8

    def template(self, z: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return z

    def __call__(self, x: NDArray[np.uint8], template: NDArray[np.uint8]) -> Any:
        answers = [self._one(each) for each in x]
        return tuple(np.stack(part).astype(np.float32) for part in zip(*answers, strict=True))

    def _one(self, crop: NDArray[np.uint8]) -> Any:
        at = self.offset + self.stride * np.arange(SIZE)
        y, x = np.nonzero(crop[..., 2] > 127)
        if not len(x) or max(np.ptp(x), np.ptp(y)) > 200:  # nothing, or more than the crop
            nowhere = np.zeros((SIZE, SIZE))
            return np.stack((nowhere + 9, nowhere - 9)), np.ones((4, SIZE, SIZE)), nowhere[None]
        left, right = at - x.min(), x.max() + 1 - at
        top, bottom = at - y.min(), y.max() + 1 - at
        inside = (left > 0) & (right > 0) & ((top > 0) & (bottom > 0))[:, None]
        reg = np.stack(np.broadcast_arrays(left, top[:, None], right, bottom[:, None]))
        cls = np.stack((np.zeros(inside.shape), np.where(inside, 6.0, -6.0)))
        return cls, reg.clip(0.1), np.full((1, SIZE, SIZE), 3.0)


def image_with(box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    image = np.full((240, 320, 3), 60, np.uint8)
    x, y, w, h = box
    image[y : y + h, x : x + w, 2] = 250
    return image


@pytest.mark.parametrize("box", [(100, 60, 80, 40), (20, 30, 16, 50), (200, 150, 12, 10)])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.34, 0.66)])
def test_the_object_is_found_from_its_middle_third(
    box: tuple[int, int, int, int], place: tuple[float, float]
) -> None:
    x, y, w, h = box
    point = (x + place[0] * w, y + place[1] * h)
    image = image_with(box)
    found = box_about(Bright(), image, point)
    assert overlap(found, box) > 0.8
    assert box_about(Bright(), StoredImage(image[..., ::-1], "rgb"), point) == found


def test_a_point_on_nothing_or_outside_is_refused() -> None:
    image = image_with((100, 60, 80, 40))
    with pytest.raises(TargetError, match=r"no clear object around the point \(20, 200\)"):
        box_about(Bright(), image, (20, 200))
    with pytest.raises(TargetError, match=r"\(320, 5\) lies outside the 320x240 image"):
        box_about(Bright(), image, (320, 5))
    with pytest.raises(TargetError, match="outside"):
        box_about(Bright(), image, (np.nan, 5))


def test_a_point_is_typed(tmp_path: Path) -> None:
    source, file = open_source("clip"), tmp_path / "boxes.txt"
    assert source.boxes is not None
    x, y = box_center(source.boxes[0])
    arguments = ["track", "clip", "--point", f"{x},{y}", "--frames", "2", "--boxes", str(file)]
    assert main(arguments) == 0
    assert (overlap(np.loadtxt(file, delimiter=","), source.boxes[:2]) > 0.5).all()


def test_the_shipped_network_finds_the_car_of_the_shipped_film() -> None:
    source = open_source("clip")
    assert source.boxes is not None
    network = SiamCarTracker.from_config("compact", threads=1).network
    images = iter(source.images())
    overlaps = []
    for index in range(3):
        box = source.boxes[index]
        overlaps.append(overlap(box_about(network, next(images), box_center(box)), box))
    assert np.median(overlaps) > 0.5
