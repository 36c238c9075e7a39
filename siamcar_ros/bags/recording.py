"""Turns a sequence folder or a video file into a bag: images, camera_info, ground truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from siamcar_ros.bags.messages import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    DETECTION,
    IMAGE,
    compressed_message,
    detection_message,
    header,
    image_message,
    typestore,
)
from siamcar_ros.bags.reader import BagError
from siamcar_ros.bags.writer import BagWriter
from siamcar_ros.data.annotations import read_boxes
from siamcar_ros.data.images import read_image
from siamcar_ros.data.sequences import read_sequence

#: Stamp of the first frame unless another is given: an arbitrary, fixed moment, in seconds.
FIRST_STAMP = 1_700_000_000.0
_JPEG_QUALITY = 95
_JPEG_SUFFIXES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class RecordOptions:
    """How a bag is made of a sequence.

    Attributes:
        rate: frames a second; None takes the video's own, and 30 for a folder.
        first_stamp: stamp of the first frame, seconds.
        topic: of the images; compressed ones go to `topic`/compressed.
        ground_truth_topic: of the boxes.
        frame_id: of every header.
        compressed: write CompressedImage instead of Image. JPEG files go in as they are.
        storage: as for BagWriter.
        compression: as for BagWriter.
    """

    rate: float | None = None
    first_stamp: float = FIRST_STAMP
    topic: str = "/camera/image_raw"
    ground_truth_topic: str = "/ground_truth"
    frame_id: str = "camera"
    compressed: bool = False
    storage: str = "mcap"
    compression: str = "none"

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate < 1e6:
            raise BagError(f"rate must be positive, got {self.rate}")
        if self.first_stamp < 0:
            raise BagError(f"the first stamp must not be negative, got {self.first_stamp}")


@dataclass(frozen=True)
class Recording:
    """What was written: numbers of frames and of boxes, the rate, and what was odd."""

    frames: int
    boxes: int
    rate: float
    notes: tuple[str, ...]


def record_sequence(
    source: str | Path,
    bag: str | Path,
    options: RecordOptions = RecordOptions(),
    *,
    ground_truth: str | Path | None = None,
    camera_info: str | Path | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> Recording:
    """Write a sequence as a rosbag2 folder; the same input gives the same bytes.

    Every image and its ground truth carry one stamp, the first stamp plus the frame's index over
    the rate, which is also the time of recording. A frame whose target is absent has a Detection2D
    of size zero without hypotheses.

    Args:
        source: a folder in the sequence layout, or a video file.
        bag: the folder to create.
        options: rate, topics, encoding and storage.
        ground_truth: boxes of a video (a folder brings its own), a row x,y,w,h per frame.
        camera_info: calibration as `camera_calibration` saves it (YAML).
        on_frame: called with the number of frames done and the total (0 where unknown).

    Raises:
        FileNotFoundError, FileExistsError: no source; the bag is there already.
        BagError: the source or the calibration cannot be read.
        SequenceError: the folder or the annotation is malformed.
    """
    source = Path(source)
    frames, total, boxes, notes, own_rate = _open_source(source, ground_truth)
    rate = options.rate or own_rate
    info = _camera_info(Path(camera_info), options.frame_id) if camera_info else None
    base, truth_topic = (
        "/" + name.strip("/") for name in (options.topic, options.ground_truth_topic)
    )
    topic = f"{base}/compressed" if options.compressed else base
    info_topic = f"{base.rsplit('/', 1)[0]}/camera_info"
    written = annotated = 0
    with BagWriter(bag, storage=options.storage, compression=options.compression) as writer:
        writer.add_topic(topic, COMPRESSED_IMAGE if options.compressed else IMAGE)
        if info is not None:
            writer.add_topic(info_topic, CAMERA_INFO)
        if boxes is not None:
            writer.add_topic(truth_topic, DETECTION)
        for index, frame in enumerate(frames):
            stamp = round(options.first_stamp * 1e9) + round(index * 1e9 / rate)
            if boxes is not None and index < len(boxes):
                truth = detection_message(
                    boxes[index], stamp, options.frame_id, id="ground_truth", class_id="target"
                )
                writer.write(truth_topic, truth, stamp)
                annotated += 1
            if info is not None:
                info.header = header(stamp, options.frame_id)
                writer.write(info_topic, info, stamp)
            message = _image(frame, options, stamp)
            if message is None:
                notes.append(f"frame {index + 1} does not decode and is left out: {frame}")
                continue
            writer.write(topic, message, stamp)
            written += 1
            if on_frame is not None:
                on_frame(written, total)
        if written == 0:
            raise BagError(f"no frame of {source} decodes")
    return Recording(written, annotated, rate, tuple(notes))


_Frame = Path | NDArray[np.uint8]


def _open_source(
    source: Path, ground_truth: str | Path | None
) -> tuple[Iterator[_Frame], int, NDArray[np.float64] | None, list[str], float]:
    """Frames, their number (0: unknown), boxes, notes and rate of a folder or video."""
    if source.is_dir():
        if ground_truth is not None:
            raise BagError(f"{source} is a folder and brings its own ground truth")
        sequence = read_sequence(source)
        return iter(sequence.frames), len(sequence), sequence.boxes, list(sequence.notes), 30.0
    if not source.exists():
        raise FileNotFoundError(f"no sequence folder or video at {source}")
    capture = cv2.VideoCapture(str(source))
    if not capture.isOpened():
        raise BagError(f"{source} is neither a sequence folder nor a video that OpenCV reads")
    rate = capture.get(cv2.CAP_PROP_FPS)
    boxes = None if ground_truth is None else read_boxes(ground_truth)
    total = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    return _video_frames(capture), total, boxes, [], rate if 0 < rate < 1e6 else 30.0


def _video_frames(capture: cv2.VideoCapture) -> Iterator[_Frame]:
    while True:
        there, frame = capture.read()
        if not there:
            capture.release()
            return
        yield np.asarray(frame, np.uint8)


def _image(frame: _Frame, options: RecordOptions, stamp: int) -> Any | None:
    """The frame's message; None if it does not decode."""
    if options.compressed and isinstance(frame, Path) and frame.suffix.lower() in _JPEG_SUFFIXES:
        return compressed_message(frame.read_bytes(), "jpeg", stamp, options.frame_id)
    image = read_image(frame) if isinstance(frame, Path) else frame
    if image is None:
        return None
    if not options.compressed:
        return image_message(image, stamp, options.frame_id)
    stream = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return compressed_message(stream.tobytes(), "jpeg", stamp, options.frame_id)


def _camera_info(path: Path, frame_id: str) -> Any:
    """sensor_msgs/CameraInfo of a calibration file."""
    types = typestore().types
    try:
        saved = yaml.safe_load(path.read_text(encoding="utf-8"))
        k, d, r, p = (
            np.array(saved[name]["data"], np.float64)
            for name in (
                "camera_matrix",
                "distortion_coefficients",
                "rectification_matrix",
                "projection_matrix",
            )
        )
        if (k.size, r.size, p.size) != (9, 9, 12):
            raise BagError(f"{path}: the matrices must have 9, 9 and 12 values")
        return types[CAMERA_INFO](
            header=header(0, frame_id),
            height=int(saved["image_height"]),
            width=int(saved["image_width"]),
            distortion_model=str(saved["distortion_model"]),
            d=d,
            k=k,
            r=r,
            p=p,
            binning_x=0,
            binning_y=0,
            roi=types["sensor_msgs/msg/RegionOfInterest"](
                x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
            ),
        )
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise BagError(
            f"{path} is not a calibration as camera_calibration saves it: {error}"
        ) from error
