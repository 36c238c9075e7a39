"""What a replay writes: a bag for Foxglove and RViz, a video, boxes as text, the report.

docs/bags.md lists the files. All but the speeds, in timing.json and report/, are the same from run
to run.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamcar_ros.bags.messages import (
    detection_message,
    foxglove_message,
    image_message,
    jpeg_message,
    time_message,
    tracks_message,
)
from siamcar_ros.bags.reader import Bag
from siamcar_ros.bags.replay import (
    BEFORE,
    NO_BOX,
    SKIPPED,
    STARTED,
    GroundTruth,
    ReplayFrame,
    replay_score,
)
from siamcar_ros.bags.writer import BagWriter
from siamcar_ros.data.video import VideoWriter
from siamcar_ros.evaluation.comparison import compare
from siamcar_ros.evaluation.one_pass import Run
from siamcar_ros.evaluation.protocols import Score
from siamcar_ros.evaluation.results import TrackerResults
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
# How images are written: suffix of the topic, function that makes the message.
_FORMATS = {"compressed": ("/compressed", jpeg_message), "raw": ("", image_message)}
IMAGES = (*_FORMATS, "none")
REPORT_FOLDER, SEQUENCE_FOLDER = "report", "sequence"

_ID = "target"  # of the detections
_BAG, _VIDEO = "bag", "replay.mp4"
_BOXES, _FRAMES, _REPORT, _TIMING = "boxes.txt", "frames.csv", "report.json", "timing.json"
_RESULTS = (_BAG, _VIDEO, _BOXES, _FRAMES, _REPORT, _TIMING, REPORT_FOLDER, SEQUENCE_FOLDER)
_MEASURES = {
    "average_overlap": "ao",
    "success_50": "sr50",
    "success_75": "sr75",
    "precision_20": "precision",
}
_UNTRACKED = (BEFORE, STARTED, SKIPPED)


@dataclass
class ReplayOutput:
    """Writes the results of a replay to a folder, which is created if it does not exist."""

    folder: Path
    images: str  # how the tracked images are written to the bag, one of `IMAGES`
    overlay: str  # the same for the images with the boxes drawn on them
    video: bool  # write replay.mp4
    page: bool  # write report/, if there is a ground truth
    keep_sequence: bool  # write sequence/
    overwrite: bool  # replace the results of an earlier replay in that folder
    sources: list[Path]  # what the replay reads, which it must not replace

    def __post_init__(self) -> None:
        self._motion: Motion | None = None
        there = [path for name in _RESULTS if (path := self.folder / name).exists()]
        if there and not self.overwrite:
            names = ", ".join(path.name for path in there)
            raise FileExistsError(
                f"{self.folder} holds results of a replay, or files of the same names ({names});"
                " name another folder, or --overwrite"
            )
        for source in (path.resolve() for path in self.sources):
            if any(path.resolve() in (source, *source.parents) for path in there):
                raise ValueError(
                    f"{source} would be overwritten: name another folder than {self.folder}"
                )

    def write(
        self,
        bag: Bag,
        frames: Iterable[tuple[ReplayFrame, Image | None]],
        truth: GroundTruth | None,
        *,
        title: str,
        settings: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write what `replay` yields, and return the report with its timing.

        Earlier results are replaced at the end, and stay if anything fails. `title` is the
        tracker's name; `settings` say how the run was made, `topic` the image topic among them.
        """
        with ExitStack() as stack:
            if not self.folder.exists():
                self.folder.mkdir(parents=True)
                stack.callback(_remove_if_empty, self.folder)
            staging = stack.enter_context(scratch_folder(self.folder, ".replay-"))
            sequence = Path(SEQUENCE_FOLDER, bag.path.resolve().name.split(".")[0] or "bag")
            exported = self.keep_sequence or (truth is not None and self.page)
            if exported:
                (staging / sequence).mkdir(parents=True)
            done: list[ReplayFrame] = []
            tracked: list[ReplayFrame] = []
            rate = bag.rate(settings["topic"])
            video = VideoWriter(staging / _VIDEO, rate) if self.video else None
            with BagWriter(staging / _BAG) as writer, video or nullcontext():
                writer.describe("source_bag", str(bag.path.resolve()))
                writer.describe("source_topic", settings["topic"])
                for frame, image in frames:
                    done.append(frame)
                    if frame.box is None or image is None:
                        continue
                    tracked.append(frame)
                    self._add(writer, video, frame, image)
                    if exported:
                        jpeg = jpeg_message(image, 0, "").data.tobytes()
                        (staging / sequence / f"{len(tracked):08d}.jpg").write_bytes(jpeg)
            notes = [*bag.notes, *([] if truth is None else truth.notes)]
            notes += [video.note] if video is not None and video.note else []
            scored = replay_score(done)
            report = {"bag": bag.path.resolve().name, **settings, **scores(done, scored, bag)}
            report["notes"] = notes
            timing = speed(done)
            rows = [frame.box or NO_BOX for frame in done]
            np.savetxt(staging / _BOXES, rows, fmt="%.4f", delimiter=",")
            write_frames(staging / _FRAMES, done, scored, bag)
            for name, content in ((_REPORT, report), (_TIMING, timing)):
                text = json.dumps(content, indent=2) + "\n"
                (staging / name).write_text(text, encoding="utf-8")
            if exported:
                truths = [tracked[0].box, *(frame.truth or NO_BOX for frame in tracked[1:])]
                truth_file = staging / sequence / "groundtruth.txt"
                np.savetxt(truth_file, np.array(truths), fmt="%.4f", delimiter=",")
            if self.page and report["score"] is not None:
                facts = {"root": str((self.folder / sequence).resolve()), **settings}
                results = TrackerResults(staging / REPORT_FOLDER / "results" / title, "otb")
                write_page(staging / sequence, tracked, results, facts)
            if not self.keep_sequence:
                shutil.rmtree(staging / SEQUENCE_FOLDER, ignore_errors=True)
            self._publish(staging)
        return {**report, "timing": timing}

    def _add(
        self, writer: BagWriter, video: VideoWriter | None, frame: ReplayFrame, image: Image
    ) -> None:
        """Write a frame that was tracked to the bag and the video."""
        assert frame.box is not None
        head, time = (frame.stamp, frame.frame_id), frame.time
        state = TrackState.TRACKING if frame.state == STARTED else TrackState(frame.state)
        result = TrackResult(frame.box, frame.score, state)
        self._motion = self._motion or Motion(frame.stamp)
        self._motion.add(frame.stamp, result)
        # As the node does it: a lost target keeps its last box and has no hypothesis.
        seen = None if state is TrackState.LOST else frame.score
        detection = detection_message(frame.box, *head, id=_ID, class_id=_ID, score=seen)
        writer.write(DETECTION_TOPIC, detection, time)
        if frame.truth is not None:
            truth = detection_message(frame.truth, *head, id="ground_truth", class_id=_ID)
            writer.write(TRUTH_TOPIC, truth, time)
        size = (image.shape[1], image.shape[0])
        tracks = tracks_message(_ID, result, self._motion, size, *head)
        writer.write(TRACKS_TOPIC, tracks, time)
        results, at = {_ID: result}, time_message(frame.stamp)
        drawing = image_annotations(foxglove_message, at, results, frame.truth)
        writer.write(ANNOTATIONS_TOPIC, drawing, time)
        drawn = image
        if self.overlay in _FORMATS or video is not None:
            drawn = draw_overlay(image, results, caption=f"image {frame.index}", truth=frame.truth)
        streams = ((IMAGE_TOPIC, self.images, image), (OVERLAY_TOPIC, self.overlay, drawn))
        for topic, form, pixels in streams:
            if form in _FORMATS:
                suffix, make = _FORMATS[form]
                writer.write(topic + suffix, make(pixels, *head), time)
        if video is not None:
            video.write(drawn)

    def _publish(self, staging: Path) -> None:
        """Move the results to their places; earlier ones are removed."""
        for name in _RESULTS:
            old, new = self.folder / name, staging / name
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
            if new.exists():
                new.rename(old)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def write_page(
    sequence: Path, frames: list[ReplayFrame], results: TrackerResults, facts: dict[str, Any]
) -> None:
    """Write the frames that were tracked as a tracker's results, and their report page.

    `sequence` holds their images and true boxes in the sequence layout; `facts` are for `run.json`.
    """
    from siamcar_ros.evaluation.report import write_report  # imports matplotlib

    boxes = np.array([frame.box or NO_BOX for frame in frames], np.float64)
    scores, times = np.array([[frame.score, frame.seconds] for frame in frames]).T
    states = tuple(frame.state for frame in frames)
    results.write(sequence.name, Run(boxes, scores, times, states))
    results.write_run_file({"benchmark": "folder", **facts})
    comparison = compare([results.folder], benchmark="folder", root=sequence)
    write_report(comparison, results.folder.parents[1])


def scores(frames: list[ReplayFrame], scored: Score | None, bag: Bag) -> dict[str, Any]:
    """Counts, scores and skipped images, as JSON values.

    The decoded images after the start that have a true box are scored; `precision_20` is the share
    of them in which the center is at most 20 pixels off.
    """
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


def write_frames(path: Path, frames: list[ReplayFrame], scored: Score | None, bag: Bag) -> None:
    """Write a CSV row per image, without times, so that the files of two runs are equal."""
    overlaps = [math.nan] * len(frames) if scored is None else scored.overlaps.tolist()
    columns = "image seconds stamp state x y w h score true_x true_y true_w true_h overlap error"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns.split())
        for f, overlap in zip(frames, overlaps, strict=True):
            boxes = [f"{value:.4f}" for value in (*(f.box or NO_BOX), *(f.truth or NO_BOX))]
            row = [f.index, f"{bag.seconds(f.time):.9f}", f.stamp, f.state, *boxes[:4]]
            table.writerow([*row, f"{f.score:.6f}", *boxes[4:], f"{overlap:.6f}", f.error])
