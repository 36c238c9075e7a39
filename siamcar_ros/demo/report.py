"""What a run of the demonstration showed: figures, an annotated video and a strip of frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from siamcar_ros.data.video import VideoWriter
from siamcar_ros.demo.scene import Image
from siamcar_ros.demo.sources import Source
from siamcar_ros.evaluation.metrics import iou

Floats = NDArray[np.float64]

_FOUND = (60, 220, 60)
_HELD = (40, 160, 255)
_TRUE = (255, 255, 255)
_STRIP_FRAMES = 8
_UNTOUCHED = 5  # frames at the end without any overlap before the target counts as lost
_STRIP_WIDTH = 320


@dataclass(frozen=True)
class Record:
    """A run, frame by frame; N is the number of published frames.

    Attributes:
        stamps: (N,) int64 nanoseconds at which each frame was published.
        arrivals: (N,) int64 nanoseconds at which its detection arrived; 0 where none came.
        boxes: (N, 4) x, y, w, h of the detections; NaN where none came.
        scores: (N,), NaN where none came.
        started: index of the frame on which the target was given.
        given: the box that was given, x, y, w, h.
    """

    stamps: NDArray[np.int64]
    arrivals: NDArray[np.int64]
    boxes: Floats
    scores: Floats
    started: int
    given: tuple[float, float, float, float]

    @property
    def detected(self) -> NDArray[np.bool_]:
        """(N,) whether a detection came for the frame."""
        return self.arrivals > 0

    def held_boxes(self) -> Floats:
        """(N, 4) the boxes that a robot would have: without a detection, the latest before."""
        held = self.boxes.copy()
        last = np.array(self.given)
        for index in range(len(held)):
            if index < self.started:
                continue
            if np.isfinite(held[index]).all():
                last = held[index]
            held[index] = last
        return held


@dataclass(frozen=True)
class Summary:
    """The figures of a run; latencies in milliseconds, NaN or None where there is nothing to say.

    `overlap` is the mean intersection over union of all frames after the start, those without a
    detection included with the latest box; `last_overlap` that of the last tenth. `lost_from` is
    the frame from which on no box touches the target any more; None where it was followed to the
    end.
    """

    frames: int
    detections: int
    missed: int
    rate: float
    latency_median: float
    latency_p99: float
    overlap: float | None
    success: float | None
    last_overlap: float | None
    lost_from: int | None
    parts: list[tuple[str, int, float]]


def quarters(count: int) -> list[tuple[str, range]]:
    """The run in four parts, for a source that names none."""
    edges = [round(share * count) for share in (0, 0.25, 0.5, 0.75, 1)]
    names = ("first quarter", "second quarter", "third quarter", "last quarter")
    return [(name, range(a, b)) for name, a, b in zip(names, edges, edges[1:], strict=False)]


def summarize(record: Record, truth: Floats | None, parts: list[tuple[str, range]]) -> Summary:
    """Count, time and score a run against the true boxes (N, 4), where they are known."""
    after = np.arange(len(record.stamps)) > record.started
    got = record.detected & after
    latency = (record.arrivals - record.stamps)[got] / 1e6
    arrivals = np.sort(record.arrivals[got])
    seconds = (arrivals[-1] - arrivals[0]) / 1e9 if len(arrivals) > 1 else 0.0
    overlap = success = last = lost = None
    scored: list[tuple[str, int, float]] = []
    if truth is not None:
        overlaps = iou(record.held_boxes(), truth[: len(record.stamps)])
        known = after & np.isfinite(overlaps)
        if known.any():
            overlap = float(overlaps[known].mean())
            success = float((overlaps[known] > 0.5).mean())
            last = float(overlaps[known][-max(1, int(known.sum() / 10)) :].mean())
            touched = np.flatnonzero(known & (overlaps > 0))
            end = int(touched[-1]) if len(touched) else record.started
            lost = end + 1 if known[end + 1 :].sum() > _UNTOUCHED else None
        for name, span in parts:
            inside = [index for index in span if index < len(known) and known[index]]
            if inside:
                scored.append((name, len(inside), float(overlaps[inside].mean())))
    return Summary(
        frames=int(after.sum()),
        detections=int(got.sum()),
        missed=int((after & ~got).sum()),
        rate=(len(arrivals) - 1) / seconds if seconds else float("nan"),
        latency_median=float(np.median(latency)) if len(latency) else float("nan"),
        latency_p99=float(np.percentile(latency, 99)) if len(latency) else float("nan"),
        overlap=overlap,
        success=success,
        last_overlap=last,
        lost_from=lost,
        parts=scored,
    )


def describe(summary: Summary, counts: Mapping[str, int]) -> str:
    """The summary as lines of text; `counts` are the node's own counters by name."""
    node = ", ".join(f"{name} {count}" for name, count in counts.items())
    lines = [
        f"frames after the start   {summary.frames}",
        f"detections               {summary.detections} ({summary.rate:.1f} a second)",
        f"frames without one       {summary.missed}",
        f"the node's count         {node or 'not heard'}",
        f"publish to detection     median {summary.latency_median:.1f} ms, "
        f"99th percentile {summary.latency_p99:.1f} ms",
    ]
    if summary.overlap is None or summary.success is None or summary.last_overlap is None:
        lines.append("overlap                  unknown: the source has no true boxes")
    else:
        lines.append(
            f"mean overlap             {summary.overlap:.3f} "
            f"({summary.success:.0%} of frames above 0.5; last tenth {summary.last_overlap:.3f})"
        )
        end = "to the end" if summary.lost_from is None else f"lost from {summary.lost_from} on"
        lines.append(f"followed                 {end}")
        width = max((len(name) for name, _, _ in summary.parts), default=0)
        lines += [f"  {name:{width}}  {n:4d} frames  {o:.3f}" for name, n, o in summary.parts]
    return "\n".join(lines)


def annotate(image: Image, text: str, *boxes: tuple[Floats, tuple[int, int, int]]) -> Image:
    """A copy of the image with boxes (x, y, w, h) in their colours and a text in its corner."""
    drawn = image.copy()
    side = min(image.shape[:2])
    thick = max(1, round(side / 240))
    for box, colour in boxes:
        if np.isfinite(box).all():
            _rectangle(drawn, box, colour, 1 if colour == _TRUE else thick)
    scale = side / 900 + 0.15
    spot = (round(12 * scale), round(36 * scale))
    for colour, weight in (((0, 0, 0), 3 * thick), ((255, 255, 255), thick)):
        cv2.putText(drawn, text, spot, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, weight, cv2.LINE_AA)
    return drawn


def _rectangle(image: Image, box: Floats, colour: tuple[int, int, int], thick: int) -> None:
    limit = 4 * max(image.shape)
    x, y, w, h = np.clip(box, -limit, limit).tolist()
    corners = (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1)
    cv2.rectangle(image, *corners, colour, thick, cv2.LINE_AA)


def write_pictures(source: Source, record: Record, folder: Path) -> tuple[Path, Path]:
    """Read the source once more and write `tracked.mp4` and `strip.png`.

    The true box is white; the node's is green, or orange where a frame has no detection of its own
    and the box is the latest before.

    Returns:
        The paths of the video and of the strip.

    Raises:
        OSError: one of them cannot be written.
    """
    count = len(record.stamps)
    chosen = set(np.linspace(record.started, count - 1, _STRIP_FRAMES).round().astype(int).tolist())
    video_path, strip_path = folder / "tracked.mp4", folder / "strip.png"
    tiles: list[Image] = []
    truth = source.boxes if source.boxes is not None else np.full((count, 4), np.nan)
    held, detected = record.held_boxes(), record.detected
    with VideoWriter(video_path, source.rate) as writer:
        frames = tqdm(source.images(), total=count, desc=video_path.name, disable=None)
        for index, image in enumerate(frames):
            if index >= count:
                break
            text = f"{index}  {record.scores[index]:.2f}" if detected[index] else str(index)
            box = (held[index], _FOUND if detected[index] else _HELD)
            drawn = annotate(image, text, (truth[index], _TRUE), box)
            writer.write(drawn)
            if index in chosen:
                size = (_STRIP_WIDTH, round(_STRIP_WIDTH * drawn.shape[0] / drawn.shape[1]))
                small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
                tiles.append(np.asarray(small, np.uint8))
    if writer.note:
        print(writer.note)
    half = (len(tiles) + 1) // 2
    tiles += [np.zeros_like(tiles[0])] * (2 * half - len(tiles))
    strip = np.vstack([np.hstack(tiles[:half]), np.hstack(tiles[half:])])
    if not cv2.imwrite(str(strip_path), strip):
        raise OSError(f"cannot write {strip_path}")
    return video_path, strip_path
