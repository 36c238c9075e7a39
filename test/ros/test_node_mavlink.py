"""A ground station (pymavlink, over UDP on loopback) that tracks by MAVLink alone."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymavlink")

from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from node_harness import PATIENCE, NodeProcess, Robot, wait_for
from pymavlink.dialects.v20 import common as mav
from vision_msgs.msg import Detection2D

pytestmark = [pytest.mark.ros, pytest.mark.slow]

WIDTH, HEIGHT = 640, 480
CAMERA = (1, mav.MAV_COMP_ID_CAMERA)
ACCEPTED = mav.MAV_RESULT_ACCEPTED


class Station:
    """A ground station on a UDP port of its own."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.05)
        self.port = self.socket.getsockname()[1]
        self.link = mav.MAVLink(None, srcSystem=255, srcComponent=190)
        self.link.robust_parsing = True
        self.component = CAMERA
        self.camera: Any = None

    def listen(self) -> list[Any]:
        try:
            data, self.camera = self.socket.recvfrom(2048)
        except TimeoutError:
            return []
        return list(self.link.parse_buffer(data) or [])

    def wait(self, what: str, wanted: Callable[[Any], bool]) -> Any:
        def heard() -> Any:
            return next((each for each in self.listen() if wanted(each)), None)

        return wait_for(what, heard)

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, self.camera)

    def command(self, number: int, *numbers: float) -> int:
        """The result with which a command is acknowledged."""
        values = [*numbers, *[0.0] * (7 - len(numbers))]
        message = mav.MAVLink_command_long_message(*self.component, number, 0, *values)
        self.send(message.pack(self.link))
        ack = self.wait(
            f"answer to {number}",
            lambda each: each.get_type() == "COMMAND_ACK" and each.command == number,
        )
        return int(ack.result)

    def status(self) -> Any:
        return self.wait("status", lambda each: each.get_type() == "CAMERA_TRACKING_IMAGE_STATUS")


def _start(module: str, log: Path, namespace: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"siamcar_ros.ros.{module}", "--ros-args"]
    with open(log, "wb") as out:
        return subprocess.Popen(
            [*command, "-r", f"__ns:={namespace}", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    """The node with the network that ships, not the one of random weights."""
    process = NodeProcess(tmp_path / "tracker.log", "/mavlink", {"image_timeout": 30.0})
    robot = Robot(process)
    yield robot
    robot.close()
    process.end()


@pytest.fixture
def station(robot: Robot, tmp_path: Path) -> Iterator[Station]:
    station = Station()
    source = _start(
        "frame_source", tmp_path / "film.log", "/mavlink", "-p", "loop:=true", "-p", "rate:=15.0"
    )
    camera = _start(
        "mavlink_camera",
        tmp_path / "camera.log",
        "/mavlink",
        *("-p", f"url:=udpout:127.0.0.1:{station.port}"),
    )
    yield station
    for process in (camera, source):
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0, (tmp_path / "camera.log").read_text()
    station.socket.close()


def test_drag_follow_and_stop_by_mavlink_alone(robot: Robot, station: Station) -> None:
    detections: list[Detection2D] = robot.collect(Detection2D, "detection")
    truths: list[Detection2D] = []
    robot.node.create_subscription(Detection2D, "/mavlink/ground_truth", truths.append, 10)
    robot.client.wait_until_active(PATIENCE)
    wait_for("the film", lambda: truths)
    station.wait("heartbeat", lambda each: each.get_type() == "HEARTBEAT")

    interval = (mav.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS, 20_000)
    assert station.command(mav.MAV_CMD_SET_MESSAGE_INTERVAL, *interval) == ACCEPTED
    assert station.status().tracking_status == mav.CAMERA_TRACKING_STATUS_FLAGS_IDLE
    for garbage in (b"\xfd", b"\xfd\x20\x00\x00junk", os.urandom(200)):
        station.send(garbage)

    rectangle = _corners(truths[-1])
    assert station.command(mav.MAV_CMD_CAMERA_TRACK_RECTANGLE, *rectangle) == ACCEPTED
    statuses: list[tuple[float, ...]] = []
    deadline = time.monotonic() + PATIENCE
    while len(statuses) < 30 and time.monotonic() < deadline:
        status = station.status()
        if status.tracking_status & mav.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE:
            seen = (status.rec_top_x, status.rec_top_y, status.rec_bottom_x, status.rec_bottom_y)
            if seen not in statuses:
                statuses.append(seen)
    assert len(statuses) == 30

    def worst() -> float:
        found = np.array([_corners(each) for each in detections])
        return max(float(np.abs(found - each).max(1).min()) for each in np.array(statuses))

    wait_for("the detections of all statuses", lambda: worst() < 1e-6)

    assert station.command(mav.MAV_CMD_CAMERA_TRACK_POINT, 0.5, 2.0) == mav.MAV_RESULT_DENIED
    assert station.command(mav.MAV_CMD_CAMERA_STOP_TRACKING) == ACCEPTED
    station.wait(
        "idle",
        lambda each: (
            each.get_type() == "CAMERA_TRACKING_IMAGE_STATUS"
            and each.tracking_status == mav.CAMERA_TRACKING_STATUS_FLAGS_IDLE
        ),
    )

    def started_at_a_point() -> bool:
        left, top, right, bottom = _corners(truths[-1])
        point = ((left + right) / 2, (top + bottom) / 2)
        result = station.command(mav.MAV_CMD_CAMERA_TRACK_POINT, *point)
        assert result in (ACCEPTED, mav.MAV_RESULT_FAILED)
        return result == ACCEPTED

    wait_for("the car nearby, where nothing hides it", lambda: truths[-1].bbox.size_y > 90)
    wait_for("a target at the point", started_at_a_point)
    found = station.wait(
        "the box that the node has found",
        lambda each: (
            each.get_type() == "CAMERA_TRACKING_IMAGE_STATUS"
            and each.tracking_mode == mav.CAMERA_TRACKING_MODE_RECTANGLE
        ),
    )
    box = found.rec_top_x, found.rec_top_y, found.rec_bottom_x, found.rec_bottom_y
    wait_for(
        "its detection, and the true box of the same image",
        lambda: (same := _detection(detections, box)) and _of_stamp(truths, same),
    )
    same = _detection(detections, box)
    truth = same and _of_stamp(truths, same)
    assert truth is not None
    assert _overlap(box, _corners(truth)) > 0.4

    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
    silent = "tracking: the tracker does not answer"
    station.wait("silence", lambda each: each.get_type() == "STATUSTEXT" and each.text == silent)
    rejected = mav.MAV_RESULT_TEMPORARILY_REJECTED
    assert station.command(mav.MAV_CMD_CAMERA_TRACK_RECTANGLE, *rectangle) == rejected


def test_a_camera_with_ids_a_signature_and_a_video(robot: Robot, tmp_path: Path) -> None:
    station, secret = Station(), tmp_path / "secret"
    secret.write_text("correct horse\n")
    parameters = {
        "url": f"udpout:127.0.0.1:{station.port}",
        "system_id": 7,
        "component_id": 103,
        "signing_passphrase_file": secret,
        "rtsp_url": "rtsp://10.0.0.2:8554/main",
        "gimbal_rates": "rates",
    }
    log, space = tmp_path / "camera.log", robot.process.namespace
    station.link.signing.secret_key = hashlib.sha256(b"correct horse").digest()
    camera = NodeProcess(log, space, parameters, executable="mavlink_camera")
    beat = station.wait("heartbeat", lambda each: each.get_type() == "HEARTBEAT")
    station.component = beat.get_srcSystem(), beat.get_srcComponent()
    assert station.component == (7, 103)
    assert beat.get_signed()

    ask = mav.MAV_CMD_REQUEST_MESSAGE, mav.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION
    unsigned = mav.MAVLink_command_long_message(*station.component, ask[0], 0, ask[1], *[0.0] * 6)
    station.send(unsigned.pack(station.link))
    camera.wait_for_log("messages dropped so far: 1 malformed")
    station.link.signing.sign_outgoing = True
    station.link.signing.timestamp = int((time.time() - 1420070400) * 1e5)
    assert station.command(*ask) == ACCEPTED
    stream = station.wait("video", lambda each: each.get_type() == "VIDEO_STREAM_INFORMATION")
    assert stream.uri == parameters["rtsp_url"]

    rates = robot.publisher("rates", TwistStamped)
    wait_for("subscriber of the rates", rates.get_subscription_count)
    turn = TwistStamped()
    turn.twist.angular.y, turn.twist.angular.z = 0.25, -0.5  # down and to the right
    rates.publish(turn)
    for expected in ((0, -0.25, 0.5), (0, 0, 0)):  # passed on, and the stop half a second later
        passed = station.wait(
            "gimbal rates", lambda each: each.get_type() == "GIMBAL_MANAGER_SET_ATTITUDE"
        )
        found = passed.angular_velocity_x, passed.angular_velocity_y, passed.angular_velocity_z
        assert (passed.target_system, *found) == (7, *expected)
    assert camera.end() == 0, camera.log
    station.socket.close()


@pytest.mark.parametrize("installed", [True, False])
def test_a_serial_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    station, port = os.openpty()
    tty.setraw(port)
    if not installed:
        (tmp_path / "serial.py").write_text("raise ModuleNotFoundError(name='serial')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    log, url = tmp_path / "camera.log", f"{os.ttyname(port)},115200"
    camera = NodeProcess(log, "/serial", {"url": url}, executable="mavlink_camera")
    if not installed:
        assert camera.process.wait(PATIENCE) == 1
        assert "a serial port needs pyserial" in camera.log
        assert "Traceback" not in camera.log
        return
    link = mav.MAVLink(None, srcSystem=255, srcComponent=190)
    link.robust_parsing = True

    heard: list[Any] = []
    os.set_blocking(station, False)

    def hear(kind: str) -> Any:
        def found() -> Any:
            with suppress(BlockingIOError):
                heard.extend(link.parse_buffer(os.read(station, 4096)) or [])
            return next((each for each in heard if each.get_type() == kind), None)

        return wait_for(kind, found)

    assert hear("HEARTBEAT").type == mav.MAV_TYPE_CAMERA
    ask = mav.MAV_CMD_REQUEST_MESSAGE, mav.MAVLINK_MSG_ID_CAMERA_SETTINGS
    request = mav.MAVLink_command_long_message(*CAMERA, ask[0], 0, ask[1], *[0.0] * 6)
    packed = request.pack(link)
    os.write(station, b"noise" + packed[:9])
    os.write(station, packed[9:])
    assert hear("COMMAND_ACK").result == ACCEPTED
    assert hear("CAMERA_SETTINGS").mode_id == mav.CAMERA_MODE_VIDEO
    assert camera.end() == 0, camera.log


def test_an_empty_passphrase_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    values: dict[str, object] = {"signing_passphrase_file": tmp_path / "secret"}
    camera = NodeProcess(tmp_path / "log", "/unsigned", values, executable="mavlink_camera")
    assert camera.process.wait(PATIENCE) == 1
    assert "secret is empty" in camera.log
    assert "Traceback" not in camera.log


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The intersection of two boxes (left, top, right, bottom) over their union."""
    (left, top), (right, bottom) = np.maximum(one, other)[:2], np.minimum(one, other)[2:]
    shared = max(right - left, 0) * max(bottom - top, 0)
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (one, other)]
    return float(shared / (sum(areas) - shared))


def _detection(heard: list[Detection2D], box: tuple[float, ...]) -> Detection2D | None:
    """The detection whose corners are those of a status."""
    return next((each for each in heard if np.allclose(_corners(each), box, atol=1e-6)), None)


def _of_stamp(heard: list[Detection2D], other: Detection2D) -> Detection2D | None:
    return next((each for each in heard if each.header.stamp == other.header.stamp), None)


def _corners(message: Detection2D) -> tuple[float, float, float, float]:
    center, box = message.bbox.center.position, message.bbox
    x, y, w, h = center.x - box.size_x / 2, center.y - box.size_y / 2, box.size_x, box.size_y
    edges = (x / WIDTH, y / HEIGHT, (x + w) / WIDTH, (y + h) / HEIGHT)
    left, top, right, bottom = (min(max(each, 0.0), 1.0) for each in edges)
    return left, top, right, bottom
