"""Sources of frames: a video file, a camera, a folder of images, an annotated sequence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from siamcar_ros.data.annotations import SequenceError, read_boxes, read_properties
from siamcar_ros.data.images import read_image
from siamcar_ros.data.sequences import find_frames, read_sequence
from siamcar_ros.data.video import DEFAULT_RATE, VideoReader
from siamcar_ros.geometry import Boxes, Image
from siamcar_ros.resources import resource_path

CLIP = "clip"
"""The name of the film that ships with the package."""

TRUTH_SUFFIX = ".groundtruth.txt"
"""A video's annotation lies beside it, with this suffix."""

_CLIP_FILE = "films/car.mp4"
_CLIP_FOCAL = 560.0
# Of a network stream, in milliseconds: to open it, and between two frames.
_STREAM_TIMEOUTS = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 5_000]


class SourceError(ValueError):
    """A source does not exist, holds no frame, or stopped delivering frames."""


@dataclass(frozen=True)
class Source:
    """A stream of frames and what is known about it."""

    name: str  # for display
    live: bool  # whether it is a camera, which sets its own pace and has no end
    rate: float  # frames per second
    images: Callable[[], Iterator[Image]]  # a new iterator over all frames, (H, W, 3) BGR uint8
    length: int | None = None  # number of frames; None if unknown
    boxes: Boxes | None = None  # (length, 4) of the target, NaN where absent; None if not annotated
    focal: float | None = None  # focal length in pixels; None if unknown
    # Indices of the frames, among those iterated over so far, that did not decode and were left
    # out: the images that follow belong to later rows of `boxes`.
    skipped: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what could not be read, after iterating


def open_source(name: str) -> Source:
    """Open the source called `name`.

    Args:
        name: a video file, with its annotation in `NAME.groundtruth.txt` beside it or without; a
            folder of numbered images, with or without `groundtruth.txt`; `/dev/videoN`, a camera's
            number or the URL of a live stream that FFmpeg reads, such as RTSP or MJPEG over HTTP;
            or `clip`, the film that ships with the package.
    """
    if name == CLIP:
        return _video(resource_path(_CLIP_FILE), focal=_CLIP_FOCAL)
    if name.isdecimal() or name.startswith("/dev/video") or "://" in name:
        return _camera(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _sequence(path)
    if path.is_file():
        return _video(path)
    raise SourceError(
        f"no source {name!r}: give a video file, a sequence folder, a camera's number or device, "
        f"or {CLIP!r} for the film that ships with the package"
    )


def _sequence(folder: Path) -> Source:
    boxes = None
    if any(folder.glob("groundtruth*")):
        sequence = read_sequence(folder)
        frames, boxes = sequence.frames, sequence.boxes
    else:
        frames = find_frames(folder)

    # GOT-10k's and VOT's files state the frame rate.
    stated = read_properties(folder / "meta_info.ini").get("anno_fps")
    stated = stated or read_properties(folder / "sequence").get("fps", "")
    found = re.match(r"\d+(?:\.\d+)?", stated)
    rate = float(found[0]) if found else 0.0
    skipped: list[int] = []
    notes: list[str] = []

    def images() -> Iterator[Image]:
        skipped.clear()
        notes.clear()
        for index, path in enumerate(frames):
            image = read_image(path)
            if image is None:
                skipped.append(index)
                notes.append(f"{path} does not decode and is skipped")
            else:
                yield image
        if len(skipped) == len(frames):
            raise SourceError(f"no image in {folder} decodes")

    return Source(
        name=folder.name,
        live=False,
        rate=rate or DEFAULT_RATE,
        images=images,
        length=len(frames),
        boxes=boxes,
        skipped=skipped,
        notes=notes,
    )


def _video(path: Path, *, focal: float | None = None) -> Source:
    reader = VideoReader(path)
    annotation = path.with_suffix(TRUTH_SUFFIX)
    boxes = None
    if reader.length is not None and annotation.is_file():
        boxes = read_boxes(annotation)
        if len(boxes) != reader.length:
            raise SequenceError(f"{annotation}: {len(boxes)} rows for {reader.length} frames")
    notes: list[str] = []

    def images() -> Iterator[Image]:
        notes.clear()
        yield from (image for _, image in reader)
        notes.extend(filter(None, [reader.note()]))

    return Source(
        name=path.name,
        live=False,
        rate=reader.rate,
        images=images,
        length=reader.length,
        boxes=boxes,
        focal=focal,
        skipped=reader.skipped,
        notes=notes,
    )


def _camera(name: str) -> Source:
    stream = "://" in name
    # A URL may hold a password, which belongs in no log.
    shown = re.sub(r"//[^/@]*@", "//", name) if stream else f"camera {name}"

    def images() -> Iterator[Image]:
        if stream and cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
            # Failures are found in seconds, not after FFmpeg's half minute.
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, _STREAM_TIMEOUTS)
        else:
            capture = cv2.VideoCapture(int(name) if name.isdecimal() else name)
        if not capture.isOpened():
            raise SourceError(
                f"{shown} cannot be opened: check that it is connected, readable, and not "
                "in use by another program"
            )
        if stream and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
            raise SourceError(f"{shown} is a film, not a live stream: download it first")
        # Drivers that fill their buffers deliver old images; not every backend has this setting.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        try:
            while True:
                read, image = capture.read()
                if not read:
                    raise SourceError(f"{shown} stopped delivering frames")
                yield np.asarray(image, np.uint8)
        finally:
            capture.release()

    return Source(name=shown, live=True, rate=DEFAULT_RATE, images=images)
