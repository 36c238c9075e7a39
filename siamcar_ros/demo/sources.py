"""Where frames come from: the rendered clip, a sequence folder, a video file or a camera."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.video import VideoError, VideoReader
from siamcar_ros.demo.scene import Image

DEFAULT_RATE = 30.0


class SourceError(ValueError):
    """A source that is not there, does not open or stops giving frames."""


@dataclass(frozen=True)
class Source:
    """Frames and what is known of them.

    Attributes:
        name: for people.
        live: a camera: it sets the pace itself and does not end.
        rate: frames a second.
        images: starts from the beginning; each image is (H, W, 3) BGR uint8.
        length: number of frames, where it is known before the end.
        boxes: (length, 4) float64 x, y, w, h of the target, NaN where it is absent; None where
            nothing is known of it.
        focal: of the lens in pixels, where it is known.
        parts: names and frames of what happens, where that is known.
        notes: what could not be read; complete after iterating over the images.
    """

    name: str
    live: bool
    rate: float
    images: Callable[[], Iterator[Image]]
    length: int | None = None
    boxes: NDArray[np.float64] | None = None
    focal: float | None = None
    parts: list[tuple[str, range]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_source(name: str) -> Source:
    """The source that a text names.

    Args:
        name: `clip` or `clip:SEED` for the rendered clip, a folder of numbered images with or
            without a groundtruth.txt, a video file, `/dev/videoN`, a camera's number or its URL.

    Raises:
        SourceError: there is no such thing, or it cannot be read.
    """
    clip = re.fullmatch(r"clip(?::(\d+))?", name)
    if clip:
        return _clip(int(clip[1] or 0))
    if name.isdecimal() or name.startswith("/dev/video") or "://" in name:
        return _camera(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _sequence(path)
    if path.is_file():
        return _video(path)
    raise SourceError(
        f"no source {name!r}: give a video file, a sequence folder, a camera's number or device, "
        "or 'clip' for the rendered clip"
    )


def _clip(seed: int) -> Source:
    from siamcar_ros.demo.render import Clip

    clip = Clip(seed)
    return Source(
        name=f"rendered clip {seed}",
        live=False,
        rate=clip.rate,
        images=lambda: (frame.image for frame in clip),
        length=len(clip),
        boxes=np.array([clip.box(index) for index in range(len(clip))]),
        focal=clip.focal,
        parts=clip.parts,
    )


def _sequence(folder: Path) -> Source:
    from siamcar_ros.data import SequenceError, read_sequence
    from siamcar_ros.data.images import read_image
    from siamcar_ros.data.sequences import find_frames

    boxes = None
    try:
        if any(folder.glob("groundtruth*")):
            sequence = read_sequence(folder)
            frames = sequence.frames
            boxes = sequence.boxes - np.array([sequence.origin, sequence.origin, 0, 0])
        else:
            frames = find_frames(folder)
    except SequenceError as error:
        raise SourceError(str(error)) from error

    def images() -> Iterator[Image]:
        for path in frames:
            image = read_image(path)
            if image is None:
                raise SourceError(f"{path} does not decode")
            yield image

    return Source(
        name=folder.name,
        live=False,
        rate=_sequence_rate(folder),
        images=images,
        length=len(frames),
        boxes=boxes,
    )


def _sequence_rate(folder: Path) -> float:
    """The rate that `meta_info.ini` gives, as in GOT-10k; 30 where there is none."""
    meta = configparser.ConfigParser()
    try:
        meta.read(folder / "meta_info.ini")
        stated = re.match(r"[\d.]+", meta.get("METAINFO", "anno_fps", fallback=""))
    except configparser.Error:
        return DEFAULT_RATE
    return float(stated[0]) if stated and float(stated[0]) > 0 else DEFAULT_RATE


def _video(path: Path) -> Source:
    try:
        reader = VideoReader(path)
    except VideoError as error:
        raise SourceError(str(error)) from error
    notes: list[str] = []

    def images() -> Iterator[Image]:
        notes.clear()
        for _, image in reader:
            yield image
        notes.extend(filter(None, [reader.note()]))

    return Source(
        name=path.name,
        live=False,
        rate=reader.rate,
        images=images,
        length=reader.length,
        notes=notes,
    )


def _camera(name: str) -> Source:
    device: int | str = int(name) if name.isdecimal() else name

    def images() -> Iterator[Image]:
        capture = cv2.VideoCapture(device)
        if not capture.isOpened():
            raise SourceError(f"camera {name} does not open: is it there, free, and readable?")
        # A driver that fills its buffers hands out old images; not every backend has the knob.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        try:
            while True:
                read, image = capture.read()
                if not read:
                    raise SourceError(f"camera {name} stopped giving frames")
                yield np.asarray(image, np.uint8)
        finally:
            capture.release()

    return Source(name=f"camera {name}", live=True, rate=DEFAULT_RATE, images=images)
