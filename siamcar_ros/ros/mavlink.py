"""The MAVLink camera protocol with tracking: bytes in, bytes out. No rclpy, no sockets.

`Camera` is the camera component: it parses messages, answers commands and sends its own messages.
Boxes are in fractions of the image: (left, top, right, bottom), 0 to 1 from its top-left corner.

Sources: https://mavlink.io/en/services/camera.html and gimbal_v2.html. Requires pymavlink.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pymavlink.dialects.v20 import common as mav

from siamcar_ros.geometry import Box
from siamcar_ros.ros.following import TargetRefused, TrackerUnavailable
from siamcar_ros.tracking import TrackState

Fractions = tuple[float, float, float, float]

# Seconds between statuses: for a ground station that asks for the default, and at the least, as
# faster statuses would only fill the link.
DEFAULT_INTERVAL, SHORTEST_INTERVAL = 0.2, 0.01
_HEARTBEAT = 1.0
_GIMBAL_SILENCE = 0.5  # seconds without rates after which the gimbal is stopped
_STOPS = 3  # a link may lose one
# Roll and pitch are stabilized, yaw turns with the vehicle.
_LEVEL = mav.GIMBAL_MANAGER_FLAGS_ROLL_LOCK | mav.GIMBAL_MANAGER_FLAGS_PITCH_LOCK
_MODEL = b"SiamCAR tracker"
_LONGEST_TEXT, _TEXT_CHUNK = 200, 50
_MOST_PENDING = 4  # commands that wait for the tracker, which may take seconds for each
_SIGNATURE_EPOCH = 1420070400  # 2015-01-01; signatures count units of 10 microseconds from it

# Deprecated by MAV_CMD_REQUEST_MESSAGE, but still sent by many ground stations.
_REQUESTS = {
    mav.MAV_CMD_REQUEST_CAMERA_INFORMATION: mav.MAVLINK_MSG_ID_CAMERA_INFORMATION,
    mav.MAV_CMD_REQUEST_CAMERA_SETTINGS: mav.MAVLINK_MSG_ID_CAMERA_SETTINGS,
    mav.MAV_CMD_REQUEST_VIDEO_STREAM_INFORMATION: mav.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION,
}
_ACTIVE = mav.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE
_FLAGS = {
    None: mav.CAMERA_TRACKING_STATUS_FLAGS_IDLE,
    TrackState.TRACKING: _ACTIVE,
    TrackState.UNCERTAIN: _ACTIVE | mav.CAMERA_TRACKING_STATUS_FLAGS_COASTING,
    TrackState.LOST: mav.CAMERA_TRACKING_STATUS_FLAGS_ERROR,
}


@dataclass(frozen=True)
class Target:
    """The target's state, None if nothing is tracked, and its box in fractions of the image."""

    state: TrackState | None = None
    box: Fractions = (math.nan,) * 4


def box_in_pixels(box: Fractions, width: int, height: int) -> Box:
    """Return a box given in fractions of an image as (x, y, w, h) in pixels."""
    left, top, right, bottom = box
    return left * width, top * height, (right - left) * width, (bottom - top) * height


def box_in_fractions(box: Box, width: int, height: int) -> Fractions:
    """Return a box given as (x, y, w, h) in pixels in fractions of the image, clipped to it."""
    x, y, w, h = box
    edges = (x / width, y / height, (x + w) / width, (y + h) / height)
    left, top, right, bottom = (min(max(each, 0.0), 1.0) for each in edges)
    return left, top, right, bottom


class Camera:
    """A MAVLink camera component with tracking by point and rectangle.

    Not thread-safe.

    Args:
        start: starts the tracker on a box, or on a point if it has no size, in fractions of the
            newest image. It runs in a separate thread, may block, and raises TargetRefused or
            TrackerUnavailable with the reason; so does `stop`.
        stop: stops tracking.
        send: called with the bytes of each message.
        system: the vehicle's system id.
        component: the camera's component id.
        passphrase: messages are signed with its SHA-256, as ground stations do, and unsigned ones
            are dropped; empty: no signing.
        rtsp_url: address of the video that is announced; empty: none.
        datagrams: each `receive` gets whole messages, as from UDP; otherwise pieces of a stream.
        clock: returns seconds, monotonic.

    Attributes:
        size: width and height of the images in pixels; 0 while unknown.
        interval: seconds between statuses; 0 if none are sent.
        dropped: how many messages were dropped, by reason: "malformed" (signatures included) or
            "failed" (an error while answering). Those for other components are not counted.
    """

    def __init__(
        self,
        start: Callable[[Fractions], None],
        stop: Callable[[], object],
        send: Callable[[bytes], None],
        *,
        system: int = 1,
        component: int = mav.MAV_COMP_ID_CAMERA,
        passphrase: str = "",
        rtsp_url: str = "",
        datagrams: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size = 0, 0
        self.dropped: Counter[str] = Counter()
        self.interval = 0.0
        self._start, self._stop, self._clock = start, stop, clock
        self._system, self._component = system, component
        self._datagrams, self._rtsp_url = datagrams, rtsp_url
        self._target = Target()
        self._began = clock()
        self._heartbeat_at = self._status_at = self._began
        self._stops, self._turned_at = 0, -math.inf  # of the gimbal: stops to send yet
        self._texts = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mavlink command")
        self._pending: list[tuple[Any, Future[object]]] = []
        file = SimpleNamespace(write=send)
        self._link = mav.MAVLink(file, srcSystem=system, srcComponent=component)
        self._link.robust_parsing = True
        if passphrase:
            self._link.signing.secret_key = hashlib.sha256(passphrase.encode()).digest()
            self._link.signing.sign_outgoing = True
            self._link.signing.timestamp = int((time.time() - _SIGNATURE_EPOCH) * 1e5)
            self._link.signing.allow_unsigned_callback = lambda _link, _message: False
        self._emit = self._link.send

    def receive(self, data: bytes) -> None:
        """Handle bytes from the link. Never raises."""
        try:
            messages = self._link.parse_buffer(data) or []
        except Exception:
            self._discard()
            return
        for message in messages:
            try:
                self._handle(message)
            except Exception:
                self.dropped["failed"] += 1
        if self._datagrams and self._link.buf_len():  # a broken message must not eat the next one
            self._discard()

    def poll(self) -> None:
        """Send what is due: heartbeat, status, acknowledgments, the gimbal's stop."""
        now = self._clock()
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + _HEARTBEAT
            self._emit(
                mav.MAVLink_heartbeat_message(
                    mav.MAV_TYPE_CAMERA, mav.MAV_AUTOPILOT_INVALID, 0, 0, mav.MAV_STATE_ACTIVE, 3
                )
            )
        if self.interval and now >= self._status_at:
            self._status_at = max(self._status_at + self.interval, now)
            self._emit(self._tracking_status())
        if now - self._turned_at > _GIMBAL_SILENCE:
            self._stop_gimbal()
        for pending in [each for each in self._pending if each[1].done()]:
            self._pending.remove(pending)
            self._finish(*pending)

    def show(self, target: Target) -> None:
        """Report the target's newest state; the operator gets a text when it changes."""
        before, self._target = self._target.state, target
        if target.state is before:
            return
        if target.state is TrackState.UNCERTAIN:
            self.say("tracking: uncertain of the target", mav.MAV_SEVERITY_NOTICE)
        elif target.state is TrackState.LOST:
            self.say("tracking: target lost, searching", mav.MAV_SEVERITY_WARNING)
        elif target.state is TrackState.TRACKING and before is not None:
            self.say("tracking: target found", mav.MAV_SEVERITY_INFO)

    def miss_tracker(self) -> None:
        """Report that the tracker does not answer, and so its target, if it had one, as lost."""
        if self._target.state is not None:
            self._target = Target(TrackState.LOST)
        self.say("tracking: the tracker does not answer", mav.MAV_SEVERITY_WARNING)

    def say(self, text: str, severity: int) -> None:
        """Send a text to the operator, in chunks of 50 bytes as MAVLink requires."""
        data = text.encode()[:_LONGEST_TEXT] + b"\0"
        self._texts = self._texts % 0xFFFF + 1
        number = self._texts if len(data) > _TEXT_CHUNK else 0  # 0: a text of one chunk
        for index, at in enumerate(range(0, len(data), _TEXT_CHUNK)):
            piece = data[at : at + _TEXT_CHUNK]
            self._emit(mav.MAVLink_statustext_message(severity, piece, number, index))

    def turn_gimbal(self, pitch_rate: float, yaw_rate: float) -> None:
        """Ask the vehicle's gimbal manager for rates in rad/s: pitch up, yaw to the right.

        Control of the gimbal is claimed whenever it begins to turn. It is stopped by rates of 0, or
        after half a second without a call; the stop is sent three times.
        """
        if not (pitch_rate or yaw_rate):
            self._stop_gimbal()
            return
        if self._stops < _STOPS:
            configure = mav.MAV_CMD_DO_GIMBAL_MANAGER_CONFIGURE
            numbers = self._system, self._component, -1, -1, 0, 0, 0  # -1: no change; 0: any gimbal
            self._emit(mav.MAVLink_command_long_message(self._system, 0, configure, 0, *numbers))
        self._turned_at, self._stops = self._clock(), _STOPS
        self._send_rates(pitch_rate, yaw_rate)

    def close(self) -> None:
        """Stop the gimbal, and the thread in which commands run; pending ones are dropped."""
        while self._stops:
            self._stop_gimbal()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _stop_gimbal(self) -> None:
        if self._stops:
            self._stops -= 1
            self._send_rates(0.0, 0.0)

    def _send_rates(self, pitch_rate: float, yaw_rate: float) -> None:
        nowhere = [math.nan] * 4  # a quaternion that is to be ignored
        self._emit(
            mav.MAVLink_gimbal_manager_set_attitude_message(
                self._system, 0, _LEVEL, 0, nowhere, 0.0, pitch_rate, yaw_rate
            )
        )

    def _discard(self) -> None:
        self.dropped["malformed"] += 1
        self._link.buf, self._link.buf_index = bytearray(), 0

    def _handle(self, message: Any) -> None:
        kind = message.get_type()
        if kind == "BAD_DATA":
            self.dropped["malformed"] += 1
            return
        sender = message.get_srcSystem(), message.get_srcComponent()
        if sender == (self._system, self._component):
            return  # an echo, or another component with this id
        system = getattr(message, "target_system", 0)
        component = getattr(message, "target_component", 0)
        if system not in (0, self._system) or component not in (0, self._component):
            return
        if kind == "COMMAND_LONG":
            self._command(message)
        elif kind == "COMMAND_INT":  # its x and y are integers, not fractions
            self._acknowledge(message, mav.MAV_RESULT_COMMAND_LONG_ONLY)

    def _command(self, message: Any) -> None:
        command = message.command
        numbers = [getattr(message, f"param{index}") for index in range(1, 8)]
        if command in _REQUESTS or command == mav.MAV_CMD_REQUEST_MESSAGE:
            answer = self._requested(_REQUESTS.get(command, numbers[0]))
            result = mav.MAV_RESULT_UNSUPPORTED if answer is None else mav.MAV_RESULT_ACCEPTED
            self._acknowledge(message, result)
            if answer is not None:
                self._emit(answer)
        elif command == mav.MAV_CMD_SET_MESSAGE_INTERVAL:
            self._acknowledge(message, self._set_interval(numbers[0], numbers[1]))
        elif command == mav.MAV_CMD_CAMERA_TRACK_POINT:
            x, y = numbers[:2]
            if _inside(x, y):
                self._begin(message, lambda: self._start((x, y, x, y)))
            else:
                self._deny(message, "track point: x and y must be fractions of the image, 0 to 1")
        elif command == mav.MAV_CMD_CAMERA_TRACK_RECTANGLE:
            left, top, right, bottom = numbers[:4]
            if _inside(left, top, right, bottom) and left < right and top < bottom:
                self._begin(message, lambda: self._start((left, top, right, bottom)))
            else:
                self._deny(
                    message,
                    "track rectangle: corners must be fractions of the image, 0 to 1, "
                    "top left before bottom right",
                )
        elif command == mav.MAV_CMD_CAMERA_STOP_TRACKING:
            self._begin(message, self._stop)
        else:
            self._acknowledge(message, mav.MAV_RESULT_UNSUPPORTED)

    def _requested(self, number: float) -> Any:
        now = int((self._clock() - self._began) * 1e3) & 0xFFFFFFFF
        if number == mav.MAVLINK_MSG_ID_CAMERA_INFORMATION:
            flags = (
                mav.CAMERA_CAP_FLAGS_HAS_TRACKING_POINT
                | mav.CAMERA_CAP_FLAGS_HAS_TRACKING_RECTANGLE
            )
            if self._rtsp_url:
                flags |= mav.CAMERA_CAP_FLAGS_HAS_VIDEO_STREAM
            vendor, name = (list(each.ljust(32, b"\0")) for each in (b"siamcar_ros", _MODEL))
            nan = math.nan
            return mav.MAVLink_camera_information_message(
                now, vendor, name, 0, nan, nan, nan, *self.size, 0, flags, 0, b""
            )
        if number == mav.MAVLINK_MSG_ID_CAMERA_SETTINGS:
            return mav.MAVLink_camera_settings_message(
                now, mav.CAMERA_MODE_VIDEO, math.nan, math.nan
            )
        if number == mav.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION and self._rtsp_url:
            kind, running = mav.VIDEO_STREAM_TYPE_RTSP, mav.VIDEO_STREAM_STATUS_FLAGS_RUNNING
            uri = self._rtsp_url.encode()
            return mav.MAVLink_video_stream_information_message(
                1, 1, kind, running, 0.0, *self.size, 0, 0, 0, _MODEL, uri
            )
        if number == mav.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS:
            return self._tracking_status()
        return None

    def _set_interval(self, number: float, microseconds: float) -> Any:
        if number != mav.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS:
            return mav.MAV_RESULT_UNSUPPORTED
        if microseconds == -1:
            self.interval = 0.0
        elif microseconds == 0:
            self.interval = DEFAULT_INTERVAL
        elif math.isfinite(microseconds) and microseconds > 0:
            self.interval = max(microseconds * 1e-6, SHORTEST_INTERVAL)
        else:
            return mav.MAV_RESULT_DENIED
        self._status_at = self._clock()
        return mav.MAV_RESULT_ACCEPTED

    def _tracking_status(self) -> Any:
        flags = _FLAGS[self._target.state]
        mode, data, box = mav.CAMERA_TRACKING_MODE_NONE, 0, Target().box
        if flags & _ACTIVE:
            mode = mav.CAMERA_TRACKING_MODE_RECTANGLE
            data, box = mav.CAMERA_TRACKING_TARGET_DATA_IN_STATUS, self._target.box
        left, top, right, bottom = box
        x, y, radius = (left + right) / 2, (top + bottom) / 2, (right - left) / 2
        return mav.MAVLink_camera_tracking_image_status_message(
            flags, mode, data, x, y, radius, *box
        )

    def _begin(self, message: Any, work: Callable[[], object]) -> None:
        """Run a command in the worker thread; it is acknowledged when it has finished."""
        if any(_key(old) == _key(message) for old, _ in self._pending):  # the station repeats it
            self._acknowledge(message, mav.MAV_RESULT_IN_PROGRESS)
            return
        if len(self._pending) >= _MOST_PENDING:
            self._acknowledge(message, mav.MAV_RESULT_TEMPORARILY_REJECTED)
            return
        self._pending.append((message, self._worker.submit(work)))

    def _finish(self, message: Any, done: Future[object]) -> None:
        error = done.exception()
        if error is None:
            if message.command == mav.MAV_CMD_CAMERA_STOP_TRACKING:
                self._target = Target()
            self._acknowledge(message, mav.MAV_RESULT_ACCEPTED)
            return
        result = mav.MAV_RESULT_FAILED
        if isinstance(error, TrackerUnavailable):
            result = mav.MAV_RESULT_TEMPORARILY_REJECTED
        elif not isinstance(error, TargetRefused):
            self.dropped["failed"] += 1
        self._acknowledge(message, result)
        self.say(f"tracking: {error}", mav.MAV_SEVERITY_WARNING)

    def _deny(self, message: Any, reason: str) -> None:
        self._acknowledge(message, mav.MAV_RESULT_DENIED)
        self.say(reason, mav.MAV_SEVERITY_WARNING)

    def _acknowledge(self, message: Any, result: int) -> None:
        self._emit(
            mav.MAVLink_command_ack_message(
                message.command,
                result,
                255 if result == mav.MAV_RESULT_IN_PROGRESS else 0,  # progress: unknown
                0,
                message.get_srcSystem(),
                message.get_srcComponent(),
            )
        )


def _inside(*numbers: float) -> bool:
    return all(0.0 <= each <= 1.0 for each in numbers)  # false for NaN


def _key(message: Any) -> tuple[Any, ...]:
    """What identifies a repeated command."""
    numbers = (getattr(message, f"param{index}") for index in range(1, 5))
    return (message.get_srcSystem(), message.get_srcComponent(), message.command, *numbers)
