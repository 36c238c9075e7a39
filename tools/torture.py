"""Try to break a running tracker node, and report how it held up.

    make torture                             about 15 minutes
    make torture ARGS="--minutes 1 --seed 7"

Service calls from four clients while it tracks, malformed images with good ones between, lifecycle
transitions, cameras that are killed, stopped or doubled, signals at random moments, a full disk and
a full /dev/shm, and a soak with one and with eight targets and every output subscribed to. The
exit status is 1 if a call was not answered in time, a fault was fatal, or memory grew.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from torture_images import bad_compressed_images, bad_raw_images, jpeg, raw, stamped
from torture_node import (
    FRAMES,
    PATIENCE,
    Camera,
    Node,
    camera_info,
    catches,
    source_process,
    tail,
    tracker_command,
    wait,
)
from vision_msgs.msg import Detection2DArray
from visualization_msgs.msg import MarkerArray

from siamcar_ros.data.detections import stamp_of
from siamcar_ros.ros.client import TargetRefused, TrackerClient, TrackerUnavailable
from siamcar_ros.speed.backends import Film
from siamcar_ros.speed.tables import Table

GROWTH = 1.0  # MB per hour
# Seconds: left out at the start of a soak; the shortest soak whose growth is judged.
_WARM_UP, _JUDGED_FROM = 30.0, 300.0


@dataclass
class Row:
    """The result of one phase; its fields are the columns of the table."""

    phase: str
    calls: int = 0
    answered: int = 0
    longest: float = 0.0
    faults: int = 0
    survived: int = 0
    shown: int = 0
    lost: int = 0
    growth: float | None = None
    threads: int | None = None
    files: int | None = None
    notes: list[str] = field(default_factory=list)

    def problems(self, answer_within: float) -> list[str]:
        """Return the limits that were exceeded."""
        found = []
        if self.answered < self.calls:
            found.append(f"{self.calls - self.answered} calls were not answered")
        if self.longest > answer_within:
            found.append(f"an answer took {self.longest:.1f} s")
        if self.survived < self.faults:
            found.append(f"{self.faults - self.survived} faults were fatal")
        if self.growth is not None and self.growth > GROWTH:
            found.append(f"memory grew by {self.growth:.2f} MB/h")
        return [f"{self.phase}: {each}" for each in found]


COLUMNS = {each.name: each.name for each in fields(Row) if each.name != "notes"}
COLUMNS |= {"longest": "longest s", "growth": "MB/h"}


class Torture:
    """The phases; each returns its row."""

    def __init__(self, minutes: float, seed: int, folder: Path, node: dict[str, object]) -> None:
        self.random = random.Random(seed)
        self.seconds = 60 * minutes
        self.scale = minutes / 15
        self.folder = folder
        self.parameters = node
        self.film = Film(FRAMES)

    def phases(self) -> dict[str, Callable[[], Row]]:
        """All phases by name."""
        return {
            "calls": self.calls,
            "raw": self.raw_images,
            "compressed": self.compressed_images,
            "transitions": self.transitions,
            "cameras": self.cameras,
            "signals": self.signals,
            "disks": self.full_disks,
            "soak1": lambda: self.soak(1),
            "soak8": lambda: self.soak(8),
        }

    def amount(self, full: int) -> int:
        """Scale the number of repetitions for 15 minutes to the run's length; at least 2."""
        return max(2, round(full * self.scale))

    @contextmanager
    def node(self, **parameters: object) -> Iterator[Node]:
        """An active node."""
        node = Node(self.folder, self.parameters | parameters)
        try:
            node.client.wait_until_active(PATIENCE)
            yield node
        finally:
            node.end()

    def start(self, node: Node, targets: int = 1) -> None:
        """Start targets on the newest image, once there is one."""
        x, y, w, h = self.film.boxes[0]
        for index in range(targets):
            box, name = (x + 3 * index, y, w, h), f"car {index}"
            node.client.start_target(box, Header(), name, patience=PATIENCE)

    def calls(self) -> Row:
        """Calls of every kind from four clients, while the camera runs."""
        row = Row("service calls")
        lock = threading.Lock()
        with self.node(max_targets=4) as node, Camera(node, self.film):
            self.start(node)

            def caller(seed: int, count: int) -> None:
                choose = random.Random(seed)
                with TrackerClient(node.client.tracker) as client:
                    client.wait_until_active(PATIENCE)
                    for _ in range(count):
                        began = time.monotonic()
                        answered = one_call(client, node, choose, self.film)
                        took = time.monotonic() - began
                        with lock:
                            row.calls += 1
                            row.answered += answered
                            row.longest = max(row.longest, took)

            each = self.amount(10_000) // 4
            seeds = [self.random.getrandbits(32) for _ in range(4)]
            threads = [threading.Thread(target=caller, args=(seed, each)) for seed in seeds]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            row.faults, row.survived = 1, int(node.alive)
        return row

    def raw_images(self) -> Row:
        """Malformed raw images, each followed by a good one that must be tracked."""
        return self._images("raw images", "raw", bad_raw_images)

    def compressed_images(self) -> Row:
        """The same for compressed ones."""
        return self._images("compressed images", "compressed", bad_compressed_images)

    def _images(self, name: str, transport: str, bad: Callable[..., list[Any]]) -> Row:
        row = Row(name)
        pack = raw if transport == "raw" else jpeg
        with self.node(image_transport=transport, image_timeout=3600.0) as node:
            kind, topic = (
                (Image, "image") if transport == "raw" else (CompressedImage, "image/compressed")
            )
            publisher = node.publisher(kind, topic)
            wait(publisher.get_subscription_count)
            publisher.publish(stamped(pack(self.film.images[0])))
            self.start(node)
            messages = bad(self.film.images[0], self.random)
            frames = self.film.endless()
            for index in range(self.amount(1000)):
                message = messages[index % len(messages)]
                ahead = self.random.choice([0, 0, -(10**18), 86_400 * 10**9])
                publisher.publish(stamped(message, ahead))
                time.sleep(0.02)  # the node's subscription keeps the newest image only
                row.faults += 1
                good = stamped(pack(next(frames)))
                stamp = stamp_of(good)
                publisher.publish(good)
                row.shown += 1
                arrived = wait(partial(node.has_detected, stamp), 10.0)
                row.lost += not arrived
                row.survived += bool(node.alive and arrived)
                node.detections.clear()
                if not node.alive:
                    row.notes.append(tail(node.log))
                    break
        return row

    def transitions(self) -> Row:
        """Lifecycle transitions, allowed or not, while the camera runs."""
        row = Row("transitions")
        kinds = [Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE] * 8
        kinds += [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP]
        with self.node() as node, Camera(node, self.film):
            for _ in range(self.amount(1000)):
                kind = self.random.choice(kinds)
                request = ChangeState.Request(transition=Transition(id=kind))
                began = time.monotonic()
                answer = node.ask(ChangeState, "change_state", request)
                took = time.monotonic() - began
                row.calls += 1
                row.answered += answer is not None
                if kind != Transition.TRANSITION_CONFIGURE:  # that loads the network
                    row.longest = max(row.longest, took)
            for kind in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                node.ask(
                    ChangeState, "change_state", ChangeState.Request(transition=Transition(id=kind))
                )
            node.detections.clear()
            self.start(node)
            row.faults = 1
            row.survived = int(bool(wait(lambda: node.detections, 30.0)) and node.alive)
        return row

    def cameras(self) -> Row:
        """Cameras that are killed, stopped for a while, or doubled."""
        row = Row("cameras")
        with self.node(image_timeout=1.0) as node:
            for index in range(self.amount(60)):
                kind = ("killed", "stopped", "doubled")[index % 3]
                sources = [source_process(node.namespace) for _ in range(1 + (kind == "doubled"))]
                row.faults += 1
                try:
                    self.start(node)
                    if kind == "killed":
                        sources[0].kill()
                        sources.append(source_process(node.namespace))
                    elif kind == "stopped":
                        sources[0].send_signal(signal.SIGSTOP)
                        time.sleep(1.5)
                        sources[0].send_signal(signal.SIGCONT)
                    node.detections.clear()
                    row.survived += bool(wait(lambda: node.detections, 30.0)) and node.alive
                except TargetRefused as error:
                    row.notes.append(str(error))
                finally:
                    for each in sources:
                        each.kill()
                        each.wait()
        return row

    def signals(self) -> Row:
        """SIGINT and SIGTERM at random moments of a start and of tracking."""
        row = Row("signals")
        for _ in range(self.amount(45)):
            command = tracker_command("/signaled", self.parameters)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            wait(partial(catches, process.pid, signal.SIGTERM), 60.0)
            time.sleep(self.random.uniform(0.0, 6.0))
            process.send_signal(self.random.choice([signal.SIGINT, signal.SIGTERM]))
            row.faults += 1
            try:
                _, said = process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                _, said = process.communicate()
            row.survived += process.returncode == 0
            if process.returncode:
                row.notes.append(f"status {process.returncode}: {said.decode()[-300:]}")
        return row

    def full_disks(self) -> Row:
        """A start with a full /dev/shm, and one with a full home folder and temporary folder."""
        row = Row("full disks")
        unshare = shutil.which("unshare")
        if unshare is None or subprocess.run([unshare, "-m", "true"], check=False).returncode:
            row.notes.append("left out: this user cannot make a mount namespace")
            return row
        home = self.folder / "home"
        home.mkdir()
        small = (
            f"mount -t tmpfs -o size=64k tmpfs {home} && dd if=/dev/zero of={home}/f bs=1k count=99"
        )
        variables = " ".join(
            f"{name}={home}" for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "ROS_LOG_DIR")
        )
        for script in (
            'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"',
            f'({small}) 2>/dev/null; exec env {variables} "$@"',
        ):
            row.faults += 1
            prefix = [unshare, "-m", "sh", "-c", script, "sh"]
            node = Node(self.folder, self.parameters, prefix)
            try:
                node.client.wait_until_active(PATIENCE)
                with Camera(node, self.film):
                    self.start(node)
                    row.survived += bool(wait(partial(getattr, node, "newest"), 30.0))
            except (TrackerUnavailable, TargetRefused) as error:
                row.notes.append(f"{error}: {tail(node.log)}")
            finally:
                node.end()
        return row

    def soak(self, targets: int) -> Row:
        """Track for a third of the time, with every output subscribed to."""
        row = Row(f"soak, {targets} target{'s' if targets > 1 else ''}")
        with self.node(max_targets=targets) as node, Camera(node, self.film) as camera:
            heard = [0]

            def listen(_: object) -> None:
                heard[0] += 1

            for kind, topic in (
                (Detection2DArray, "detections"),
                (Image, "debug_image"),
                (MarkerArray, "markers"),
            ):
                node.client.node.create_subscription(
                    kind, f"{node.client.tracker}/{topic}", listen, 10
                )
            node.client.node.create_subscription(DiagnosticArray, "/diagnostics", listen, 10)
            info = node.publisher(CameraInfo, "camera_info")
            self.start(node, targets)
            process = psutil.Process(node.process.pid)
            seconds = max(5.0, self.seconds / 3)
            warm_up = min(_WARM_UP, seconds / 4)
            began, sent = time.monotonic(), camera.sent
            node.detections.clear()
            samples: list[tuple[float, float]] = []
            answered = 0
            while (now := time.monotonic() - began) < seconds and node.alive:
                info.publish(camera_info(self.film))
                if now > warm_up:
                    samples.append((now, process.memory_info().rss / 1e6))
                answered += len(node.detections)
                node.detections.clear()
                time.sleep(0.5)
            time.sleep(0.5)
            row.shown = camera.sent - sent
            answered += len(node.detections)
            row.lost = max(0, row.shown - answered)
            row.faults, row.survived = 1, int(node.alive and heard[0] > 0)
            if len(samples) > 2:
                times, sizes = np.array(samples).T
                if seconds >= _JUDGED_FROM:
                    row.growth = 3600 * float(np.polyfit(times, sizes, 1)[0])
                else:
                    row.notes.append(
                        f"memory from {sizes[0]:.0f} to {sizes[-1]:.0f} MB in {seconds:.0f} s: too "
                        f"short for a rate, which takes {_JUDGED_FROM:.0f} s"
                    )
                row.threads, row.files = process.num_threads(), process.num_fds()
        return row


def one_call(client: TrackerClient, node: Node, choose: random.Random, film: Film) -> bool:
    """Make a random call that a client can make; return whether it was answered."""
    x, y, w, h = film.boxes[0]
    kind = choose.randrange(6)
    try:
        if kind == 0:
            client.init_target((x, y, w, h), target=f"car {choose.randrange(6)}")
        elif kind == 1:
            client.init_target((x, y, choose.choice([0.0, -1.0, float("nan"), 1e9]), h))
        elif kind == 2:
            client.init_target((x, y, w, h), target="n" * choose.choice([257, 100_000]))
        elif kind == 3:
            client.stop_tracking()
        elif kind == 4:
            return node.ask(GetState, "get_state", GetState.Request(), 10.0) is not None
        else:
            name, value = choose.choice(
                [("lr", 0.3), ("lr", 7.0), ("debug_rate", 10.0), ("class_id", "x" * 999)]
            )
            request = SetParameters.Request()
            request.parameters = [Parameter(name, value=value).to_parameter_msg()]
            return node.ask(SetParameters, "set_parameters", request, 10.0) is not None
    except TargetRefused:
        return True
    except TrackerUnavailable:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run all phases and print the table; return 1 if a limit was exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=15.0, help="about (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="PHASE",
        help="these phases alone",
    )
    parser.add_argument(
        "--answer-within",
        type=float,
        default=2.0,
        metavar="S",
        help="longest time for an answer in seconds (%(default)s)",
    )
    parser.add_argument("--config", default="compact", help="network or YAML file (%(default)s)")
    parser.add_argument("--backend", default="auto", help="what runs it (%(default)s)")
    given = parser.parse_args(arguments)
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="torture_") as folder:
        node = {"config": given.config, "backend": given.backend}
        torture = Torture(given.minutes, given.seed, Path(folder), node)
        phases = torture.phases()
        unknown = set(given.only) - set(phases)
        if unknown:
            parser.error(f"no phase {', '.join(unknown)}; there are {', '.join(phases)}")
        for name in given.only or phases:
            began = time.monotonic()
            try:
                rows.append(phases[name]())
            except (TrackerUnavailable, TargetRefused) as error:
                rows.append(Row(name, faults=1, notes=[str(error)]))
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(Table("how the node held up", COLUMNS, [vars(row) for row in rows]).text())
    for row in rows:
        for note in dict.fromkeys(row.notes):
            print(f"  {row.phase}: {note}")
    problems = [problem for row in rows for problem in row.problems(given.answer_within)]
    for problem in problems:
        print(f"FAILED {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
