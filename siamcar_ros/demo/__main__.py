"""Follow a target through a video, a sequence folder or the film that ships, over real ROS 2.

python -m siamcar_ros.demo [--video FILE --box X,Y,W,H | --sequence FOLDER] [--output FOLDER]
python -m siamcar_ros.demo --console [PORT] [--video FILE | --sequence FOLDER]
python -m siamcar_ros.demo --follow
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from siamcar_ros.data.film import CLIP, Source, SourceError, open_source
from siamcar_ros.data.video import VideoWriter
from siamcar_ros.evaluation.live import describe
from siamcar_ros.files import reason, replacing
from siamcar_ros.geometry import Box, Image, parse_box
from siamcar_ros.processes import unwind_on_signals
from siamcar_ros.resources import use_fastdds_profile
from siamcar_ros.tracking import TrackResult, TrackState
from siamcar_ros.tracking.interface import checked_box
from siamcar_ros.tracking.overlay import draw_overlay

if TYPE_CHECKING:
    from siamcar_ros.ros.live_run import Recording

_STRIP_COLUMNS, _STRIP_WIDTH = 4, 320
# Frames at the end without any overlap after which the target counts as lost.
_UNTOUCHED = 5


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; print the reason and return 1 if the run fails."""
    parser = argparse.ArgumentParser(
        prog="python -m siamcar_ros.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser._negative_number_matcher = re.compile(r"-\.?\d")  # --box -5,2,30,40 has a value
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--video", default="", help="video file; needs --box unless it is annotated")
    what.add_argument("--sequence", default="", help="folder of frames with groundtruth.txt")
    what.add_argument(
        "--follow", action="store_true", help="simulate a pan-tilt camera that follows a car"
    )
    parser.add_argument("--box", help="the target on the first frame: x,y,w,h in pixels")
    parser.add_argument("--rate", type=float, default=0.0, help="frames/s; 0: the source's")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="%(default)s")
    parser.add_argument("--config", default="compact", help="network or YAML file (%(default)s)")
    parser.add_argument("--weights", default="", help="weights file; the config's by default")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (%(default)s)")
    parser.add_argument("--backend", default="auto", help="what runs the network (%(default)s)")
    parser.add_argument(
        "--console",
        type=int,
        nargs="?",
        const=8484,
        metavar="PORT",
        help="play the film in a loop to the operator console on this port (%(const)s), where "
        "targets are chosen",
    )
    given = parser.parse_args(arguments)
    if given.console is not None and given.follow:
        parser.error("argument --console: not allowed with argument --follow")
    if given.box and (given.follow or given.console is not None):
        parser.error("argument --box: not allowed with arguments --follow and --console")
    use_fastdds_profile()
    from siamcar_ros.ros.live_run import LiveRunError

    action = follow if given.follow else run if given.console is None else serve
    try:
        with unwind_on_signals():
            action(given)
    except (LiveRunError, ValueError, OSError) as error:
        print(f"demo: error: {reason(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    return 0


def run(given: argparse.Namespace) -> None:
    """Track, print the figures, write `summary.json`, `tracked.mp4` and `strip.png`."""
    from siamcar_ros.ros.live_run import LiveRun

    box = parse_box(given.box) if given.box else None
    film = given.output / "tracked.mp4"
    if given.video and Path(given.video).resolve() == film.resolve():
        raise SourceError(f"{film} would be overwritten: give another --output")
    source, played = _opened(given)
    _check_target(source, box)
    with LiveRun(given.output, _parameters(given), "/demo") as live:
        print("waiting for the tracker node to load its network", flush=True)
        live.wait_until_active()
        print("tracking on /demo/image, detections on /demo/tracker/detection", flush=True)
        with tqdm(total=source.length, unit="frame", desc="tracking", disable=None) as bar:

            def progress(heard: Recording) -> None:
                bar.update(len(heard.stamps) - bar.n)
                if heard.detections:
                    newest = list(heard.detections.values())[-1]
                    late = (newest.arrival - newest.stamp) / 1e6
                    bar.set_postfix_str(f"score {newest.score:.2f}, {late:.1f} ms")

            annotated = source.boxes is not None
            heard = live.play(played, box=box, annotated=annotated, progress=progress)
        status = live.client.status
    score = heard.score.summary()[-1]
    counts = {}
    if status is not None:
        print(f"\n{source.name}: {status.network} on {status.backend}, {status.device}")
        names = ("received", "tracked", "dropped", "failed")
        counts = {name: int(getattr(status, f"frames_{name}")) for name in names}
    for phrase in describe(score):
        print(f"  {phrase}")
    if score["overlap_in_hand"] is not None:
        lost = score["untouched_at_end"]
        print(f"  lost on the last {lost} frames" if lost > _UNTOUCHED else "  tracked to the end")
    print("  node: " + ", ".join(f"{key} {value}" for key, value in counts.items()))
    told = {"source": source.name, "asked_rate": played["rate"], "node": counts} | score
    with replacing(given.output / "summary.json") as file:
        file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    strip = _write_pictures(source, heard, film)
    for note in source.notes:
        print(f"note: {note}")
    print(f"wrote {film} and {strip}")


def serve(given: argparse.Namespace) -> None:
    """Play a source to the operator console, where targets are chosen, until interrupted."""
    from siamcar_ros.ros.live_run import LiveRun

    source, played = _opened(given)
    if played["source"] == CLIP:  # short enough to be kept, and to be played back and forth
        played["preload"] = source.length
    else:
        played["loop"] = True
    with LiveRun(given.output, _parameters(given) | {"max_targets": 4}, "/demo") as live:
        print("waiting for the tracker node to load its network", flush=True)
        live.wait_until_active()
        page = {"port": given.console, "trackers": "tracker"}
        with live.nodes({"frame_source": played, "operator_console": page}) as (film, console):
            live.wait(lambda: "open http" in console.tail(), film, console)
            print(f"open http://127.0.0.1:{given.console}; Ctrl-C ends it", flush=True)
            live.wait(lambda: False, film, console)


def follow(given: argparse.Namespace) -> None:
    """Let a simulated pan-tilt camera follow a car, as follow.launch.py does; print the summary."""
    from siamcar_ros.ros.live_run import LiveRun, failure

    given.output.mkdir(parents=True, exist_ok=True)
    report = given.output / "follow.json"
    report.unlink(missing_ok=True)
    nodes = {
        "pan_tilt_controller": {"pan_joint": "pan", "tilt_joint": "tilt"},
        "pan_tilt_simulation": {"report": str(given.output), "rate": given.rate or ""},
    }
    remapped = ("-r", "rates:=pan_tilt_controller/rates")
    with (
        LiveRun(given.output, _parameters(given), "/follow") as live,
        live.nodes(nodes, *remapped) as (controller, simulation),
    ):
        print("following a car for 26 s; watch it on /follow/tracker/debug_image", flush=True)
        live.wait(lambda: not simulation.running, controller)
        if simulation.status or not report.exists():
            raise failure(f"{simulation.name} failed", simulation)
        for line in simulation.log.read_text(errors="replace").splitlines():
            print("  " + line.rpartition("]: ")[2])


def _opened(given: argparse.Namespace) -> tuple[Source, dict[str, object]]:
    """The source, and the parameters with which a frame source plays it; make the output folder."""
    name = given.video or given.sequence or CLIP
    source = open_source(name)
    given.output.mkdir(parents=True, exist_ok=True)
    return source, {"source": name, "rate": float(given.rate or source.rate)}


def _parameters(given: argparse.Namespace) -> dict[str, object]:
    """The parameters of the tracker node, from the arguments."""
    return {key: getattr(given, key) for key in ("config", "weights", "device", "backend")}


def _check_target(source: Source, box: Box | None) -> None:
    """Raise SourceError, or TargetError, unless a target is known on the first frame."""
    if source.live:
        raise SourceError(
            "the demonstration reads its frames twice: give a video or a sequence folder, not a "
            "camera"
        )
    if box is None and source.boxes is None:
        raise SourceError(
            f"{source.name} has no true boxes: give the target's box on the first frame, "
            "BOX=x,y,w,h in pixels (--box)"
        )
    first = next(source.images(), None)
    if first is None:
        raise SourceError(f"{source.name} has no frames")
    if box is not None:
        checked_box(box, first)


def _write_pictures(source: Source, heard: Recording, film: Path) -> Path:
    """Read the source once more; write the annotated film and, next to it, a strip of frames.

    The true box is white, the node's green. On frames without a detection the latest one before is
    drawn in orange. Returns the path of the strip.
    """
    stamps = heard.stamps
    first = next(index for index, stamp in enumerate(stamps) if stamp in heard.detections)
    chosen = np.linspace(first, len(stamps) - 1, 2 * _STRIP_COLUMNS).round().tolist()
    tiles: list[Image] = []
    held: dict[str, TrackResult] = {}
    with VideoWriter(film, source.rate) as writer:
        for index, (image, stamp) in enumerate(zip(source.images(), stamps, strict=False)):
            found = heard.detections.get(stamp)
            if found is not None:
                held = {"": TrackResult(found.box, found.score, TrackState.TRACKING)}
            elif held:
                held = {"": held[""]._replace(state=TrackState.UNCERTAIN)}
            truth = None
            row = index + len(source.skipped)
            if source.boxes is not None and np.isfinite(source.boxes[row]).all():
                x, y, w, h = source.boxes[row].tolist()
                truth = (x, y, w, h)
            drawn = draw_overlay(image, held, caption=str(index), truth=truth)
            writer.write(drawn)
            if index in chosen:  # a frame of a short film more than once
                size = (_STRIP_WIDTH, round(_STRIP_WIDTH * drawn.shape[0] / drawn.shape[1]))
                tile = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA))
                tiles += [tile] * chosen.count(index)
    strip = film.with_name("strip.png")
    rows = tiles[:_STRIP_COLUMNS], tiles[_STRIP_COLUMNS:]
    picture = np.vstack([np.hstack(row) for row in rows])
    with replacing(strip) as partial:
        if not cv2.imwrite(str(partial), picture):
            raise OSError(f"{strip} could not be written: is the disk full?")
    return strip


if __name__ == "__main__":
    sys.exit(main())
