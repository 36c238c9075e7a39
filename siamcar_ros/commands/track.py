"""`siamcar track`: follow a target through a video, a camera or a folder of images, without ROS."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

if TYPE_CHECKING:
    from siamcar_ros.data.film import Source
    from siamcar_ros.tracking import SiamCarTracker, TrackResult

HELP = "follow a target through a video file, a camera or a folder of images"

Image = NDArray[np.uint8]
Box = tuple[float, float, float, float]

_WINDOW = "siamcar track (q or Esc ends)"
_QUIT_KEYS = (ord("q"), 27)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "source",
        help="video file, folder of images, camera number or /dev/videoN, or clip, the film that "
        "ships",
    )
    parser.add_argument(
        "--box",
        metavar="X,Y,W,H",
        help="the target on the first frame, pixels, top-left corner and size (default: the first "
        "box of the folder's groundtruth.txt, or drawn in the window with --show)",
    )
    parser.add_argument("--network", default="compact", help="a name or a YAML file (%(default)s)")
    parser.add_argument("--weights", help="weights file (default: the one that the network names)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="MP4", help="write an annotated video")
    parser.add_argument("--boxes", type=Path, metavar="TXT", help="write x,y,w,h, a line a frame")
    parser.add_argument("--show", action="store_true", help="show the frames in a window")
    parser.add_argument("--frames", type=int, metavar="N", help="stop after N frames")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="tracker parameters other than the network's, e.g. lr=0.4 decoder=paper",
    )


def run(args: argparse.Namespace) -> int:
    """Track to the end of the source, or until interrupted; then say how it went."""
    from siamcar_ros.data.film import open_source
    from siamcar_ros.tracking import SiamCarTracker

    if args.frames is not None and args.frames < 1:
        raise ValueError(f"--frames is at least 1, not {args.frames}")
    if args.show:
        _window(cv2.namedWindow, _WINDOW)
    source = open_source(args.source)
    tracker = SiamCarTracker.from_config(
        args.network, weights=args.weights, device=args.device, **_settings(args.set)
    )
    images = source.images()
    first = next(images, None)
    if first is None:
        raise ValueError(f"{args.source} holds no frames")
    box = _first_box(args, source, first)
    total = source.length if args.frames is None else args.frames
    boxes: list[Box] = []
    times: list[dict[str, float]] = []
    with (
        _Sinks(args, source.rate) as sinks,
        tqdm(total=total, unit="frame", dynamic_ncols=True, disable=None) as progress,
    ):
        try:
            for image, result in _follow(tracker, images, first, box):
                boxes.append(result.box)
                if len(boxes) > 1:
                    times.append(tracker.timings)
                score = f"{result.score:.2f}"
                progress.set_postfix(score=score, state=result.state.value, refresh=False)
                progress.update()
                if not sinks.take(image, result) or len(boxes) == args.frames:
                    break
        except KeyboardInterrupt:
            progress.write("interrupted: what was tracked is kept")
    _say(source, tracker, boxes, times)
    for path in (args.output, args.boxes):
        if path is not None:
            print(f"wrote {path}")
    return 0


def _follow(
    tracker: SiamCarTracker, images: Iterator[Image], first: Image, box: Box
) -> Iterator[tuple[Image, TrackResult]]:
    tracker.init(first, box)
    yield first, tracker.result
    for image in images:
        yield image, tracker.update(image)


def _first_box(args: argparse.Namespace, source: Source, first: Image) -> Box:
    """The box asked for, the known one, or the one that a person draws."""
    if args.box is not None:
        return parse_box(args.box)
    if source.boxes is not None and np.isfinite(source.boxes[0]).all():
        x, y, w, h = source.boxes[0].tolist()
        return x, y, w, h
    if not args.show:
        raise ValueError(
            "which target? Give --box X,Y,W,H (pixels of the first frame), or --show to draw it"
        )
    x, y, w, h = _window(cv2.selectROI, "drag a box, then Enter or Space", first)
    cv2.destroyAllWindows()
    if w <= 0 or h <= 0:
        raise ValueError("no box was drawn")
    return float(x), float(y), float(w), float(h)


def parse_box(text: str) -> Box:
    """Read `x,y,w,h`.

    Raises:
        ValueError: it is not four numbers.
    """
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--box is four numbers x,y,w,h, not {text!r}") from None
    return x, y, w, h


def _settings(pairs: list[str]) -> dict[str, Any]:
    import yaml

    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE, not {pair!r}")
        settings[key] = yaml.safe_load(value)
    return settings


def _window(show: Any, *arguments: Any) -> Any:
    """Call one of OpenCV's window functions."""
    try:
        return show(*arguments)
    except cv2.error as error:
        if "not implemented" in str(error):
            why = "this OpenCV is a headless build; opencv-contrib-python in its place has windows"
        else:
            why = "is there a screen?"
        raise ValueError(
            f"no window can be shown here ({why}): leave out --show, and give --box or --output"
        ) from error


class _Sinks:
    """Where tracked frames go: a video, a file of boxes, a window, as asked for."""

    def __init__(self, args: argparse.Namespace, rate: float) -> None:
        for path in (args.output, args.boxes):
            if path is None:
                continue
            if not path.resolve().parent.is_dir():
                raise FileNotFoundError(f"there is no folder {path.resolve().parent}")
            if path.resolve() == Path(args.source).resolve():
                raise ValueError(f"{path} is the source: write to another file")
        self._video_path: Path | None = args.output
        self._rate = rate
        self._show: bool = args.show
        self._video: cv2.VideoWriter | None = None
        self._boxes = None if args.boxes is None else args.boxes.open("w", encoding="ascii")

    def take(self, image: Image, result: TrackResult) -> bool:
        """Hand on one frame; false where the person at the window has had enough."""
        if self._boxes is not None:
            self._boxes.write(",".join(f"{value:.4f}" for value in result.box) + "\n")
        if self._video_path is None and not self._show:
            return True
        from siamcar_ros.tracking.overlay import draw_overlay

        drawn = draw_overlay(image, {"target": result}, scale=1.0, caption="")
        if self._video_path is not None:
            self._writer(drawn).write(drawn)
        if self._show:
            _window(cv2.imshow, _WINDOW, drawn)
            return cv2.waitKey(1) & 0xFF not in _QUIT_KEYS
        return True

    def __enter__(self) -> _Sinks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._video is not None:
            self._video.release()
        if self._boxes is not None:
            self._boxes.close()
        if self._show and error is None:
            cv2.destroyAllWindows()

    def _writer(self, drawn: Image) -> cv2.VideoWriter:
        if self._video is None:
            size = (drawn.shape[1], drawn.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._video = cv2.VideoWriter(str(self._video_path), code, self._rate, size)
            if not self._video.isOpened():
                raise OSError(f"cannot write a video to {self._video_path}; does it end in .mp4?")
        return self._video


def _say(
    source: Source, tracker: SiamCarTracker, boxes: list[Box], times: list[dict[str, float]]
) -> None:
    from siamcar_ros.evaluation.metrics import average_overlap, iou

    print(f"{source.name}: {len(boxes)} frames, target {tracker.result.state.value} at the end")
    if times:
        stages = {stage: np.median([frame[stage] for frame in times]) for stage in times[0]}
        whole = np.median([sum(frame.values()) for frame in times])
        parts = ", ".join(f"{stage} {1e3 * value:.2f}" for stage, value in stages.items())
        print(f"tracker: {1 / whole:.0f} frames a second (median; ms: {parts})")
    if source.boxes is not None and len(boxes) > 1:
        overlap = iou(np.array(boxes), source.boxes[: len(boxes)])
        if np.isfinite(overlap[1:]).any():
            ao = average_overlap(overlap[1:])
            least = int(np.nanargmin(overlap[1:])) + 1
            print(f"AO {ao:.3f} (mean overlap without the first frame; least: frame {least + 1})")
        elif math.isfinite(overlap[0]):
            print("no ground truth after the first frame: no AO")
