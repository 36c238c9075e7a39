"""What a replay writes: a bag for RViz and Foxglove, a video, boxes as text, the report.

FOLDER/bag/          /siamcar/detection, /siamcar/ground_truth (vision_msgs/Detection2D),
                     /siamcar/overlay or /siamcar/overlay/compressed
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
    COMPRESSED_IMAGE,
    DETECTION,
    IMAGE,
    detection_message,
    image_message,
    jpeg_message,
)
from siamcar_ros.bags.reader import Bag
from siamcar_ros.bags.replay import BEFORE, SKIPPED, STARTED, ReplayFrame, replay_score
from siamcar_ros.bags.writer import BagWriter
from siamcar_ros.data.video import VideoWriter
from siamcar_ros.files import scratch_folder
from siamcar_ros.geometry import Image
from siamcar_ros.tracking import TrackResult, TrackState
from siamcar_ros.tracking.overlay import draw_overlay

DETECTION_TOPIC = "/siamcar/detection"
TRUTH_TOPIC = "/siamcar/ground_truth"
OVERLAY_TOPIC = "/siamcar/overlay"
#: Kinds of overlay: topic, type and what makes a message of an image.
OVERLAYS = {
    "compressed": (f"{OVERLAY_TOPIC}/compressed", COMPRESSED_IMAGE, jpeg_message),
    "raw": (OVERLAY_TOPIC, IMAGE, image_message),
    "none": None,
}
REPORT_FOLDER, SEQUENCE_FOLDER = "report", "sequence"

_BAG, _VIDEO = "bag", "replay.mp4"
_BOXES, _FRAMES, _REPORT, _TIMING = "boxes.txt", "frames.csv", "report.json", "timing.json"
_MEASURES = {
    "average_overlap": "ao",
    "success_50": "sr50",
    "success_75": "sr75",
    "precision_20": "precision",
}
_RESULTS = (_BAG, _VIDEO, _BOXES, _FRAMES, _REPORT, _TIMING, REPORT_FOLDER, SEQUENCE_FOLDER)


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
        overlay: str = "compressed",
        video: bool = True,
        storage: str = "mcap",
        compression: str = "none",
        overwrite: bool = False,
        sources: Iterable[Path] = (),
    ) -> None:
        """Check the folder.

        Args:
            folder: made if it does not exist.
            rate: frames per second of the video.
            track_id: id of the detections.
            overlay: images with the boxes drawn in the bag, a key of `OVERLAYS`.
            video: write replay.mp4.
            storage: of the bag, as for BagWriter.
            compression: of the bag, as for BagWriter.
            overwrite: replace the results of an earlier replay in that folder.
            sources: what is read meanwhile, which must not be among them.

        Raises:
            FileExistsError: there are results already.
            ValueError: a source would be replaced.
        """
        self.folder = Path(folder)
        self._id, self._overlay = track_id, OVERLAYS[overlay]
        self._rate, self._has_video = rate, video
        self._options = {"storage": storage, "compression": compression}
        self._frames: list[ReplayFrame] = []
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
            bag = BagWriter(self.staging / _BAG, **self._options)
            self._bag = self._writers.enter_context(bag)
            self._bag.add_topic(DETECTION_TOPIC, DETECTION)
            self._bag.add_topic(TRUTH_TOPIC, DETECTION)
            if self._overlay is not None:
                self._bag.add_topic(*self._overlay[:2])
            self._video: VideoWriter | None = None
            if self._has_video:
                video = VideoWriter(self.staging / _VIDEO, self._rate)
                self._video = self._writers.enter_context(video)
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
        if frame.state in (BEFORE, SKIPPED) or image is None:
            return
        head = (frame.stamp, frame.frame_id)
        # As the node does it: a lost target keeps its last box and has no hypothesis.
        seen = None if frame.state == "lost" else frame.score
        detection = detection_message(frame.box, *head, id=self._id, class_id="target", score=seen)
        self._bag.write(DETECTION_TOPIC, detection, frame.time)
        if frame.truth is not None:
            truth = detection_message(frame.truth, *head, id="ground_truth", class_id="target")
            self._bag.write(TRUTH_TOPIC, truth, frame.time)
        if self._overlay is None and self._video is None:
            return
        drawn = draw(image, frame, self._id)
        if self._overlay is not None:
            topic, _, message = self._overlay
            self._bag.write(topic, message(drawn, *head), frame.time)
        if self._video is not None:
            self._video.write(drawn)

    def finish(self, bag: Bag, settings: Mapping[str, Any], notes: Iterable[str]) -> dict[str, Any]:
        """Close the bag and the video, write the text files and the report.

        Args:
            bag: the bag that was replayed.
            settings: what the run was made with, JSON values.
            notes: anything unusual about the run.

        Returns:
            The report, with its timing.
        """
        self._writers.close()
        frames = self._frames
        rows = [f.box or (math.nan,) * 4 for f in frames]
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


def draw(image: Image, frame: ReplayFrame, track_id: str) -> Image:
    """A copy of the image with the tracker's box as in the node's overlay, and the true one."""
    results = {}
    if frame.box is not None:
        state = TrackState.TRACKING if frame.state == STARTED else TrackState(frame.state)
        results[track_id] = TrackResult(frame.box, frame.score, state)
    return draw_overlay(image, results, caption=f"image {frame.index}", truth=frame.truth)


def scores(frames: list[ReplayFrame], bag: Bag) -> dict[str, Any]:
    """Counts, scores and skipped images, as JSON values.

    Scored are the decoded images after the start that have a true box; `precision_20` is the share
    of them in which the center is at most 20 pixels off.
    """
    scored = replay_score(frames)
    start = next(f for f in frames if f.state == STARTED)
    result: dict[str, Any] = {
        "images": len(frames),
        "tracked": sum(f.state not in (BEFORE, STARTED, SKIPPED) for f in frames),
        "scored": 0 if scored is None else scored.frames,
        "states": dict(sorted(Counter(f.state for f in frames).items())),
        "start": {"image": start.index, "seconds": bag.seconds(start.time), "box": start.box},
        "skipped": [
            {"image": f.index, "seconds": bag.seconds(f.time), "stamp": f.stamp, "error": f.error}
            for f in frames
            if f.state == SKIPPED
        ],
        "score": None,
    }
    if scored is not None:
        result["score"] = {
            name: round(scored.measures[measure], 6) for name, measure in _MEASURES.items()
        }
    return result


def speed(frames: list[ReplayFrame]) -> dict[str, float | None]:
    """Frames per second and milliseconds per frame of the tracker alone, without reading."""
    seconds = [f.seconds for f in frames if f.state not in (BEFORE, STARTED, SKIPPED)]
    if not seconds:
        return {"frames_per_second": None, "median_ms": None, "p99_ms": None}
    return {
        "frames_per_second": round(len(seconds) / sum(seconds), 2),
        "median_ms": round(1e3 * float(np.median(seconds)), 3),
        "p99_ms": round(1e3 * float(np.percentile(seconds, 99)), 3),
    }


def write_frames(path: Path, frames: list[ReplayFrame], bag: Bag) -> None:
    """Write a CSV row per image, without the tracker's time, so that runs compare equal."""
    scored = replay_score(frames)
    overlaps = [math.nan] * len(frames) if scored is None else scored.overlaps.tolist()
    columns = "image seconds stamp state x y w h score true_x true_y true_w true_h overlap error"
    nowhere = (math.nan,) * 4
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns.split())
        for f, overlap in zip(frames, overlaps, strict=True):
            boxes = [f"{value:.4f}" for value in (*(f.box or nowhere), *(f.truth or nowhere))]
            row = [f.index, f"{bag.seconds(f.time):.9f}", f.stamp, f.state, *boxes[:4]]
            table.writerow([*row, f"{f.score:.6f}", *boxes[4:], f"{overlap:.6f}", f.error])
