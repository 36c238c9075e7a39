"""`siamcar track`: follow a target through a video, a camera or a folder of images, without ROS."""

from __future__ import annotations

import argparse
import shlex
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from siamcar_ros.commands.network_options import add_network_arguments, network_spec
from siamcar_ros.data.film import Source, SourceError, open_source
from siamcar_ros.data.video import VideoWriter
from siamcar_ros.evaluation import score
from siamcar_ros.files import check_folder, replacing
from siamcar_ros.geometry import Box, Image, parse_box
from siamcar_ros.options import parse_numbers
from siamcar_ros.processes import unwind_on_signals
from siamcar_ros.tracking import SiamCarTracker, box_about
from siamcar_ros.tracking.overlay import draw_overlay
from siamcar_ros.tracking.selection import call_window, choose_box

_WINDOW = "siamcar track (q or Esc ends)"
_QUIT_KEYS = (ord("q"), 27)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "source",
        help="video file, folder of images, camera number or /dev/videoN, stream (rtsp://..., "
        "http://...), or clip, the film that ships",
    )
    parser.add_argument(
        "--box",
        metavar="X,Y,W,H",
        help="the target on the first frame, pixels, top-left corner and size (default: the first "
        "box of the source's ground truth, or else one that you draw in a window)",
    )
    parser.add_argument(
        "--point",
        metavar="X,Y",
        help="instead of --box, a point near the middle of the target on the first frame, pixels",
    )
    add_network_arguments(parser)
    parser.add_argument("--output", type=Path, metavar="MP4", help="write an annotated video")
    parser.add_argument("--boxes", type=Path, metavar="TXT", help="write x,y,w,h, a line per frame")
    parser.add_argument("--show", action="store_true", help="show the frames in a window")
    parser.add_argument("--frames", type=int, metavar="N", help="stop after N frames")


def run(args: argparse.Namespace) -> int:
    """Track to the end of the source, or until interrupted; then print a summary."""
    if args.frames is not None and args.frames < 1:
        raise ValueError(f"--frames is at least 1, not {args.frames}")
    if args.box is not None and args.point is not None:
        raise ValueError("give --box or --point, not both")
    box = None if args.box is None else parse_box(args.box)
    point = None if args.point is None else parse_numbers("--point X,Y", args.point, 2)
    if args.show:
        call_window(cv2.namedWindow, _WINDOW)
    source = open_source(args.source)
    for path in filter(None, (args.output, args.boxes)):
        check_folder(path)
        if path.resolve() == Path(args.source).resolve():
            raise ValueError(f"{path} is the source: write to another file")
    video = None if args.output is None else VideoWriter(args.output, source.rate)
    tracker = SiamCarTracker(*network_spec(args, args.network).load_network())
    images = source.images()
    first = next(images, None)
    if first is None:
        raise ValueError(f"{args.source} holds no frames")
    if point is not None:
        box = box_about(tracker.network, first, point)
    box = box or _first_box(args, source, first)
    total = source.length if args.frames is None else args.frames
    boxes: list[Box] = []
    times: list[dict[str, float]] = []
    with (
        unwind_on_signals(),
        video or nullcontext(),
        tqdm(total=total, unit="frame", dynamic_ncols=True, disable=None) as progress,
    ):
        try:
            tracker.init(first, box)
            for image in chain((first,), images):
                result = tracker.result
                if boxes:
                    result = tracker.update(image)
                    times.append(tracker.timings)
                boxes.append(result.box)
                shown = {"score": f"{result.score:.2f}", "state": result.state.value}
                progress.set_postfix(shown, refresh=False)
                progress.update()
                if video is not None or args.show:
                    image = draw_overlay(image, {"target": result})
                if video is not None:
                    video.write(image)
                if args.show:
                    call_window(cv2.imshow, _WINDOW, image)
                    if cv2.waitKey(1) & 0xFF in _QUIT_KEYS:
                        break
                if len(boxes) == args.frames:
                    break
        except KeyboardInterrupt:
            progress.write("interrupted: the frames tracked so far are kept")
        except SourceError as error:
            if not source.live:
                raise
            progress.write(f"{error}: the frames tracked so far are kept")
    if args.show:
        cv2.destroyAllWindows()
    if args.boxes is not None:
        with replacing(args.boxes) as partial:
            np.savetxt(partial, boxes, "%.4f", delimiter=",")
    _print_summary(source, tracker, boxes, times)
    for note in [*source.notes, "" if video is None else video.note]:
        if note:
            print(f"note: {note}")
    for path in (args.output, args.boxes):
        if path is not None:
            print(f"wrote {path}")
    return 0


def _first_box(args: argparse.Namespace, source: Source, first: Image) -> Box:
    """The true box in the source's first image that decodes, or one that a person draws."""
    if source.boxes is not None:
        x, y, w, h = source.boxes[len(source.skipped)].tolist()
        if np.isfinite((x, y, w, h)).all():
            return x, y, w, h
    typed = f"siamcar track {shlex.quote(args.source)} --box X,Y,W,H"
    return choose_box(first, source.name, typed)


def _print_summary(
    source: Source, tracker: SiamCarTracker, boxes: list[Box], times: list[dict[str, float]]
) -> None:
    print(f"{source.name}: {len(boxes)} frames, target {tracker.result.state.value} at the end")
    print(f"network: {getattr(tracker.network, 'reason', tracker.network)}")
    if times:
        stages = {stage: np.median([frame[stage] for frame in times]) for stage in times[0]}
        whole = np.median([sum(frame.values()) for frame in times])
        parts = ", ".join(f"{stage} {1e3 * value:.2f}" for stage, value in stages.items())
        print(f"tracker: {1 / whole:.0f} frames a second (median; ms: {parts})")
    if source.boxes is not None and len(boxes) > 1:
        skipped = set(source.skipped)
        tracked = [i for i in range(len(source.boxes)) if i not in skipped][: len(boxes)]
        found = score(boxes[: len(tracked)], source.boxes[tracked])
        if found is None:
            print("no ground truth after the first frame: no AO")
        else:
            ao, worst = found.measures["ao"], tracked[int(np.nanargmin(found.overlaps))] + 1
            print(f"AO {ao:.3f} (mean overlap without the first frame; lowest in frame {worst})")
