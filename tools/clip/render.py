"""The clip that the demonstration follows when it is given no other: a car on a yard.

    python -m clip.render FOLDER [--seed 0] [--frames 240]

A hand-held camera follows a car that comes nearer, turns and drives off. It passes behind a post
and a bush, beside cars of its own kind and through a cloud's shade. The box of every frame is the
exact outline of the car, hidden or not. The same seed gives the same pixels.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from clip import textures
from clip.car import Car, shadow
from clip.scene import (
    Camera,
    Ground,
    Image,
    Part,
    Points,
    Texture,
    Thing,
    blur,
    blur_kernel,
    draw_backdrop,
    draw_ground,
    draw_part,
    draw_thing,
    paste,
)

Box = tuple[float, float, float, float]

RATE = 30.0  # frames a second
SHUTTER = 0.5  # share of the frame's time for which the shutter is open

# X and Z in meters of the way that the target drives
_WAY = (
    (-11, 25),
    (-4, 23.5),
    (4, 20.5),
    (8, 16),
    (5, 12.5),
    (-1, 11.5),
    (-6.5, 14),
    (-6, 19),
    (0, 23),
    (8, 27),
)
_CROSSING = 140.0  # meters in the clip's time that the crossing cars drive
# what happens, from which share of the clip on
_PARTS = (
    ("coming nearer", 0.0),
    ("behind a post and a bush", 0.10),
    ("turning", 0.26),
    ("near, beside another car", 0.45),
    ("into the shade", 0.60),
    ("driving off, behind them again", 0.80),
    ("to the end", 0.95),
)


@dataclass(frozen=True)
class RenderedFrame:
    """One frame of the clip.

    Attributes:
        image: (480, 640, 3) BGR uint8.
        box: x, y, w, h of the target's outline in pixels, hidden parts included.
        visible: share of the target's pixels that nothing hides.
    """

    image: Image
    box: Box
    visible: float


def _bounds(camera: Camera, outline: Points) -> Box:
    """x, y, w, h on the screen of world points (N, 3)."""
    points, _ = camera.project(outline)
    (x1, y1), (x2, y2) = points.min(0), points.max(0)
    return float(x1), float(y1), float(x2 - x1), float(y2 - y1)


def _smooth_way(corners: Points, samples: int) -> Points:
    """A Catmull-Rom curve through the corners, as `samples` points equally far from each other."""
    padded = np.vstack([2 * corners[0] - corners[1], corners, 2 * corners[-1] - corners[-2]])
    share = np.linspace(0, 1, 64, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        pieces.append(
            b
            + 0.5 * share * (c - a)
            + share**2 * (a - 2.5 * b + 2 * c - 0.5 * d)
            + share**3 * (1.5 * b - 1.5 * c + 0.5 * d - 0.5 * a)
        )
    curve = np.vstack([*pieces, corners[-1:]])
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    wanted = np.linspace(0, length[-1], samples)
    return np.stack([np.interp(wanted, length, column) for column in curve.T], 1)


def _ground_bands(rng: np.random.Generator) -> list[Ground]:
    """The yard for four distances, each picture about as fine as the screen there."""
    picture = textures.ground(rng)  # 24 texels a meter, X from -48 to 48 m, Z from 2 to 98 m
    extent = (-48.0, 2.0, 48.0, 98.0)
    rows, columns = slice(2304 - 480, None), slice(1152 - 480, 1152 + 480)
    close = textures.gravel(rng, picture[rows, columns], 3)
    middle = textures.gravel(rng, picture[2304 - 840 :, 1152 - 720 : 1152 + 720], 2)
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    quarter = cv2.resize(half, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return [
        Ground(close, (-20.0, 2.0, 20.0, 22.0), 3.0, 10.0),
        Ground(middle, (-30.0, 2.0, 30.0, 37.0), 10.0, 16.0),
        Ground(picture, extent, 16.0, 28.0),
        Ground(np.asarray(half, np.uint8), extent, 28.0, 52.0),
        Ground(np.asarray(quarter, np.uint8), extent, 52.0, 1e3),
    ]


class Clip:
    """The rendered clip: a sequence of frames, each made when it is asked for.

    Args:
        seed: chooses textures, colors, the camera's unrest and the side the car comes from.
        frames: length; the same way is driven whatever the length.
        turning: radians by which the camera swings to either side, 1.5 times a second.
    """

    def __init__(self, seed: int = 0, frames: int = 240, turning: float = 0.0) -> None:
        if frames < 2:
            raise ValueError(f"a clip needs at least 2 frames, not {frames}")
        self.size = (640, 480)
        self.focal = 560.0
        self.rate = RATE
        self.frames = frames
        self.turning = turning
        rng = np.random.default_rng(seed)
        mirror = np.array((1 if seed % 2 == 0 else -1, 1))
        corners = (np.array(_WAY) + rng.uniform(-0.4, 0.4, (len(_WAY), 2))) * mirror
        self._way = _smooth_way(corners, 2048)
        self._length = float(np.hypot(*np.diff(self._way, axis=0).T).sum())
        self._eye = np.array((0.0, 3.3, 0.0))
        self._unrest = rng.uniform(0, 2 * np.pi, (3, 4))
        self._aims = self._aim()
        self._furnish(rng, mirror)

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[RenderedFrame]:
        return (self.frame(index) for index in range(self.frames))

    @property
    def parts(self) -> list[tuple[str, range]]:
        """What happens when: names and ranges of frames."""
        starts = [round(share * self.frames) for _, share in _PARTS]
        ends = [*starts[1:], self.frames]
        names = (name for name, _ in _PARTS)
        return [(n, range(a, b)) for n, a, b in zip(names, starts, ends, strict=True) if b > a]

    def _at(self, share: float) -> tuple[Points, float, float]:
        """The target's place X, Z, its heading, and the meters driven at a share of the clip."""
        place = float(np.clip(share, 0, 1)) * (len(self._way) - 1)
        columns = np.arange(len(self._way))
        position = np.array([np.interp(place, columns, column) for column in self._way.T])
        low = int(np.clip(place - 12, 0, len(self._way) - 25))
        ahead = self._way[low + 24] - self._way[low]
        return position, float(np.arctan2(ahead[0], ahead[1])), share * self._length

    def _aim(self) -> Points:
        """Yaw and pitch (samples, 2) of a camera that follows the target, somewhat late."""
        x, z = self._way.T
        yaw = 0.86 * np.arctan2(x, z)
        pitch = 0.8 * np.arctan2(0.8 - self._eye[1], np.hypot(x, z)) + 0.01
        late = np.exp(-np.arange(400) / 60.0)
        late /= late.sum()
        aims = []
        for angle in (yaw, pitch):
            before = np.concatenate([np.full(len(late) - 1, angle[0]), angle])
            aims.append(np.convolve(before, late, "valid"))
        return np.stack(aims, 1)

    def _camera(self, share: float) -> Camera:
        place = np.clip(share, 0, 1) * (len(self._aims) - 1)
        columns = np.arange(len(self._aims))
        yaw, pitch = (float(np.interp(place, columns, column)) for column in self._aims.T)
        seconds = share * self.frames / self.rate
        waves = np.sin(2 * np.pi * seconds * np.array((0.7, 1.3, 2.9, 5.3)) + self._unrest)
        sway = waves @ np.array((1.0, 0.7, 0.35, 0.12)) * 0.0032
        sway[0] += self.turning * np.sin(2 * np.pi * 1.5 * seconds)
        return Camera(
            self._eye, yaw + sway[0], pitch + sway[1], 1.4 * sway[2], self.focal, self.size
        )

    def _furnish(self, rng: np.random.Generator, mirror: Points) -> None:
        """Everything that stands or drives about, and the pictures on it."""
        self._ground = _ground_bands(rng)
        self._sky = textures.skyline(rng)
        wide, foot, tall, away = 210.0, -5.0, 100.0, 100.0
        sky = [(-wide, tall), (wide, tall), (wide, foot), (-wide, foot)]
        self._sky_corners = np.array([(x, y, away) for x, y in sky])
        soft = np.zeros((64, 64, 4), np.uint8)
        soft[12:52, 12:52, 3] = 175
        self._shadow = Texture(np.asarray(cv2.GaussianBlur(soft, (0, 0), 5), np.uint8))
        self._target = Car(rng, (44, 92, 214), (226, 230, 232))
        others = [(150, 92, 48), (168, 170, 172), (86, 70, 64), (60, 96, 70)]
        rng.shuffle(others)
        self._others = [Car(rng, color, (40, 42, 44)) for color in others]
        self._mirror = float(mirror[0])
        self._standing: list[Thing] = []
        self._shadows: list[Part] = []
        for car, x, z, heading in zip(
            self._others, (-16, -6.5, 6, 17), (38, 39, 40, 37), (0.1, 3.1, 0, 3.2), strict=True
        ):
            place = np.array((x, z)) * mirror
            self._standing.append(car.place(place, heading, 0.0)[0])
            self._shadows.append(shadow(self._shadow, place, heading))
        for x, z, wide, tall, floors in (
            (-40, 62, 22, 11, 4),
            (-14, 70, 18, 8, 3),
            (9, 66, 20, 13, 5),
            (36, 60, 24, 9, 3),
        ):
            color = rng.uniform(100, 180) + rng.normal(0, 14, 3)
            front = textures.wall(rng, (color[0], color[1], color[2]), 320, 512, floors)
            face = np.array([(x, tall, z), (x + wide, tall, z), (x + wide, 0, z), (x, 0, z)], float)
            self._standing.append(Thing([Part(face, Texture(front))], face.mean(0)))
        leaves = Texture(textures.foliage(rng))
        metal = Texture(textures.post(rng))
        for x, z, size in ((-24, 46, 7.0), (-3, 52, 8.0), (25, 48, 7.5), (20, 55, 6.0)):
            self._tree(leaves, metal, np.array((x, z)) * mirror, size, 0.6 * size)
        # what hides the target stands on the line of sight to where it then is
        x, z = 0.9 * self._at(0.14)[0]
        self._standing.append(self._upright(metal, x, z, 1.1, 0.0, 4.5))
        self._tree(leaves, metal, 0.86 * self._at(0.885)[0], 4.0, 0.9)
        grain = rng.normal(0, 3.0, (self.size[1] + 64, self.size[0] + 64, 3))
        self._grain = grain.astype(np.int16)

    def _upright(
        self, texture: Texture, x: float, z: float, wide: float, low: float, high: float
    ) -> Thing:
        """An upright picture that faces the camera."""
        aside = np.array((z, 0.0, -x)) / np.hypot(x, z) * wide / 2
        foot, head = np.array((x, low, z)), np.array((x, high, z))
        corners = np.array([head - aside, head + aside, foot + aside, foot - aside])
        return Thing([Part(corners, texture)], foot)

    def _tree(self, leaves: Texture, bark: Texture, place: Points, wide: float, low: float) -> None:
        x, z = place
        crown = self._upright(leaves, x, z, wide, 0.45 * low, 0.45 * low + wide)
        trunk = self._upright(bark, x, z + 0.05, 0.06 * wide, 0.0, 0.45 * low + 0.4 * wide)
        self._standing.append(Thing([*trunk.parts, *crown.parts], crown.anchor))

    def _crossing(self, share: float) -> list[tuple[Car, Points, float, float]]:
        """The cars that drive across: car, place, heading and meters driven."""
        near, far = (share - 0.52) * _CROSSING, (0.30 - share) * _CROSSING
        side = self._mirror
        return [
            (self._others[2], np.array((side * near, 17.5)), side * np.pi / 2, near),
            (self._others[1], np.array((side * far, 29.0)), -side * np.pi / 2, -far),
        ]

    def frame(self, index: int) -> RenderedFrame:
        """Frame `index`, 0 … len - 1."""
        if not 0 <= index < self.frames:
            raise IndexError(f"the clip has frames 0 to {self.frames - 1}, not {index}")
        share = index / (self.frames - 1)
        open_for = SHUTTER / (self.frames - 1)
        camera = self._camera(share)
        opened, closed = self._camera(share - open_for / 2), self._camera(share + open_for / 2)
        image = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        draw_backdrop(image, camera, self._sky_corners, self._sky)
        draw_ground(image, camera, self._ground)

        position, heading, driven = self._at(share)
        moving = [(self._target, position, heading, driven), *self._crossing(share)]
        shadows = [shadow(self._shadow, place, angle) for _, place, angle, _ in moving]
        for part in (*self._shadows, *shadows):
            patch = draw_part(part, camera)
            if patch is not None:
                paste(image, patch)
        ahead = 60.0 * np.array([[np.sin(camera.yaw), np.sin(camera.pitch), np.cos(camera.yaw)]])
        panned = closed.project(ahead)[0][0] - opened.project(ahead)[0][0]
        kernel = blur_kernel(panned)
        if kernel is not None:
            image = np.asarray(cv2.filter2D(image, -1, kernel), np.uint8)

        before, after = self._at(share - open_for / 2)[0], self._at(share + open_for / 2)[0]
        target, outline = self._target.place(position, heading, driven)
        things: list[tuple[Thing, Points]] = [(target, after - before)]
        for car, place, angle, meters in moving[1:]:
            step = _CROSSING * open_for * np.array((np.sin(angle), np.cos(angle)))
            things.append((car.place(place, angle, meters)[0], step))
        things += [(thing, np.zeros(2)) for thing in self._standing]
        things.sort(key=lambda pair: -float(np.hypot(*(pair[0].anchor - self._eye)[[0, 2]])))

        whole, visible = 0.0, np.zeros(image.shape[:2], np.float32)
        for thing, moved in things:
            patch = draw_thing(thing, camera)
            if patch is None:
                continue
            half = np.array((moved[0], 0.0, moved[1])) / 2
            ends = [
                view.project(thing.anchor[None] + offset)[0][0]
                for view, offset in ((opened, -half), (closed, half))
            ]
            covered = paste(image, blur(patch, ends[1] - ends[0]))
            if covered is None:
                continue
            rows, columns, alpha = covered
            if thing is target:
                visible[rows, columns] = alpha
                whole = float(alpha.sum())
            elif whole:
                visible[rows, columns] *= 1 - alpha / np.float32(255)

        shown = float(visible.sum()) / whole if whole else 0.0
        return RenderedFrame(self._expose(image, index, share), _bounds(camera, outline), shown)

    def turn_rate(self, index: float) -> Points:
        """The camera's angular velocity (3,) at a frame, which may lie between two, in rad/s.

        In the optical frame: x to the right, y downward, z forward.
        """
        share, step = index / (self.frames - 1), 0.05 / (self.frames - 1)
        before, after = (self._camera(share + way * step).rotation for way in (-1, 1))
        down = np.diag((1.0, -1.0, 1.0))  # the scene's y is upward
        turn, _ = cv2.Rodrigues(down @ after @ before.T @ down)
        return np.asarray(-turn.ravel() * self.rate / 0.1)

    def box(self, index: int) -> Box:
        """The box of frame `index` alone, without drawing it."""
        share = index / (self.frames - 1)
        _, outline = self._target.place(*self._at(share))
        return _bounds(self._camera(share), outline)

    def _expose(self, image: Image, index: int, share: float) -> Image:
        """The light of the moment and the sensor's noise."""
        into = np.clip((share - 0.6) / 0.06, 0, 1) * np.clip((0.82 - share) / 0.06, 0, 1)
        gain = np.array((0.70, 0.62, 0.56)) * into + 1.0 * (1 - into)
        curve = np.clip(np.arange(256)[:, None] * gain + 2, 0, 255).astype(np.uint8)
        lit = cv2.LUT(image, curve[:, None])
        y, x = (index * 37) % 64, (index * 23) % 64
        grain = self._grain[y : y + self.size[1], x : x + self.size[0]]
        return np.asarray(cv2.add(lit, grain, dtype=cv2.CV_8U), np.uint8)


def write_film(clip: Clip, film: Path, *, crf: int = 23) -> Path:
    """Encode the clip as H.264 with its boxes in `NAME.groundtruth.txt` beside it; needs ffmpeg.

    Args:
        clip: what to render.
        film: MP4 file to write.
        crf: quality of x264, lower is better and larger.

    Returns:
        The ground-truth file: x,y,w,h in pixels, one frame a line.
    """
    width, height = clip.size
    source = [
        "-f",
        "rawvideo",
        "-pix_fmt",
        "bgr24",
        "-s",
        f"{width}x{height}",
        "-r",
        f"{clip.rate:g}",
    ]
    codec = ["-c:v", "libx264", "-preset", "veryslow", "-crf", str(crf), "-pix_fmt", "yuv420p"]
    command = ["ffmpeg", "-v", "error", "-y", *source, "-i", "-", *codec]
    # without the encoder's settings and version: the same clip gives the same file anywhere
    command += ["-bsf:v", "filter_units=remove_types=6", "-movflags", "+faststart", str(film)]
    boxes = []
    film.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        with suppress(BrokenPipeError):  # ffmpeg gave up and has said why
            for frame in tqdm(clip, desc="rendering", unit="frame", disable=None):
                encoder.stdin.write(frame.image.tobytes())
                boxes.append(",".join(f"{value:.2f}" for value in frame.box))
            encoder.stdin.close()
        if encoder.wait():
            raise OSError(f"ffmpeg could not write {film}")
    truth = film.with_suffix(".groundtruth.txt")
    truth.write_text("\n".join(boxes) + "\n", encoding="utf-8")
    return truth


def main(arguments: list[str] | None = None) -> int:
    """Render a film from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("film", type=Path, help="MP4 file to write")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--frames", type=int, default=240, help="(%(default)s)")
    parser.add_argument("--crf", type=int, default=23, help="quality of x264 (%(default)s)")
    given = parser.parse_args(arguments)
    truth = write_film(Clip(given.seed, given.frames), given.film, crf=given.crf)
    print(f"{given.frames} frames in {given.film}, their boxes in {truth}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
