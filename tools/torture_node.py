"""A node to torture in a process of its own, its client, and the cameras in front of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from torture_images import raw, stamped

from siamcar_ros.ros.client import Detection, TrackerClient
from siamcar_ros.ros.messages import SERVICE_QOS
from siamcar_ros.speed.backends import Film

PATIENCE = 120.0  # seconds, for whatever must happen at some time
FRAMES = 30  # of the film
_RATE = 30.0


class Node:
    """A tracker node in its own process and namespace, with a client."""

    _count = 0

    def __init__(self, folder: Path, node: dict[str, object], prefix: list[str] | None = None):
        Node._count += 1
        self.namespace = f"/torture{Node._count}"
        self.log = folder / f"node{Node._count}.log"
        self.detections: list[Detection] = []
        self.newest = 0
        with self.log.open("wb") as log:
            command = [*(prefix or []), *tracker_command(self.namespace, node)]
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.client = TrackerClient(f"{self.namespace}/tracker", self._detected)
        self._clients: dict[str, Any] = {}

    def publisher(self, kind: type, topic: str = "image") -> Any:
        """A publisher in the node's namespace."""
        return self.client.node.create_publisher(
            kind, f"{self.namespace}/{topic}", QoSProfile(depth=5)
        )

    def _detected(self, detection: Detection) -> None:
        self.detections.append(detection)
        self.newest = max(self.newest, detection.stamp)

    def has_detected(self, stamp: int) -> bool:
        """Whether a detection with this stamp, or a later one, has arrived."""
        return self.newest >= stamp

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def ask(self, kind: type, service: str, request: Any, timeout: float = PATIENCE) -> Any:
        """The answer to a request, or None if there was none in time."""
        if service not in self._clients:
            self._clients[service] = self.client.node.create_client(
                kind, f"{self.namespace}/tracker/{service}", qos_profile=SERVICE_QOS
            )
        client = self._clients[service]
        if not client.wait_for_service(timeout_sec=timeout):
            return None
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        return future.result() if done.wait(timeout) else None

    def end(self) -> int:
        """End the node; its exit status."""
        self.client.close()
        if self.alive:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait()


class Camera:
    """Publishes the film until it is stopped."""

    def __init__(self, node: Node, film: Film, rate: float = _RATE) -> None:
        self.sent = 0
        self._publisher, self._film, self._rate = node.publisher(Image), film, rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        due = time.monotonic()
        for image in self._film.endless():
            due += 1 / self._rate
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                return
            self._publisher.publish(stamped(raw(image)))
            self.sent += 1

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def tracker_command(namespace: str, parameters: dict[str, object]) -> list[str]:
    """Run the installed executable, or the module where there is none."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        path = Path(get_package_prefix("siamcar_ros"), "lib", "siamcar_ros", "tracker_node")
        command = [sys.executable, str(path)] if path.is_file() else []
    except PackageNotFoundError:
        command = []
    command = command or [sys.executable, "-m", "siamcar_ros.ros.tracker_node"]
    command += ["--ros-args", "-r", f"__ns:={namespace}"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    return command


def source_process(namespace: str) -> subprocess.Popen[bytes]:
    """A frame source as another process."""
    command = [sys.executable, "-m", "siamcar_ros.ros.frame_source", "--ros-args"]
    command += ["-r", f"__ns:={namespace}", "-p", "loop:=true", "-p", f"preload:={FRAMES}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line for line in lines if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << (number - 1))


def wait(condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """Return the condition's first true value; None if it has none in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    return None


def tail(log: Path) -> str:
    """The last lines of a log in one."""
    return " / ".join(log.read_text(errors="replace").splitlines()[-5:])


def camera_info(film: Film) -> CameraInfo:
    """A calibration, so that markers are published."""
    height, width = film.images[0].shape[:2]
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [560.0, 0.0, width / 2, 0.0, 560.0, height / 2, 0.0, 0.0, 1.0]
    info.header.frame_id = "camera"
    return info
