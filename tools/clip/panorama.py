"""The pictures of the pan-tilt simulation: the clip's yard, a car from all sides, and a bush.

    python -m clip.panorama films/yard [--seed 0]

Writes panorama.jpg, car.webp (a sheet of views) and bush.webp. Their sizes and scales are constants
of `siamcar_ros.ros.pan_tilt_scene`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from clip import textures
from clip.car import shadow
from clip.render import Clip
from clip.scene import (
    Camera,
    Image,
    Thing,
    draw_backdrop,
    draw_ground,
    draw_part,
    draw_thing,
    paste,
)
from siamcar_ros.ros.pan_tilt_scene import (
    BUSH_METERS,
    BUSH_SCALE,
    CAR_DISTANCE,
    CELL,
    EYE_HEIGHT,
    FOCAL,
    PANORAMA,
    PITCH,
    SHEET,
)


def panorama(clip: Clip) -> Image:
    """The yard without what moves, (H, W, 3), as a pinhole camera of a wide angle sees it."""
    camera = Camera(clip._eye, 0.0, PITCH, 0.0, FOCAL, PANORAMA)
    image = np.zeros((PANORAMA[1], PANORAMA[0], 3), np.uint8)
    draw_backdrop(image, camera, clip._sky_corners, clip._sky)
    draw_ground(image, camera, clip._ground)
    for part in clip._shadows:
        if (patch := draw_part(part, camera)) is not None:
            paste(image, patch)
    # The last two hide the clip's target.
    for thing in sorted(clip._standing[:-2], key=lambda each: -float(each.anchor[2])):
        if (patch := draw_thing(thing, camera)) is not None:
            paste(image, patch)
    return image


def car_sheet(clip: Clip) -> Image:
    """The target seen from all sides with its shadow: a sheet of (H, W, 4) premultiplied views."""
    columns, rows = SHEET
    width, height = CELL
    eye = np.array((0.0, EYE_HEIGHT, 0.0))
    pitch = -float(np.arctan2(EYE_HEIGHT, CAR_DISTANCE))
    camera = Camera(eye, 0.0, pitch, 0.0, FOCAL, CELL)
    place = np.array((0.0, CAR_DISTANCE))
    sheet = np.zeros((rows * height, columns * width, 4), np.uint8)
    for index in range(columns * rows):
        heading = 2 * np.pi * index / (columns * rows)
        view = np.zeros((height, width, 4), np.uint8)
        car, _ = clip._target.place(place, heading, 0.0)
        below = Thing([shadow(clip._shadow, place, heading)], car.anchor)
        for thing in (below, car):
            if (patch := draw_thing(thing, camera)) is not None:
                paste(view, patch)
        row, column = divmod(index, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = view
    return sheet


def bush(rng: np.random.Generator) -> Image:
    """A bush that is as wide as it is high, (H, W, 4) premultiplied."""
    side = round(BUSH_METERS * BUSH_SCALE)
    leaves = textures.foliage(rng)
    crown = cv2.resize(leaves, (side, side), interpolation=cv2.INTER_AREA).astype(float)
    crown[..., :3] *= crown[..., 3:] / 255
    return np.clip(crown, 0, 255).astype(np.uint8)


def main(arguments: list[str] | None = None) -> int:
    """Write the pictures from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write them")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    clip = Clip(given.seed)
    pictures = {
        "panorama.jpg": (panorama(clip), [cv2.IMWRITE_JPEG_QUALITY, 88]),
        "car.webp": (car_sheet(clip), [cv2.IMWRITE_WEBP_QUALITY, 80]),
        "bush.webp": (bush(np.random.default_rng(given.seed)), [cv2.IMWRITE_WEBP_QUALITY, 80]),
    }
    for name, (picture, options) in pictures.items():
        if not cv2.imwrite(str(given.folder / name), picture, options):
            raise OSError(f"{given.folder / name} could not be written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
