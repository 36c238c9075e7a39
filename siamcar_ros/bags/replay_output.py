"""What a replay writes: a bag for Foxglove and RViz, a video, boxes as text, the report.

FOLDER/bag/          /siamcar/detection, /siamcar/ground_truth (vision_msgs/Detection2D),
                     /siamcar/tracks (siamcar_ros/TrackArray), /siamcar/annotations
                     (foxglove_msgs/ImageAnnotations) and, as wanted, the images that were tracked
                     and the overlay, raw or compressed; metadata.yaml names the bag replayed
FOLDER/replay.mp4    the overlay
FOLDER/boxes.txt     x,y,w,h for each image of the topic, nan where there is none
FOLDER/frames.csv    time, stamp, state, box, score, true box and overlap of each image
FOLDER/report.json   settings, scores, what was skipped
FOLDER/timing.json   speed
FOLDER/report/       with a ground truth: page, plots, results in the toolkits' layout
FOLDER/sequence/     on request: the images that were tracked, in the sequence layout

All but the speeds, in timing.json and report/, are the same from run to run.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from siamcar_ros.bags.messages import (
    ANNOTATIONS,
    COMPRESSED_IMAGE,
    DETECTION,
    IMAGE,
    TRACKS,
    detection_message,
    foxglove_message,
    image_message,
    jpeg_message,
    time_message,
    tracks_message,
)
from siamcar_ros.bags.reader import Bag
from siamcar_ros.bags.replay import BEFORE, SKIPPED, STARTED, ReplayFrame, replay_score
from siamcar_ros.bags.writer import BagWriter
from siamcar_ros.data.video import VideoWriter
from siamcar_ros.files import scratch_folder
from siamcar_ros.geometry import Image
from siamcar_ros.tracking import TrackResult, TrackState
from siamcar_ros.tracking.annotations import image_annotations
from siamcar_ros.tracking.overlay import draw_overlay
from siamcar_ros.tracking.velocity import Motion

DETECTION_TOPIC = "/siamcar/detection"
TRUTH_TOPIC = "/siamcar/ground_truth"
TRACKS_TOPIC = "/siamcar/tracks"
ANNOTATIONS_TOPIC = "/siamcar/annotations"
IMAGE_TOPIC, OVERLAY_TOPIC = "/siamcar/image", "/siamcar/overlay"
#: Kinds of images: ending of the topic, type and what makes a message of an image.
IMAGES = {
    "compressed": ("/compressed", COMPRESSED_IMAGE, jpeg_message),
    "raw": ("", IMAGE, image_message),
    "none": None,
}
REPORT_FOLDER, SEQUENCE_FOLDER = "report", "sequence"

_BAG, _VIDEO = "bag", "replay.mp4"
_BOXES, _FRAMES, _REPORT, _TIMING = "boxes.txt", "frames.csv", "report.json", "timing.json"
_RESULTS = (_BAG, _VIDEO, _BOXES, _FRAMES, _REPORT, _TIMING, REPORT_FOLDER, SEQUENCE_FOLDER)
_MEASURES = {
    "average_overlap": "ao",
    "success_50": "sr50",
    "success_75": "sr75",
    "precision_20": "precision",
}
_NOWHERE = (math.nan,) * 4
_UNTRACKED = (BEFORE, STARTED, SKIPPED)


class ReplayOutput:
    """Writes the results of a replay.

    Use it in a `with` statement: give it every frame, then call `finish`, write what else belongs
    to the results into `staging`, and call `publish`. Only then are earlier results replaced; an
    exception before that leaves them as they were.

    Attributes:
        folder: of the results.
        staging: the folder in it in which they are written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        rate: float,
        track_id: str = "target",
        images: str = "compressed",
        overlay: str = "none",
        video: bool = True,
        storage: str = "mcap",
        compression: str = "none",
        overwrite: bool = False,
        sources: Iterable[Path] = (),
    ) -> None:
        """Check the folder, which is made if it does not exist.

        Args:
            folder: of the results.
            rate: frames per second of the video.
            track_id: id of the detections.
            images: the images that were tracked, in the bag: a key of `IMAGES`.
            overlay: the same with the boxes drawn on them.
            video: write replay.mp4.
            storage: of the bag, as for BagWriter; so is `compression`.
            compression: see `storage`.
            overwrite: replace the results of an earlier replay in that folder.
            sources: what is read meanwhile, which must not be among them.

        Raises:
            FileExistsError: there are results already.
            ValueError: a source would be replaced.
        """
        self.folder = Path(folder)
        self._id = track_id
        kinds = ((IMAGE_TOPIC, IMAGES[images]), (OVERLAY_TOPIC, IMAGES[overlay]))
        self._images, self._overlay = (
            None if kind is None else (topic + kind[0], *kind[1:]) for topic, kind in kinds
        )
        self._rate, self._has_video = rate, video
        self._options = {"storage": storage, "compression": compression}
        self._frames: list[ReplayFrame] = []
        self._motion: Motion | None = None
        there = [path for name in _RESULTS if (path := self.folder / name).exists()]
        if there and not overwrite:
            names = ", ".join(path.name for path in there)
            raise FileExistsError(
                f"{self.folder} holds results of a replay, or files of the same names ({names});"
                " name another folder, or --overwrite"
            )
        for source in (path.resolve() for path in sources):
            if any(path.resolve() in (source, *source.parents) for path in there):
                raise ValueError(
                    f"{source} would be overwritten: name another folder than {folder}"
                )

    def __enter__(self) -> ReplayOutput:
        with ExitStack() as stack:
            if not self.folder.exists():
                self.folder.mkdir(parents=True)
                stack.callback(_remove_if_empty, self.folder)
            self.staging = stack.enter_context(scratch_folder(self.folder, ".replay-"))
            self._writers = stack.enter_context(ExitStack())
            self._bag = BagWriter(self.staging / _BAG, **self._options)
            self._writers.enter_context(self._bag)
            topics = {DETECTION_TOPIC: DETECTION, TRUTH_TOPIC: DETECTION}
            topics |= {TRACKS_TOPIC: TRACKS, ANNOTATIONS_TOPIC: ANNOTATIONS}
            topics |= {each[0]: each[1] for each in (self._images, self._overlay) if each}
            for name, kind in topics.items():
                self._bag.add_topic(name, kind)
            self._video: VideoWriter | None = None
            if self._has_video:
                self._video = VideoWriter(self.staging / _VIDEO, self._rate)
                self._writers.enter_context(self._video)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._cleanup.__exit__(*raised)

    @property
    def notes(self) -> list[str]:
        """What the user should know about the files."""
        return [self._video.note] if self._video is not None and self._video.note else []

    def add(self, frame: ReplayFrame, image: Image | None) -> None:
        """Take the next frame, with its image if it has one."""
        self._frames.append(frame)
        if frame.box is None or image is None:
            return
        head = (frame.stamp, frame.frame_id)
        state = TrackState.TRACKING if frame.state == STARTED else TrackState(frame.state)
        result = TrackResult(frame.box, frame.score, state)
        self._motion = self._motion or Motion(frame.stamp)
        self._motion.add(frame.stamp, result)
        # As the node does it: a lost target keeps its last box and has no hypothesis.
        seen = None if state is TrackState.LOST else frame.score
        detection = detection_message(frame.box, *head, id=self._id, class_id="target", score=seen)
        self._bag.write(DETECTION_TOPIC, detection, frame.time)
        if frame.truth is not None:
            truth = detection_message(frame.truth, *head, id="ground_truth", class_id="target")
            self._bag.write(TRUTH_TOPIC, truth, frame.time)
        size = (image.shape[1], image.shape[0])
        tracks = tracks_message(self._id, result, self._motion, size, *head)
        self._bag.write(TRACKS_TOPIC, tracks, frame.time)
        results, at = {self._id: result}, time_message(frame.stamp)
        drawing = image_annotations(foxglove_message, at, results, frame.truth)
        self._bag.write(ANNOTATIONS_TOPIC, drawing, frame.time)
        if self._images is not None:
            topic, _, made = self._images
            self._bag.write(topic, made(image, *head), frame.time)
        if self._overlay is None and self._video is None:
            return
        drawn = draw_overlay(image, results, caption=f"image {frame.index}", truth=frame.truth)
        if self._overlay is not None:
            topic, _, made = self._overlay
            self._bag.write(topic, made(drawn, *head), frame.time)
        if self._video is not None:
            self._video.write(drawn)

    def finish(self, bag: Bag, settings: Mapping[str, Any], notes: Iterable[str]) -> dict[str, Any]:
        """Close the bag and the video, write the text files and the report.

        Args:
            bag: the bag that was replayed.
            settings: what the run was made with, JSON values; `topic` is that of the images.
            notes: anything unusual about the run.

        Returns:
            The report, with its timing.
        """
        self._bag.describe("source_bag", str(bag.path.resolve()))
        self._bag.describe("source_topic", settings["topic"])
        self._writers.close()
        frames = self._frames
        rows = [f.box or _NOWHERE for f in frames]
        np.savetxt(self.staging / _BOXES, rows, fmt="%.4f", delimiter=",")
        write_frames(self.staging / _FRAMES, frames, bag)
        report = {"bag": bag.path.resolve().name, **settings, **scores(frames, bag)}
        report["notes"] = list(notes)
        timing = speed(frames)
        for name, content in ((_REPORT, report), (_TIMING, timing)):
            text = json.dumps(content, indent=2) + "\n"
            (self.staging / name).write_text(text, encoding="utf-8")
        return {**report, "timing": timing}

    def publish(self) -> None:
        """Move the results to their places; earlier ones are removed."""
        for name in _RESULTS:
            old, new = self.folder / name, self.staging / name
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
            if new.exists():
                new.rename(old)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def scores(frames: list[ReplayFrame], bag: Bag) -> dict[str, Any]:
    """Counts, scores and skipped images, as JSON values.

    Scored are the decoded images after the start that have a true box; `precision_20` is the share
    of them in which the center is at most 20 pixels off.
    """
    scored = replay_score(frames)
    start = next(f for f in frames if f.state == STARTED)
    measures = None if scored is None else scored.measures
    return {
        "images": len(frames),
        "tracked": sum(f.state not in _UNTRACKED for f in frames),
        "scored": 0 if scored is None else scored.frames,
        "states": dict(sorted(Counter(f.state for f in frames).items())),
        "start": {"image": start.index, "seconds": bag.seconds(start.time), "box": start.box},
        "skipped": [
            {"image": f.index, "seconds": bag.seconds(f.time), "stamp": f.stamp, "error": f.error}
            for f in frames
            if f.state == SKIPPED
        ],
        "score": measures and {name: round(measures[key], 6) for name, key in _MEASURES.items()},
    }


def speed(frames: list[ReplayFrame]) -> dict[str, float | None]:
    """Frames per second and milliseconds per frame of the tracker alone, without reading."""
    seconds = np.array([f.seconds for f in frames if f.state not in _UNTRACKED])
    if not seconds.size:
        return {"frames_per_second": None, "median_ms": None, "p99_ms": None}
    median, high = (round(1e3 * float(np.percentile(seconds, share)), 3) for share in (50, 99))
    rate = round(float(1 / seconds.mean()), 2)
    return {"frames_per_second": rate, "median_ms": median, "p99_ms": high}


def write_frames(path: Path, frames: list[ReplayFrame], bag: Bag) -> None:
    """Write a CSV row per image, without the tracker's time, so that runs compare equal."""
    scored = replay_score(frames)
    overlaps = [math.nan] * len(frames) if scored is None else scored.overlaps.tolist()
    columns = "image seconds stamp state x y w h score true_x true_y true_w true_h overlap error"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns.split())
        for f, overlap in zip(frames, overlaps, strict=True):
            boxes = [f"{value:.4f}" for value in (*(f.box or _NOWHERE), *(f.truth or _NOWHERE))]
            row = [f.index, f"{bag.seconds(f.time):.9f}", f.stamp, f.state, *boxes[:4]]
            table.writerow([*row, f"{f.score:.6f}", *boxes[4:], f"{overlap:.6f}", f.error])
