"""A small 3-D scene of textured quadrilaterals, drawn by perspective warps.

World axes in meters: X to the right, Y up, Z away from the camera; the ground is Y = 0. A thing is
a group of flat textured parts, so a camera that pans gives true perspective, parallax and turning
objects, and the outline of a thing on the screen is known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]

NEAR = 0.3  # meters: nothing closer to the camera is drawn


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        position: (3,) meters.
        yaw: radians, positive to the right.
        pitch: radians, positive upwards.
        roll: radians.
        focal: focal length in pixels.
        size: (width, height) in pixels; the principal point is the middle.
    """

    position: Points
    yaw: float
    pitch: float
    roll: float
    focal: float
    size: tuple[int, int]

    @cached_property
    def rotation(self) -> Points:
        """(3, 3) from the world's axes to the camera's: to the right, upward, forward."""
        (cy, cp, cr), (sy, sp, sr) = (
            np.cos([self.yaw, self.pitch, self.roll]),
            np.sin([self.yaw, self.pitch, self.roll]),
        )
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return np.asarray(tilt @ nod @ turn)

    @cached_property
    def projection(self) -> Points:
        """(3, 4) matrix from world meters to homogeneous pixels; its third row gives the depth."""
        width, height = self.size
        lens = np.array(
            [[self.focal, 0, width / 2], [0, -self.focal, height / 2], [0, 0, 1]], dtype=np.float64
        )
        rotation = self.rotation
        return lens @ np.hstack([rotation, -(rotation @ self.position)[:, None]])

    def project(self, points: Points) -> tuple[Points, Points]:
        """Pixels (N, 2) and depths in meters (N,) of world points (N, 3)."""
        homogeneous = points @ self.projection[:, :3].T + self.projection[:, 3]
        depth = homogeneous[:, 2]
        return homogeneous[:, :2] / np.maximum(depth, 1e-6)[:, None], depth


class Texture:
    """A picture with its halved copies, so that a small face is drawn without aliasing.

    Args:
        image: (H, W, 3) BGR or (H, W, 4) BGRA uint8, alpha not yet multiplied in.
    """

    def __init__(self, image: Image) -> None:
        if image.shape[2] == 4:
            premultiplied = image.copy()
            for channel in range(3):
                premultiplied[..., channel] = cv2.multiply(
                    image[..., channel], image[..., 3], scale=1 / 255
                )
        else:
            premultiplied = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        self.levels: list[Image] = [premultiplied]
        while min(self.levels[-1].shape[:2]) >= 8:
            height, width = self.levels[-1].shape[:2]
            smaller = cv2.resize(
                self.levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA
            )
            self.levels.append(np.asarray(smaller, np.uint8))

    def level(self, texels_per_pixel: float) -> Image:
        """The copy whose texels are nearest to one screen pixel."""
        step = int(np.clip(np.floor(np.log2(max(texels_per_pixel, 1.0)) + 0.35), 0, 99))
        return self.levels[min(step, len(self.levels) - 1)]


@dataclass(frozen=True)
class Part:
    """A flat textured face.

    Attributes:
        corners: (4, 3) world meters: the texture's top left, top right, bottom right, bottom left.
        texture: the picture on it.
        light: factor on the picture's brightness.
        one_sided: not drawn when seen from behind (corners anticlockwise on the screen).
    """

    corners: Points
    texture: Texture
    light: float = 1.0
    one_sided: bool = False


@dataclass(frozen=True)
class Thing:
    """Parts that are drawn together, the first ones lowest, at the depth of `anchor` (3,)."""

    parts: list[Part]
    anchor: Points


@dataclass(frozen=True)
class Patch:
    """Premultiplied BGRA pixels and where their top left corner lies on the screen."""

    pixels: Image
    x: int
    y: int


def draw_part(part: Part, camera: Camera, margin: int = 2) -> Patch | None:
    """The part as seen by the camera, or None where it is out of sight."""
    corners, depth = camera.project(part.corners)
    if depth.min() < NEAR:
        return None
    area = cv2.contourArea(corners.astype(np.float32), oriented=True)
    if abs(area) < 1.0 or (part.one_sided and area < 0):
        return None
    width, height = camera.size
    x1, y1 = np.maximum(np.floor(corners.min(0)).astype(int) - margin, -margin)
    x2, y2 = np.minimum(
        np.ceil(corners.max(0)).astype(int) + margin, (width + margin, height + margin)
    )
    if x2 <= x1 or y2 <= y1:
        return None
    rows, columns = part.texture.levels[0].shape[:2]
    picture = part.texture.level(float(np.sqrt(rows * columns / abs(area))))
    rows, columns = picture.shape[:2]
    source = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32) - 0.5
    target = (corners - (x1 + 0.5, y1 + 0.5)).astype(np.float32)
    pixels = cv2.warpPerspective(
        picture, cv2.getPerspectiveTransform(source, target), (int(x2 - x1), int(y2 - y1))
    )
    if part.light != 1.0:
        pixels = cv2.multiply(pixels, np.array((*[part.light] * 3, 1.0)))
    return Patch(np.asarray(pixels, np.uint8), int(x1), int(y1))


def _over(below: Image, above: Image) -> None:
    """Lay premultiplied BGRA `above` on `below` (BGR or premultiplied BGRA) in place."""
    channels = below.shape[2]
    clear = cv2.bitwise_not(above[..., 3])
    kept = cv2.multiply(below, cv2.merge([clear] * channels), scale=1 / 255)
    cv2.add(kept, above if channels == 4 else above[..., :3], dst=below)


def draw_thing(thing: Thing, camera: Camera) -> Patch | None:
    """All parts of the thing that can be seen, as one patch."""
    seen = [patch for part in thing.parts if (patch := draw_part(part, camera)) is not None]
    if len(seen) < 2:
        return seen[0] if seen else None
    x1, y1 = min(patch.x for patch in seen), min(patch.y for patch in seen)
    x2 = max(patch.x + patch.pixels.shape[1] for patch in seen)
    y2 = max(patch.y + patch.pixels.shape[0] for patch in seen)
    canvas = np.zeros((y2 - y1, x2 - x1, 4), np.uint8)
    for patch in seen:
        height, width = patch.pixels.shape[:2]
        top, left = patch.y - y1, patch.x - x1
        _over(canvas[top : top + height, left : left + width], patch.pixels)
    return Patch(canvas, x1, y1)


def blur(patch: Patch, motion: Points) -> Patch:
    """Smear a patch along `motion` (2,) pixels, the way it moved while the shutter was open."""
    kernel = blur_kernel(motion)
    if kernel is None:
        return patch
    pad = max(kernel.shape) // 2
    wide = cv2.copyMakeBorder(patch.pixels, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    smeared = cv2.filter2D(wide, -1, kernel)
    return Patch(np.asarray(smeared, np.uint8), patch.x - pad, patch.y - pad)


def blur_kernel(motion: Points) -> npt.NDArray[np.float32] | None:
    """A line filter of the motion's length and direction; None where it is too short to see."""
    length = float(np.hypot(*motion))
    if length < 1.2:
        return None
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    for along in np.linspace(-0.5, 0.5, 4 * size):
        x, y = motion * along + size // 2
        left, top = min(int(x), size - 1), min(int(y), size - 1)
        for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
            for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                if 0 <= row < size and 0 <= column < size:
                    kernel[row, column] += share_x * share_y
    return kernel / kernel.sum()


def paste(frame: Image, patch: Patch) -> tuple[slice, slice, Image] | None:
    """Lay the patch on a BGR or premultiplied BGRA frame; gives the rows, columns and alpha."""
    height, width = frame.shape[:2]
    rows, columns = patch.pixels.shape[:2]
    top, left = max(patch.y, 0), max(patch.x, 0)
    bottom, right = min(patch.y + rows, height), min(patch.x + columns, width)
    if bottom <= top or right <= left:
        return None
    above = patch.pixels[top - patch.y : bottom - patch.y, left - patch.x : right - patch.x]
    below = frame[top:bottom, left:right]
    _over(below, above)
    return slice(top, bottom), slice(left, right), above[..., 3]


def draw_backdrop(frame: Image, camera: Camera, corners: Points, picture: Image) -> None:
    """Draw an opaque far picture (H, W, 3) on a frame in place; corners (4, 3) as in `Part`.

    Its plane is mapped as a whole, so that corners behind the camera do no harm.
    """
    rows, columns = picture.shape[:2]
    across, down = (corners[1] - corners[0]) / columns, (corners[3] - corners[0]) / rows
    projection = camera.projection
    plane = projection[:, :3] @ np.stack([across, down, corners[0]], 1)
    plane[:, 2] += projection[:, 3]
    cv2.warpPerspective(picture, plane, camera.size, dst=frame, borderMode=cv2.BORDER_TRANSPARENT)


@dataclass(frozen=True)
class Ground:
    """The ground between two distances, seen from above.

    Attributes:
        picture: (H, W, 3) BGR, its top edge farthest away.
        extent: x1, z1, x2, z2 in world meters that the picture covers.
        near: distance in meters from which on it is drawn.
        far: distance in meters up to which it is drawn.
    """

    picture: Image
    extent: tuple[float, float, float, float]
    near: float
    far: float


def draw_ground(frame: Image, camera: Camera, bands: Sequence[Ground]) -> None:
    """Draw the ground plane below the horizon on a BGR frame, in place."""
    width, height = camera.size
    middle = height / 2 + camera.focal * np.tan(camera.pitch)
    horizon = middle / np.cos(camera.roll) + abs(np.tan(camera.roll)) * width / 2 + 2
    plane = camera.projection[:, [0, 2, 3]]
    for band in bands:
        fall = camera.focal * camera.position[1]
        top = max(int(middle + fall / band.far), int(horizon), 0)
        bottom = min(int(middle + fall / band.near), height)
        if bottom <= top:
            continue
        rows, columns = band.picture.shape[:2]
        x1, z1, x2, z2 = band.extent
        meters = np.array([[(x2 - x1) / columns, 0, x1], [0, (z1 - z2) / rows, z2], [0, 0, 1.0]])
        shift = np.array([[1, 0, 0], [0, 1, -top], [0, 0, 1.0]])
        cv2.warpPerspective(
            band.picture,
            shift @ plane @ meters,
            (width, bottom - top),
            dst=frame[top:bottom],
            borderMode=cv2.BORDER_TRANSPARENT,
        )
