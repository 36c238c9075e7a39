"""What the node tests share: a node in a process of its own, and a camera to show it things."""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from siamcar_ros.ros.client import Box, TargetRefused, TrackerClient
from siamcar_ros.ros.frame import Frame

_Value = TypeVar("_Value")

WIDTH, HEIGHT = 320, 240
BOX = (140.0, 100.0, 40.0, 30.0)
# Loaded machines are slow; whoever waits for something waits this long before giving up.
PATIENCE = 120.0


def wait_for(what: str, condition: Callable[[], _Value], timeout: float = PATIENCE) -> _Value:
    """The condition's first true value; AssertionError naming `what` where none comes."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"no {what} within {timeout:g} s")


def wait_for_more(heard: Sequence[Any], count: int) -> None:
    """Return when more than `count` messages were heard."""
    wait_for(f"more than {count} messages", lambda: len(heard) > count)


def wait_for_header(header: Header, heard: Sequence[Any]) -> None:
    """Return when a message with this header was heard."""
    wait_for(f"answer to {header}", lambda: same([header], [each.header for each in heard]))


def frame(stamp: int, received: float | None = None, height: int = 10) -> Frame:
    """A grey image of 10 by `height` pixels stamped in nanoseconds."""
    message = raw_image(np.full((height, 10, 3), stamp % 256, np.uint8))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    return Frame(message, received=float(stamp) if received is None else received)


class Log:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, **_: Any) -> None:
        self.lines.append(text)

    error = warning = info


class NodeProcess:
    """`tracker_node`, or another executable, as a user starts it, in a namespace, its log kept."""

    def __init__(
        self,
        log: Path,
        namespace: str,
        parameters: dict[str, object],
        *ros_args: str,
        executable: str = "tracker_node",
    ) -> None:
        self.log_file = log
        self.namespace = namespace
        arguments = ["--ros-args", "-r", f"__ns:={namespace}"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            arguments += ["-p", f"{name}:={text}"]
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"siamcar_ros.ros.{executable}", *arguments, *ros_args],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "RCUTILS_LOGGING_BUFFERED_STREAM": "0"},
            )
        atexit.register(self.process.kill)  # a test that fails may not have ended it

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for_log(self, text: str, count: int = 1) -> None:
        wait_for(f"{text!r} in the log:\n{self.log}", lambda: self.log.count(text) >= count)

    def shared_memory(self) -> set[Path]:
        """Marks of the segments that Fast DDS has made in this process, which holds them open."""
        opened = Path(f"/proc/{self.process.pid}/fd").glob("*")
        files = {Path(os.path.realpath(each)) for each in opened}
        return {file for file in files if re.fullmatch(r"fastrtps_[0-9a-f]{16}_el", file.name)}

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal; the exit status that follows."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Robot:
    """A tracker node, the camera that shows it images, and the operator that calls its services."""

    def __init__(self, process: NodeProcess) -> None:
        self.process = process
        self.name = f"{process.namespace}/tracker"
        self.client = TrackerClient(self.name)
        self.node = self.client.node
        self.sent: list[Header] = []
        self._publishers: dict[tuple[str, ReliabilityPolicy], Any] = {}
        self._clients: dict[str, Any] = {}
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def close(self) -> None:
        self.stop_camera()
        self.client.close()

    def collect(self, kind: type, topic: str) -> list[Any]:
        """A list that grows by the messages of one of the node's topics."""
        heard: list[Any] = []
        self.node.create_subscription(kind, f"{self.name}/{topic}", heard.append, 50)
        return heard

    def publisher(
        self,
        topic: str = "image",
        kind: type = Image,
        reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
    ) -> Any:
        key = (topic, reliability)
        if key not in self._publishers:
            self._publishers[key] = self.node.create_publisher(
                kind,
                f"{self.process.namespace}/{topic}",
                QoSProfile(depth=5, reliability=reliability),
            )
        return self._publishers[key]

    def show(self, message: Any, topic: str = "image", stamp: int | None = None) -> Header:
        """Publish an image as soon as the node listens; its header."""
        publisher = self.publisher(topic, type(message))
        wait_for(f"subscriber of {topic}", publisher.get_subscription_count)
        return self._publish(message, publisher, stamp)

    def _publish(self, message: Any, publisher: Any, stamp: int | None = None) -> Header:
        now = time.time_ns() if stamp is None else stamp
        message.header.frame_id = "camera"
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 10**9)
        self.sent.append(message.header)
        publisher.publish(message)
        return self.sent[-1]

    def start_camera(self, rate: float = 25.0) -> None:
        """Publish images of a moving square until `stop_camera`."""
        self._stopped.clear()
        publisher = self.publisher()

        def film() -> None:
            index = 0
            while not self._stopped.wait(1.0 / rate):
                self._publish(raw_image(scene(index)), publisher)
                index += 1

        self._thread = threading.Thread(target=film, daemon=True)
        self._thread.start()

    def stop_camera(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def track(self, target: str = "", box: Box = BOX, header: Header | None = None) -> str:
        """Start on a box, that of the scene, once the node has an image; the track's name."""

        def started() -> str:
            try:
                return self.client.init_target(box, header, target, timeout=PATIENCE)
            except TargetRefused as error:
                if "no image has arrived" in str(error):
                    return ""
                raise

        return wait_for("first image", started)

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "change_state", request).success)

    def state(self) -> int:
        answer = self.ask(GetState, "get_state", GetState.Request())
        return int(answer.current_state.id)

    def call(self, kind: type, service: str, request: Any, patience: float = PATIENCE) -> Any:
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, f"{self.name}/{service}")
        client = self._clients[service]
        assert client.wait_for_service(PATIENCE), f"no service {service}"
        future = client.call_async(request)
        wait_for(f"answer from {service}", future.done, patience)
        return future.result()

    def ask(self, kind: type, service: str, request: Any) -> Any:
        """Call a service that changes nothing, repeatedly until one answer arrives.

        The middleware drops an answer if the server has not discovered this client's reader yet.
        """
        for _ in range(5):
            with suppress(AssertionError):
                return self.call(kind, service, request, PATIENCE / 6)
        return self.call(kind, service, request, PATIENCE / 6)

    def set_parameters(self, **values: object) -> str:
        """Set parameters of the node; the reason of a refusal, or ""."""
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        request = SetParametersAtomically.Request(
            parameters=[each.to_parameter_msg() for each in parameters]
        )
        answer = self.call(SetParametersAtomically, "set_parameters_atomically", request)
        return "" if answer.result.successful else answer.result.reason or "refused"

    def get_parameter(self, name: str) -> object:
        answer = self.ask(GetParameters, "get_parameters", GetParameters.Request(names=[name]))
        return parameter_value_to_python(answer.values[0])


def scene(index: int) -> NDArray[np.uint8]:
    """A textured square that moves over a textured ground, (240, 320, 3) BGR."""
    ground = np.random.default_rng(1).integers(60, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    square = np.random.default_rng(2).integers(150, 255, (30, 40, 3), dtype=np.uint8)
    x = 140 + round(30 * np.sin(index / 20))
    ground[100:130, x : x + 40] = square
    return ground


def raw_image(pixels: NDArray[Any], encoding: str = "bgr8") -> Image:
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding=encoding)
    message.step = pixels.nbytes // height
    message.data.frombytes(np.ascontiguousarray(pixels).data.cast("B"))
    return message


def jpeg_image(pixels: NDArray[np.uint8]) -> CompressedImage:
    message = CompressedImage(format="bgr8; jpeg compressed bgr8")
    message.data.frombytes(cv2.imencode(".jpg", pixels)[1].data.cast("B"))
    return message


def camera_info(model: str = "plumb_bob", coefficients: Sequence[float] = (0.0,) * 5) -> CameraInfo:
    """Of a camera with this distortion, without any by default."""
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model=model)
    info.k = [300.0, 0.0, 160.0, 0.0, 300.0, 120.0, 0.0, 0.0, 1.0]
    info.d = list(coefficients)
    info.header.frame_id = "camera"
    return info


def same(headers: Sequence[Header], others: Sequence[Header]) -> bool:
    """Whether each of `headers` is among `others`."""
    known = {(each.stamp.sec, each.stamp.nanosec, each.frame_id) for each in others}
    return all((each.stamp.sec, each.stamp.nanosec, each.frame_id) in known for each in headers)
