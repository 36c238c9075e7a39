"""The pan-tilt simulation's world: a yard where a car drives back and forth, once behind a bush.

A view is cut from a wide picture of the yard, and pictures of the car and the bush are laid on it.
tools/clip, which is not installed, has rendered them from its 3-D scene. World axes in meters: X to
the right, Z forward, the camera above the origin. Angles in radians, positive to the right and
upward.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.geometry import Box, Image
from siamcar_ros.resources import resource_path

SIZE = (640, 480)  # width and height of the camera's images
FOCAL = 600.0  # pixels, of the panorama and of the camera
PANORAMA = (1600, 720)
PITCH = -0.1  # of the panorama's optical axis
EYE_HEIGHT = 3.3
CAR_DISTANCE = 24.0  # from which the car's views were rendered
CELL, SHEET = (224, 112), (9, 8)  # size of a view; columns and rows of the sheet
BUSH_METERS, BUSH_SCALE = 4.6, 40.0  # side, and pixels per meter of its picture

Matrix = NDArray[np.float64]

# The car drives to the right along an arc behind the bush, and reverses along one in front of it.
# It is in the middle of the far arc, behind the bush, at 13 s and again every 18 s.
_MIDDLE, _REACH = np.array((0.0, 30.0)), np.array((12.0, 3.0))  # (2,) X and Z of the lap
_LAP_SECONDS, _FAR_AT = 18.0, 13.0
_BUSH = np.array((0.0, 29.0))


class View(NamedTuple):
    """What the camera sees at one moment.

    Attributes:
        image: (H, W, 3) BGR.
        box: (x, y, w, h) of the whole car in pixels, including hidden parts.
        visible: share of the car that the bush does not hide and that is in the image.
        target: the car's azimuth and elevation in the world, of the box's center.
    """

    image: Image
    box: Box
    visible: float
    target: tuple[float, float]


class Scene:
    """Renders views for any moment and any direction of the camera."""

    def __init__(self) -> None:
        self._panorama = _read("panorama.jpg")
        self._car, self._bush = _read("car.webp"), _read("bush.webp")

    def view(self, seconds: float, pan: float, tilt: float) -> View:
        """Render the scene at a time as seen by the camera turned by `pan` and `tilt`."""
        camera = _lens(SIZE) @ _rotation(pan, tilt)
        wide = _lens(PANORAMA) @ _rotation(0.0, PITCH)
        image = np.asarray(
            cv2.warpPerspective(self._panorama, camera @ np.linalg.inv(wide), SIZE), np.uint8
        )
        place, heading = _car_at(seconds)
        car = self._car_picture(heading - float(np.arctan2(*place)))
        anchor = (CELL[0] / 2, CELL[1] / 2)
        onto = _placed(camera, place, anchor, CAR_DISTANCE / FOCAL)
        whole = float(car[..., 3].sum()) * float(onto[0, 0]) ** 2
        bush = self._bush  # its lowest leaves are in front of its foot
        root = (bush.shape[1] / 2, 0.84 * bush.shape[0])
        before = _placed(camera, _BUSH, root, 1 / BUSH_SCALE)
        if _BUSH[1] < place[1]:
            seen = _lay(image, car, onto).astype(float)
            seen *= 1 - _lay(image, bush, before) / 255
        else:
            _lay(image, bush, before)
            seen = _lay(image, car, onto).astype(float)
        box = _bounds(car, onto)
        x, y, w, h = box
        ray = np.linalg.inv(camera) @ (x + w / 2 - 0.5, y + h / 2 - 0.5, 1.0)
        target = (
            float(np.arctan2(ray[0], ray[2])),
            float(np.arctan2(-ray[1], np.hypot(ray[0], ray[2]))),
        )
        return View(image, box, float(seen.sum()) / whole, target)

    def _car_picture(self, angle: float) -> Image:
        """The car's picture at an angle in radians between its heading and the line of sight."""
        (columns, rows), (width, height) = SHEET, CELL
        index = round(angle / (2 * np.pi) * columns * rows) % (columns * rows)
        row, column = divmod(index, columns)
        top, left = row * height, column * width
        return self._car[top : top + height, left : left + width]


def _placed(camera: Matrix, place: Matrix, anchor: tuple[float, float], meters: float) -> Matrix:
    """The (2, 3) affine map of an upright picture into the image.

    Args:
        camera: (3, 3), from directions in the world to homogeneous pixels.
        place: (2,) X and Z of the picture's foot.
        anchor: (x, y) of the foot in the picture.
        meters: per pixel of the picture.
    """
    x, y, depth = camera @ (place[0], EYE_HEIGHT, place[1])
    scale = FOCAL * meters / depth
    ax, ay = anchor
    return np.array([[scale, 0, x / depth - scale * ax], [0, scale, y / depth - scale * ay]])


def _car_at(seconds: float) -> tuple[Matrix, float]:
    """The car's place (2,) X and Z, and its heading: 0 along Z, positive towards X."""
    phase = 2 * np.pi * (seconds - _FAR_AT) / _LAP_SECONDS
    (across, away), sine, cosine = _REACH, np.sin(phase), np.cos(phase)
    # Both arcs have the tangent dZ / dX = -3 away / across * sine * cosine.
    heading = np.pi / 2 + np.arctan(3 * away / across * sine * cosine)
    return _MIDDLE + np.array((across * sine, away * cosine**3)), float(heading)


def _rotation(pan: float, tilt: float) -> Matrix:
    """(3, 3) from the world (X right, Y down, Z forward) to a camera turned by pan and tilt."""
    (cp, ct), (sp, st) = np.cos((pan, tilt)), np.sin((pan, tilt))
    turn = np.array([[cp, 0, -sp], [0, 1, 0], [sp, 0, cp]])
    nod = np.array([[1, 0, 0], [0, ct, st], [0, -st, ct]])
    return np.asarray(nod @ turn)


def _lens(size: tuple[int, int]) -> Matrix:
    return np.array([[FOCAL, 0, size[0] / 2 - 0.5], [0, FOCAL, size[1] / 2 - 0.5], [0, 0, 1.0]])


def _lay(image: Image, patch: Image, onto: Matrix) -> NDArray[np.uint8]:
    """Lay a premultiplied BGRA picture on the image in place; return its alpha there, (H, W)."""
    drawn = cv2.warpAffine(patch, onto, SIZE)
    clear = cv2.cvtColor(255 - drawn[..., 3], cv2.COLOR_GRAY2BGR)
    image[:] = cv2.add(cv2.multiply(image, clear, scale=1 / 255), drawn[..., :3])
    return np.asarray(drawn[..., 3])


def _bounds(patch: Image, onto: Matrix) -> Box:
    """The box (x, y, w, h) in the image of a picture's opaque part, which excludes its shadow."""
    x, y, w, h = cv2.boundingRect((patch[..., 3] > 200).astype(np.uint8))
    x1, y1 = (onto[:, :2] @ (x - 0.5, y - 0.5) + onto[:, 2] + 0.5).tolist()
    x2, y2 = (onto[:, :2] @ (x + w - 0.5, y + h - 0.5) + onto[:, 2] + 0.5).tolist()
    return x1, y1, x2 - x1, y2 - y1


def _read(name: str) -> Image:
    file = resource_path(f"films/yard/{name}")
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise OSError(f"{file} cannot be read: OpenCV was built without its format")
    if image.shape[2] == 4:  # premultiplied; compression leaves some colors brighter than alpha
        image[..., :3] = np.minimum(image[..., :3], image[..., 3:])
    return np.asarray(image, np.uint8)
