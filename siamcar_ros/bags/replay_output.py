"""What a replay leaves behind: a bag for RViz and Foxglove, a video, boxes as text, the report.

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
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from siamcar_ros.geometry import Image
from siamcar_ros.bags.messages import (
    COMPRESSED_IMAGE,
    DETECTION,
    IMAGE,
    compressed_message,
    detection_message,
    image_message,
)
from siamcar_ros.bags.reader import Bag
from siamcar_ros.bags.replay import BEFORE, SKIPPED, STARTED, ReplayFrame, overlaps
from siamcar_ros.bags.writer import BagWriter
from siamcar_ros.data.detections import Box
from siamcar_ros.evaluation.metrics import average_overlap, center_error, success_rate

DETECTION_TOPIC = "/siamcar/detection"
TRUTH_TOPIC = "/siamcar/ground_truth"
OVERLAY_TOPIC = "/siamcar/overlay"
OVERLAYS = ("compressed", "raw", "none")

_BAG, _VIDEO, _BOXES, _FRAMES, _REPORT, _TIMING = (
    "bag",
    "replay.mp4",
    "boxes.txt",
    "frames.csv",
    "report.json",
    "timing.json",
)
REPORT_FOLDER, SEQUENCE_FOLDER = "report", "sequence"
_TRUTH_COLOUR = (255, 255, 255)
_JPEG_QUALITY = 90


class ReplayOutput:
    """Writes the bag and the video as the frames come, and the rest at the end.

    Use it in a `with` statement, give it every frame, then call `finish`. An exception on the way
    leaves no results.
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
        """Prepare the folder.

        Args:
            folder: where the results go; made where it is not there.
            rate: frames a second of the video.
            track_id: `id` of the detections.
            overlay: images in the bag: "compressed" (JPEG), "raw" or "none".
            video: whether to write the video.
            storage: of the bag, "mcap" or "sqlite3".
            compression: of the bag, as for BagWriter.
            overwrite: replace the results of an earlier replay in that folder.
            sources: what is read meanwhile, which must not be among them.

        Raises:
            FileExistsError: there are results already.
            ValueError: a source would be replaced.
        """
        self.folder = Path(folder)
        self._rate, self._id, self._overlay, self._video = rate, track_id, overlay, video
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None
        self._frames: list[ReplayFrame] = []
        self._cleanup = ExitStack()
        self._made = not self.folder.exists()
        there = [path for path in self._results() if path.exists()]
        if there and not overwrite:
            names = ", ".join(path.name for path in there)
            raise FileExistsError(
                f"{self.folder} holds a replay's results, or what goes by their names ({names}); "
                "name another folder, or --overwrite"
            )
        for source in (path.resolve() for path in sources):
            if any(path.resolve() in (source, *source.parents) for path in there):
                raise ValueError(
                    f"{source} would be overwritten: name another folder than {folder}"
                )
        self._remove_results()
        self._bag = BagWriter(self.folder / _BAG, storage=storage, compression=compression)

    def __enter__(self) -> ReplayOutput:
        self._cleanup.enter_context(self._bag)
        self._bag.add_topic(DETECTION_TOPIC, DETECTION)
        self._bag.add_topic(TRUTH_TOPIC, DETECTION)
        if self._overlay == "raw":
            self._bag.add_topic(OVERLAY_TOPIC, IMAGE)
        elif self._overlay == "compressed":
            self._bag.add_topic(f"{OVERLAY_TOPIC}/compressed", COMPRESSED_IMAGE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        self._cleanup.__exit__(kind, error, trace)
        if error is not None:
            self._remove_results()

    def add(self, frame: ReplayFrame, image: Image | None) -> None:
        """Take the next frame, with its image where it has one."""
        self._frames.append(frame)
        if frame.state in (BEFORE, SKIPPED) or image is None:
            return
        head = (frame.stamp, frame.frame_id)
        # As the node has it: a lost target keeps its last box and has no hypothesis.
        seen = None if frame.state == "lost" else frame.score
        detection = detection_message(frame.box, *head, id=self._id, class_id="target", score=seen)
        self._bag.write(DETECTION_TOPIC, detection, frame.time)
        if frame.truth is not None:
            truth = detection_message(frame.truth, *head, id="ground_truth", class_id="target")
            self._bag.write(TRUTH_TOPIC, truth, frame.time)
        if self._overlay == "none" and not self._video:
            return
        drawn = draw(image, frame, self._id)
        if self._overlay == "raw":
            self._bag.write(OVERLAY_TOPIC, image_message(drawn, *head), frame.time)
        elif self._overlay == "compressed":
            stream = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
            message = compressed_message(stream.tobytes(), "jpeg", *head)
            self._bag.write(f"{OVERLAY_TOPIC}/compressed", message, frame.time)
        if self._video:
            self._add_to_video(drawn)

    def finish(self, bag: Bag, settings: Mapping[str, Any], notes: Iterable[str]) -> dict[str, Any]:
        """Write the text files and the report, and return the report with its timing.

        Args:
            bag: the bag that was replayed.
            settings: what the run was made with, JSON values.
            notes: what was odd.
        """
        write_boxes(self.folder / _BOXES, self._frames)
        write_frames(self.folder / _FRAMES, self._frames, bag)
        report = {"bag": bag.path.resolve().name, **settings, **scores(self._frames, bag)}
        report["notes"] = list(notes)
        timing = speed(self._frames)
        _write_json(self.folder / _REPORT, report)
        _write_json(self.folder / _TIMING, timing)
        return {**report, "timing": timing}

    def _results(self) -> list[Path]:
        names = (_BAG, _VIDEO, _BOXES, _FRAMES, _REPORT, _TIMING, REPORT_FOLDER, SEQUENCE_FOLDER)
        return [self.folder / name for name in names]

    def _remove_results(self) -> None:
        for path in self._results():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if self._made:
            with suppress(OSError):  # not there yet, or not empty: others keep things in it
                self.folder.rmdir()

    def _add_to_video(self, drawn: Image) -> None:
        height, width = drawn.shape[:2]
        if self._writer is None or self._size is None:
            self._size = (width, height)
            path = self.folder / _VIDEO
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(path), codec, self._rate, self._size)
            if not self._writer.isOpened():
                raise OSError(f"this OpenCV cannot write {path} (mp4v); --no-video leaves it out")
        if (width, height) != self._size:
            drawn = np.asarray(cv2.resize(drawn, self._size), np.uint8)
        self._writer.write(drawn)


def draw(image: Image, frame: ReplayFrame, track_id: str) -> Image:
    """A copy of the image as the node's overlay has it, with the true box in white."""
    from siamcar_ros.tracking import TrackResult, TrackState
    from siamcar_ros.tracking.overlay import draw_overlay

    results = {}
    if frame.box is not None:
        state = TrackState.TRACKING if frame.state == STARTED else TrackState(frame.state)
        results[track_id] = TrackResult(frame.box, frame.score, state)
    drawn = draw_overlay(image, results, scale=1.0, caption=f"image {frame.index}")
    if frame.truth is not None:
        x, y, w, h = frame.truth
        corners = (round(x), round(y)), (round(x + w), round(y + h))
        cv2.rectangle(drawn, *corners, _TRUTH_COLOUR, 1, cv2.LINE_AA)
    return drawn


def scores(frames: list[ReplayFrame], bag: Bag) -> dict[str, Any]:
    """Counts, scores and skipped images, as JSON values.

    The overlap counts every decoded image after the start that has a true box; `precision_20` is
    the share of them whose centre is at most 20 pixels off.
    """
    overlap = overlaps(frames)
    scored = np.flatnonzero(~np.isnan(overlap))
    result: dict[str, Any] = {
        "images": len(frames),
        "tracked": sum(f.state not in (BEFORE, STARTED, SKIPPED) for f in frames),
        "scored": len(scored),
        "states": dict(sorted(Counter(f.state for f in frames).items())),
        "start": next(
            {"image": f.index, "seconds": bag.seconds(f.time), "box": f.box}
            for f in frames
            if f.state == STARTED
        ),
        "skipped": [
            {"image": f.index, "seconds": bag.seconds(f.time), "stamp": f.stamp, "error": f.error}
            for f in frames
            if f.state == SKIPPED
        ],
        "score": None,
    }
    if len(scored):
        boxes = np.array([frames[i].box for i in scored], np.float64)
        error = center_error(boxes, np.array([frames[i].truth for i in scored], np.float64))
        result["score"] = {
            "average_overlap": round(average_overlap(overlap), 6),
            "success_50": round(success_rate(overlap, 0.5), 6),
            "success_75": round(success_rate(overlap, 0.75), 6),
            "precision_20": round(float(np.mean(error <= 20)), 6),
        }
    return result


def speed(frames: list[ReplayFrame]) -> dict[str, float | None]:
    """Frames a second and milliseconds a frame of the tracker alone, reading not included."""
    seconds = [f.seconds for f in frames if f.state not in (BEFORE, STARTED, SKIPPED)]
    if not seconds:
        return {"frames_per_second": None, "median_ms": None, "p99_ms": None}
    return {
        "frames_per_second": round(len(seconds) / sum(seconds), 2),
        "median_ms": round(1e3 * float(np.median(seconds)), 3),
        "p99_ms": round(1e3 * float(np.percentile(seconds, 99)), 3),
    }


def write_boxes(path: Path, frames: list[ReplayFrame]) -> None:
    """A row x,y,w,h per image, `nan` where there is no box: the layout of a ground-truth file."""
    rows = (_row(f.box) for f in frames)
    path.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")


def write_frames(path: Path, frames: list[ReplayFrame], bag: Bag) -> None:
    """Everything that is known of each image but the time it took, as CSV with a header line."""
    overlap = overlaps(frames)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        columns = (
            "image seconds stamp state x y w h score true_x true_y true_w true_h overlap error"
        )
        table.writerow(columns.split())
        for frame, value in zip(frames, overlap.tolist(), strict=True):
            table.writerow(
                [
                    frame.index,
                    f"{bag.seconds(frame.time):.9f}",
                    frame.stamp,
                    frame.state,
                    *_row(frame.box),
                    f"{frame.score:.6f}",
                    *_row(frame.truth),
                    f"{value:.6f}",
                    frame.error,
                ]
            )


def _row(box: Box | None) -> list[str]:
    return ["nan"] * 4 if box is None else [f"{value:.4f}" for value in box]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
