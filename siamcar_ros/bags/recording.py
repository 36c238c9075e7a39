"""Turning a sequence folder or a video file into a bag: images, camera_info, ground truth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamcar_ros.bags.messages import (
    CAMERA_INFO,
    compressed_message,
    detection_message,
    header,
    image_message,
    jpeg_message,
    message,
)
from siamcar_ros.bags.writer import BagWriter
from siamcar_ros.data.annotations import read_boxes
from siamcar_ros.data.film import TRUTH_SUFFIX
from siamcar_ros.data.images import read_image
from siamcar_ros.data.sequences import read_sequence
from siamcar_ros.data.video import DEFAULT_RATE, VideoReader
from siamcar_ros.geometry import Boxes, Image
from siamcar_ros.resources import read_yaml

#: Stamp of the first frame in nanoseconds: an arbitrary, fixed moment.
FIRST_STAMP = 1_700_000_000 * 10**9
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_CALIBRATION = (
    "distortion_coefficients",
    "camera_matrix",
    "rectification_matrix",
    "projection_matrix",
)


@dataclass(frozen=True)
class Recording:
    """What was written: numbers of frames and of boxes, the rate, and anything unusual."""

    frames: int
    boxes: int
    rate: float
    notes: tuple[str, ...]


def record_sequence(
    source: str | Path,
    bag: str | Path,
    *,
    rate: float | None = None,
    topic: str = "/camera/image_raw",
    ground_truth_topic: str = "/ground_truth",
    frame_id: str = "camera",
    compressed: bool = False,
    ground_truth: str | Path | None = None,
    camera_info: str | Path | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> Recording:
    """Write a sequence as a rosbag2 folder; the same input gives the same bytes.

    An image and its ground truth have one stamp, `FIRST_STAMP` plus the frame's index over the
    rate, which is also the time of recording. A frame whose target is absent has a Detection2D of
    size zero without hypotheses. A frame that does not decode is left out, its ground truth stays.

    The source is a folder in the sequence layout, which brings its own boxes, or a video, for which
    `ground_truth`, or else `NAME.groundtruth.txt` beside it, has a row x,y,w,h per frame. The rate
    (Hz) is by default a video's own, and 30 for a folder. With `compressed`, CompressedImage goes
    to TOPIC/compressed, JPEG files as they are. `camera_info` is a YAML file of
    `camera_calibration`. `on_frame` is called with the number of frames done and the total (0 if
    unknown).
    """
    frames, total, boxes, own_rate, notes = _open_source(Path(source), ground_truth)
    rate = own_rate if rate is None else rate
    if not 1e-6 <= rate <= 1e6:
        raise ValueError(f"rate must be from 0.000001 to 1000000 Hz, got {rate}")
    info = _camera_info(Path(camera_info)) if camera_info else None
    topic, truth_topic = ("/" + name.strip("/") for name in (topic, ground_truth_topic))
    for name in (topic, truth_topic):
        if not re.fullmatch(r"(/[A-Za-z_][A-Za-z0-9_]*)+", name):
            raise ValueError(f"{name!r} is not a topic name: give one such as /camera/image_raw")
    info_topic = f"{topic.rsplit('/', 1)[0]}/camera_info"
    topic += "/compressed" if compressed else ""
    written = annotated = 0

    def stamp_at(index: int) -> int:
        return FIRST_STAMP + round(index * 1e9 / rate)

    with BagWriter(bag) as writer:
        for index, frame in frames:
            stamp = stamp_at(index)
            while boxes is not None and annotated < min(index + 1, len(boxes)):
                at = stamp_at(annotated)
                truth = detection_message(
                    boxes[annotated], at, frame_id, id="ground_truth", class_id="target"
                )
                writer.write(truth_topic, truth, at)
                annotated += 1
            if info is not None:
                info.header = header(stamp, frame_id)
                writer.write(info_topic, info, stamp)
            made = _image(frame, compressed, stamp, frame_id)
            if made is None:
                notes.append(f"frame {index + 1} does not decode and is left out: {frame}")
                continue
            writer.write(topic, made, stamp)
            written += 1
            if on_frame is not None:
                on_frame(written, total)
        if written == 0:
            raise ValueError(f"no frame of {source} decodes")
    return Recording(written, annotated, rate, tuple(notes))


def _open_source(
    source: Path, ground_truth: str | Path | None
) -> tuple[Iterator[tuple[int, Path | Image]], int, Boxes | None, float, list[str]]:
    """The frames of a source by index, their number (0: unknown), boxes, rate and notes."""
    if source.is_dir():
        if ground_truth is not None:
            raise ValueError(f"{source} is a folder and brings its own ground truth")
        sequence = read_sequence(source)
        boxes, notes = sequence.boxes, list(sequence.notes)
        return enumerate(sequence.frames), len(sequence), boxes, DEFAULT_RATE, notes
    if not source.exists():
        raise FileNotFoundError(f"no sequence folder or video at {source}")
    video = VideoReader(source)
    beside = source.with_suffix(TRUTH_SUFFIX)
    if ground_truth is None and beside.is_file():
        ground_truth = beside
    said: list[str] = []

    def frames() -> Iterator[tuple[int, Image]]:
        index = -1
        for index, image in video:
            yield index, image
        said.extend(filter(None, [video.note()]))
        if truth is not None and len(truth) != index + 1:
            few = len(truth) <= index
            rest = f"no image from {len(truth) + 1} on has a box" if few else "the rest is unused"
            said.append(f"{ground_truth}: {len(truth)} rows for {index + 1} images; {rest}")

    truth = None if ground_truth is None else read_boxes(ground_truth)
    return frames(), video.length or 0, truth, video.rate, said


def _image(frame: Path | Image, compressed: bool, stamp: int, frame_id: str) -> Any | None:
    """The frame's message; None if it does not decode."""
    if compressed and isinstance(frame, Path) and frame.suffix.lower() in _JPEG_SUFFIXES:
        return compressed_message(frame.read_bytes(), "jpeg", stamp, frame_id)
    image = read_image(frame) if isinstance(frame, Path) else frame
    if image is None:
        return None
    return (jpeg_message if compressed else image_message)(image, stamp, frame_id)


def _camera_info(path: Path) -> Any:
    """sensor_msgs/CameraInfo of a calibration file."""
    try:
        saved = read_yaml(path)
        d, k, r, p = (np.array(saved[name]["data"], np.float64) for name in _CALIBRATION)
        if (k.size, r.size, p.size) != (9, 9, 12):
            raise ValueError(f"{path}: its matrices must have 9, 9 and 12 values")
        return message(
            CAMERA_INFO,
            height=int(saved["image_height"]),
            width=int(saved["image_width"]),
            # Old calibrators do not name the model; they know only this one.
            distortion_model=str(saved.get("distortion_model", "plumb_bob")),
            d=d,
            k=k,
            r=r,
            p=p,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a calibration as camera_calibration saves it: {error!r}"
        ) from error
