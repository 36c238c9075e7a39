"""One run of the demonstration: a tracker node, a frame source and this process, over ROS 2."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from siamcar_ros.demo.report import Record, Summary, describe, quarters, summarize, write_pictures
from siamcar_ros.demo.sources import Source, SourceError, open_source
from siamcar_ros.processes import Child
from siamcar_ros.resources import FASTDDS_VARIABLES, fastdds_profile
from siamcar_ros.ros.frame import stamp_ns
from siamcar_ros.tracking.interface import checked_box

if TYPE_CHECKING:
    from std_msgs.msg import Header

    from siamcar_ros.ros.client import Detection, TrackerClient

Box = tuple[float, float, float, float]

NAMESPACE = "/demo"
_ACTIVE_TIMEOUT = 180.0  # seconds: the first start may have to compile or convert the network
_FIRST_FRAME_TIMEOUT = 30.0
# The box belongs to the first frame: it stands until a busy node, too, has taken it in.
_FIRST_FRAME_HOLD = 1.5
_INIT_TIMEOUT = 5.0
_STALL_TIMEOUT = 20.0
_LAST_DETECTION_TIMEOUT = 2.0


class DemoError(RuntimeError):
    """The run cannot go on; the text says why."""


@dataclass(frozen=True)
class Options:
    """What to run on and where to put what comes of it.

    Attributes:
        source: as in `open_source`; empty renders the clip.
        box: of the target on the first frame, x, y, w, h; None takes the true one.
        rate: frames a second; 0 takes the source's.
        output: folder for pictures, video and logs.
        node: parameters of the tracker node by name.
    """

    source: str
    box: Box | None
    rate: float
    output: Path
    node: dict[str, str]


class Watch:
    """Notes the headers of the frames and the detections as they come in."""

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.detections: dict[int, Detection] = {}
        self.newest: Detection | None = None
        self.last_frame = time.monotonic()
        self.first_frame = threading.Event()

    def frame(self, header: Header) -> None:
        """A frame was published."""
        self.headers.append(header)
        self.last_frame = time.monotonic()
        self.first_frame.set()

    def detection(self, detection: Detection) -> None:
        """The node found the target."""
        self.detections.setdefault(detection.stamp, detection)
        self.newest = detection


def run(options: Options) -> Summary:
    """Run the demonstration and write its pictures.

    Raises:
        DemoError: it cannot start or go on.
        SourceError: there is no such source.
    """
    # before the middleware is loaded, and for the children too
    _use_profile()
    from siamcar_ros.ros.client import TrackerClient

    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    if options.source:
        if Path(options.source).resolve() == (output / "tracked.mp4").resolve():
            raise DemoError(f"{options.source} would be overwritten: give another --output")
        check_box(open_source(options.source), options)
    log = output / "frames.csv"
    log.unlink(missing_ok=True)
    watch = Watch()
    with ExitStack() as stack:
        parameters = {name: value for name, value in options.node.items() if value}
        tracker = stack.enter_context(
            _node("the tracker node", "tracker_node", parameters, output / "tracker.log", "tracker")
        )
        tracker.start()
        source, name = _source(options)
        box = check_box(source, options)
        client = stack.enter_context(TrackerClient(f"{NAMESPACE}/tracker", watch.detection))
        print("waiting for the tracker node to load its network", flush=True)
        _wait_until_active(client, tracker)
        client.watch_frames(f"{NAMESPACE}/camera_info", watch.frame)
        settings = {
            "source": name,
            "rate": float(options.rate or source.rate),
            "wait_for_subscriber": True,
            "first_frame_hold": _FIRST_FRAME_HOLD,
            "frame_log": str(log),
            "focal": float(source.focal or 0.0),
        }
        frames = stack.enter_context(
            _node("the frame source", "frame_source", settings, output / "source.log")
        )
        frames.start()
        _await(watch.first_frame.is_set, _FIRST_FRAME_TIMEOUT, (tracker, frames), "no frame came")
        started = watch.headers[0]
        _start(client, box, started)
        print(f"tracking on {NAMESPACE}/image, detections on {NAMESPACE}/tracker/detection")
        _follow(watch, source, client, tracker, frames)
    record = _record(watch, log, box, started)
    if not record.detected.any():
        raise DemoError(
            f"the target was given but no detection came; the node's last words:\n{tracker.tail()}"
        )
    parts = source.parts or quarters(len(record.stamps))
    summary = summarize(record, source.boxes, parts)
    status = client.status
    counts: dict[str, int] = {}
    if status is not None:
        for count in ("received", "tracked", "dropped", "failed"):
            counts[count] = int(getattr(status, f"frames_{count}"))
        print(f"\n{source.name}: {status.network} on {status.backend}, {status.device}")
    print(describe(summary, counts))
    told = {"source": source.name, "asked_rate": options.rate or source.rate, "node": counts}
    (output / "summary.json").write_text(json.dumps(told | asdict(summary), indent=1) + "\n")
    video, strip = write_pictures(source, record, output)
    print(f"video                    {video}\nframes                   {strip}")
    return summary


def _use_profile() -> None:
    """Have Fast DDS take the profile that the environment names, or else the shipped one."""
    named = [os.environ[name] for name in FASTDDS_VARIABLES if name in os.environ]
    profile = named[0] if named else fastdds_profile()
    if profile is not None:
        for name in FASTDDS_VARIABLES:
            os.environ.setdefault(name, str(profile))


def _node(
    title: str, module: str, parameters: Mapping[str, object], log: Path, name: str = ""
) -> Child:
    """A node of `siamcar_ros.ros` as a process of its own, under the demonstration's namespace."""
    arguments = ["--ros-args", "-r", f"__ns:={NAMESPACE}"]
    if name:
        arguments += ["-r", f"__node:={name}"]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={json.dumps(value)}"]
    return Child(title, f"siamcar_ros.ros.{module}", arguments, log)


def _source(options: Options) -> tuple[Source, str]:
    """The source and the name under which the frame source's process finds it."""
    if options.source:
        return open_source(options.source), str(Path(options.source).expanduser().resolve())
    # rendered before it is played, so that drawing takes no time from the tracker
    clip = open_source("clip")
    folder = rendered_clip(options.output / "clip")
    return replace(clip, images=open_source(str(folder)).images), str(folder.resolve())


def rendered_clip(folder: Path) -> Path:
    """The clip as a sequence folder, rendered unless the same one is there already."""
    from siamcar_ros.demo import render

    modules = sorted(Path(render.__file__).parent.glob("*.py"))
    made_by = hashlib.sha256(b"".join(path.read_bytes() for path in modules)).hexdigest()
    mark = folder / "made_by.txt"
    if not (mark.is_file() and mark.read_text() == made_by):
        render.write_sequence(render.Clip(), folder)
        mark.write_text(made_by)
    return folder


def check_box(source: Source, options: Options) -> Box:
    """The target's box on the first frame.

    Raises:
        SourceError: none is given or known, the source is a camera, or holds no frame.
        TargetError: it is no box to track, as one outside the frame.
    """
    if source.live:
        raise SourceError(
            "the demonstration needs frames that can be read again: a video or a sequence folder"
        )
    if options.box is not None:
        first = next(source.images(), None)
        if first is None:
            raise SourceError(f"{source.name} has no frames")
        checked_box(options.box, first)
        return options.box
    if source.boxes is None:
        raise SourceError(
            f"{source.name} has no true boxes: give the target's box on the first frame, "
            "BOX=x,y,w,h in pixels"
        )
    x, y, w, h = source.boxes[0].tolist()
    return x, y, w, h


def _alive(children: tuple[Child, ...]) -> None:
    for child in children:
        if not child.running:
            raise DemoError(
                f"{child.name} ended with status {child.status}; its last words:\n{child.tail()}"
            )


def _await(
    ready: Callable[[], bool], timeout: float, children: tuple[Child, ...], otherwise: str
) -> None:
    deadline = time.monotonic() + timeout
    while not ready():
        _alive(children)
        if time.monotonic() > deadline:
            words = "\n".join(f"  {child.name}:\n{child.tail()}" for child in children)
            raise DemoError(f"{otherwise} within {timeout:g} s; last words of\n{words}")
        time.sleep(0.02)


def _wait_until_active(client: TrackerClient, tracker: Child) -> None:
    from siamcar_ros.ros.client import TrackerUnavailable

    try:
        client.wait_until_active(_ACTIVE_TIMEOUT, check=lambda: _alive((tracker,)))
    except TrackerUnavailable as error:
        raise DemoError(f"{error}; its last words:\n{tracker.tail()}") from error
    if client.twins > 1:
        raise DemoError(
            f"{client.twins} nodes are called {NAMESPACE}/tracker: another demonstration runs in "
            "this ROS domain; end it or set another ROS_DOMAIN_ID"
        )


def _start(client: TrackerClient, box: Box, header: Header) -> None:
    """Name the target on a frame; the node may get the frame itself a little later than we."""
    from siamcar_ros.ros.client import TargetRefused, TrackerUnavailable

    deadline = time.monotonic() + _INIT_TIMEOUT
    while True:
        try:
            client.init_target(box, header, target="target")
            return
        except TargetRefused as error:
            if time.monotonic() > deadline:
                raise DemoError(f"the node refused the target {box}: {error}") from error
            time.sleep(0.05)
        except TrackerUnavailable as error:
            raise DemoError(str(error)) from error


def _follow(
    watch: Watch, source: Source, client: TrackerClient, tracker: Child, frames: Child
) -> None:
    """Show progress until the source has ended and the last detection has come."""
    from siamcar_ros.ros.client import STATES

    with tqdm(total=source.length, unit="frame", desc="following", disable=None) as bar:
        while True:
            ended = not frames.running
            _alive((tracker,))
            bar.update(len(watch.headers) - bar.n)
            newest = watch.newest
            if newest is not None:
                late = (newest.arrival - newest.stamp) / 1e6
                state = STATES.get(client.status.state, "?") if client.status else "?"
                bar.set_postfix_str(
                    f"{state}, score {newest.score:.2f}, {late:.1f} ms", refresh=False
                )
            if ended:
                break
            if time.monotonic() - watch.last_frame > _STALL_TIMEOUT:
                raise DemoError(
                    f"no frame for {_STALL_TIMEOUT:g} s; the source's last words:\n{frames.tail()}"
                )
            time.sleep(0.1)
        if frames.status:
            raise DemoError(f"the frame source failed; its last words:\n{frames.tail()}")
        deadline = time.monotonic() + _LAST_DETECTION_TIMEOUT
        last = stamp_ns(watch.headers[-1].stamp)
        while last not in watch.detections and time.monotonic() < deadline:
            time.sleep(0.02)
        bar.update(len(watch.headers) - bar.n)


def _record(watch: Watch, log: Path, box: Box, started: Header) -> Record:
    """Join what was published with what was heard."""
    stamps = np.loadtxt(log, delimiter=",", dtype=np.int64, ndmin=2)[:, 1]
    count = len(stamps)
    arrivals, boxes = np.zeros(count, np.int64), np.full((count, 4), np.nan)
    scores = np.full(count, np.nan)
    for index, stamp in enumerate(stamps.tolist()):
        found = watch.detections.get(stamp)
        if found is not None:
            arrivals[index], boxes[index], scores[index] = found.arrival, found.box, found.score
    first = int(np.searchsorted(stamps, stamp_ns(started.stamp)))
    return Record(stamps, arrivals, boxes, scores, first, box)
