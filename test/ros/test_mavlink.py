"""The MAVLink camera's protocol: commands, mapping, and what is dropped. No middleware."""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

mavlink_dialect = pytest.importorskip("pymavlink.dialects.v20.common")

from siamcar_ros.ros import mavlink  # noqa: E402
from siamcar_ros.ros.following import TargetRefused, TrackerUnavailable  # noqa: E402
from siamcar_ros.ros.mavlink import Camera, Target  # noqa: E402
from siamcar_ros.tracking import TrackState  # noqa: E402

ardupilot = pytest.importorskip("pymavlink.dialects.v20.ardupilotmega")
mav = mavlink_dialect
STATUS = mav.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS


class Follower:
    """Keeps what it was asked for; fails or waits as told."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def start(self, box: mavlink.Fractions) -> None:
        self._do(box)

    def stop(self) -> None:
        self._do("stop")

    def _do(self, what: Any) -> None:
        assert self.gate.wait(60)
        self.asked.append(what)
        if self.error is not None:
            raise self.error


class Station:
    """A ground station wired to a camera; time stands still until it is moved."""

    def __init__(self, **options: Any) -> None:
        self.follower = Follower()
        self.heard: list[Any] = []
        self.now = 0.0
        self.link = mav.MAVLink(None, srcSystem=255, srcComponent=190)
        self.link.robust_parsing = True
        start, stop = self.follower.start, self.follower.stop
        self.camera = Camera(start, stop, self._hear, clock=lambda: self.now, **options)

    def sign(self, passphrase: bytes) -> None:
        self.link.signing.secret_key = hashlib.sha256(passphrase).digest()
        self.link.signing.sign_outgoing = True
        self.link.signing.timestamp = int((time.time() - 1420070400) * 1e5)

    def _hear(self, data: bytes) -> None:
        self.heard += self.link.parse_buffer(data) or []

    def pack(self, message: Any) -> bytes:
        return bytes(message.pack(self.link))

    def command(self, number: int, *numbers: float, target: tuple[int, int] = (1, 100)) -> None:
        values = [*numbers, *[0.0] * (7 - len(numbers))]
        self.camera.receive(
            self.pack(mav.MAVLink_command_long_message(*target, number, 0, *values))
        )

    def settle(self) -> None:
        """Poll until no command is pending."""
        deadline = time.monotonic() + 60
        while self.camera._pending:
            assert time.monotonic() < deadline
            self.camera.poll()
            time.sleep(0.001)

    def of(self, kind: str) -> list[Any]:
        return [each for each in self.heard if each.get_type() == kind]

    def results(self) -> list[tuple[int, int]]:
        return [(each.command, each.result) for each in self.of("COMMAND_ACK")]

    def texts(self) -> str:
        return "".join(each.text for each in self.of("STATUSTEXT"))


@pytest.fixture
def station() -> Iterator[Station]:
    station = Station()
    yield station
    station.follower.gate.set()
    station.camera.close()


def test_heartbeat_is_that_of_a_camera_once_a_second(station: Station) -> None:
    for station.now in (0.0, 0.5, 1.0, 1.5, 2.0):
        station.camera.poll()
    beats = station.of("HEARTBEAT")
    assert len(beats) == 3
    assert beats[0].type == mav.MAV_TYPE_CAMERA
    assert beats[0].autopilot == mav.MAV_AUTOPILOT_INVALID
    assert (beats[0].get_srcSystem(), beats[0].get_srcComponent()) == (1, 100)
    assert [each.get_seq() for each in beats] == [0, 1, 2]


@pytest.mark.parametrize("command", [512, 521])
def test_information_says_point_and_rectangle(station: Station, command: int) -> None:
    station.camera.size = 640, 480
    station.command(command, mav.MAVLINK_MSG_ID_CAMERA_INFORMATION)
    (about,) = station.of("CAMERA_INFORMATION")
    assert about.flags == (
        mav.CAMERA_CAP_FLAGS_HAS_TRACKING_POINT | mav.CAMERA_CAP_FLAGS_HAS_TRACKING_RECTANGLE
    )
    assert (about.resolution_h, about.resolution_v) == (640, 480)
    assert bytes(about.model_name).rstrip(b"\0") == b"SiamCAR tracker"
    assert station.results() == [(command, mav.MAV_RESULT_ACCEPTED)]


def test_video_stream_only_where_there_is_one(station: Station) -> None:
    asked = (mav.MAV_CMD_REQUEST_MESSAGE, mav.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION)
    station.command(*asked)
    assert station.results() == [(512, mav.MAV_RESULT_UNSUPPORTED)]
    station = Station(rtsp_url="rtsp://10.0.0.2:8554/main")
    station.command(*asked)
    (stream,) = station.of("VIDEO_STREAM_INFORMATION")
    assert stream.uri == "rtsp://10.0.0.2:8554/main"
    assert stream.type == mav.VIDEO_STREAM_TYPE_RTSP
    station.command(512, mav.MAVLINK_MSG_ID_CAMERA_INFORMATION)
    (about,) = station.of("CAMERA_INFORMATION")
    assert about.flags & mav.CAMERA_CAP_FLAGS_HAS_VIDEO_STREAM


def test_settings_and_unknown_requests(station: Station) -> None:
    station.command(512, mav.MAVLINK_MSG_ID_CAMERA_SETTINGS)
    assert station.of("CAMERA_SETTINGS")[0].mode_id == mav.CAMERA_MODE_VIDEO
    for number in (mav.MAVLINK_MSG_ID_ATTITUDE, math.nan, -1.0, 1e30):
        station.command(512, number)
        assert station.results()[-1] == (512, mav.MAV_RESULT_UNSUPPORTED)
    station.command(mav.MAV_CMD_NAV_TAKEOFF)
    assert station.results()[-1] == (mav.MAV_CMD_NAV_TAKEOFF, mav.MAV_RESULT_UNSUPPORTED)


def test_track_and_stop_are_acknowledged_when_done(station: Station) -> None:
    station.follower.gate.clear()
    rectangle = (0.25, 0.5, 0.375, 0.75)
    station.command(mav.MAV_CMD_CAMERA_TRACK_RECTANGLE, *rectangle)
    station.camera.poll()
    assert station.results() == []
    station.command(mav.MAV_CMD_CAMERA_TRACK_RECTANGLE, *rectangle)  # sent again, in impatience
    assert station.results() == [(2005, mav.MAV_RESULT_IN_PROGRESS)]
    station.follower.gate.set()
    station.settle()
    station.command(mav.MAV_CMD_CAMERA_TRACK_POINT, 0.5, 0.25, 0.1)
    station.settle()
    station.command(mav.MAV_CMD_CAMERA_STOP_TRACKING)
    station.settle()
    assert station.follower.asked == [rectangle, (0.5, 0.25, 0.5, 0.25), "stop"]
    assert station.results()[1:] == [(2005, 0), (2004, 0), (2010, 0)]
    assert station.of("COMMAND_ACK")[-1].target_system == 255


def test_few_commands_wait_for_the_tracker(station: Station) -> None:
    station.follower.gate.clear()
    for index in range(6):
        station.command(mav.MAV_CMD_CAMERA_TRACK_POINT, 0.5, index / 8)
    assert station.results() == [(2004, mav.MAV_RESULT_TEMPORARILY_REJECTED)] * 2
    station.follower.gate.set()
    station.settle()
    assert [each[1] for each in station.follower.asked] == [0, 1 / 8, 2 / 8, 3 / 8]
    assert station.results()[2:] == [(2004, 0)] * 4


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (TargetRefused("the box lies outside the image"), mav.MAV_RESULT_FAILED),
        (TrackerUnavailable("no image on /image"), mav.MAV_RESULT_TEMPORARILY_REJECTED),
        (ZeroDivisionError("division by zero"), mav.MAV_RESULT_FAILED),
    ],
)
def test_a_refusal_reaches_the_operator(station: Station, error: Exception, result: int) -> None:
    station.follower.error = error
    station.command(mav.MAV_CMD_CAMERA_TRACK_POINT, 0.5, 0.5)
    station.settle()
    assert station.results() == [(2004, result)]
    assert station.texts() == f"tracking: {error}"


@pytest.mark.parametrize(
    ("command", "numbers"),
    [
        (2004, (1.5, 0.5)),
        (2004, (math.nan, 0.5)),
        (2004, (0.5, math.inf)),
        (2005, (0.5, 0.5, 0.4, 0.6)),
        (2005, (0.5, 0.5, 0.5, 0.6)),
        (2005, (-0.1, 0.5, 0.5, 0.6)),
        (2005, (0.1, 0.5, 0.5, math.nan)),
    ],
)
def test_wrong_numbers_are_denied(
    station: Station, command: int, numbers: tuple[float, ...]
) -> None:
    station.command(command, *numbers)
    station.settle()
    assert station.results() == [(command, mav.MAV_RESULT_DENIED)]
    assert "fractions of the image" in station.texts()
    assert station.follower.asked == []


@pytest.mark.parametrize(
    ("state", "flag", "mode"),
    [
        (None, 0, 0),
        (TrackState.TRACKING, 1, 2),
        (TrackState.UNCERTAIN, 1 | 8, 2),
        (TrackState.LOST, 2, 0),
    ],
)
def test_states_become_mavlink_flags(
    station: Station, state: TrackState | None, flag: int, mode: int
) -> None:
    station.camera.show(Target(state, (0.25, 0.5, 0.5, 0.75)))
    station.command(512, STATUS)
    (status,) = station.of("CAMERA_TRACKING_IMAGE_STATUS")
    assert (status.tracking_status, status.tracking_mode) == (flag, mode)
    seen = (status.rec_top_x, status.rec_top_y, status.rec_bottom_x, status.rec_bottom_y)
    if mode:
        assert seen == (0.25, 0.5, 0.5, 0.75)
        assert (status.point_x, status.point_y, status.radius) == (0.375, 0.625, 0.125)
        assert status.target_data == mav.CAMERA_TRACKING_TARGET_DATA_IN_STATUS
    else:
        assert all(map(math.isnan, seen))
        assert status.target_data == 0


def test_the_operator_is_told_when_the_target_is_uncertain_lost_or_found(station: Station) -> None:
    for state in (
        TrackState.TRACKING,
        TrackState.UNCERTAIN,
        TrackState.UNCERTAIN,
        TrackState.LOST,
        TrackState.TRACKING,
    ):
        station.camera.show(Target(state, (0.0, 0.0, 1.0, 1.0)))
    assert [each.text for each in station.of("STATUSTEXT")] == [
        "tracking: uncertain of the target",
        "tracking: target lost, searching",
        "tracking: target found",
    ]


@pytest.mark.parametrize("state", [None, TrackState.TRACKING])
def test_a_silent_tracker_is_not_called_a_lost_target(
    station: Station, state: TrackState | None
) -> None:
    station.camera.show(Target(state, (0.25, 0.5, 0.5, 0.75)))
    station.camera.miss_tracker()
    assert station.texts() == "tracking: the tracker does not answer"
    station.command(512, STATUS)
    (status,) = station.of("CAMERA_TRACKING_IMAGE_STATUS")
    lost = mav.CAMERA_TRACKING_STATUS_FLAGS_ERROR
    assert status.tracking_status == (mav.CAMERA_TRACKING_STATUS_FLAGS_IDLE if not state else lost)


def test_traffic_that_a_router_passes_on_is_no_fault(station: Station) -> None:
    link = ardupilot.MAVLink(None, srcSystem=1, srcComponent=1)
    for message in (
        ardupilot.MAVLink_ahrs_message(0, 0, 0, 0, 0, 0, 0),  # not in the common dialect
        mav.MAVLink_command_ack_message(400, 0, 0, 0, 255, 190),
    ):
        station.camera.receive(bytes(message.pack(link)))
    assert not station.camera.dropped


def test_statuses_are_sent_at_the_requested_interval(station: Station) -> None:
    def count(seconds: float) -> int:
        before, end = len(station.of("CAMERA_TRACKING_IMAGE_STATUS")), station.now + seconds
        while station.now < end:
            station.now += 1 / 128
            station.camera.poll()
        return len(station.of("CAMERA_TRACKING_IMAGE_STATUS")) - before

    assert count(2) == 0
    station.command(mav.MAV_CMD_SET_MESSAGE_INTERVAL, STATUS, 500_000)
    assert count(4) == pytest.approx(8, abs=1)
    station.command(mav.MAV_CMD_SET_MESSAGE_INTERVAL, STATUS, 0)
    assert count(4) == pytest.approx(20, abs=2)
    station.command(mav.MAV_CMD_SET_MESSAGE_INTERVAL, STATUS, -1)
    assert count(2) == 0
    assert station.results() == [(511, 0)] * 3
    for wrong in (-5.0, math.nan, math.inf):
        station.command(mav.MAV_CMD_SET_MESSAGE_INTERVAL, STATUS, wrong)
        assert station.results()[-1] == (511, mav.MAV_RESULT_DENIED)
    station.command(mav.MAV_CMD_SET_MESSAGE_INTERVAL, mav.MAVLINK_MSG_ID_ATTITUDE, 1e6)
    assert station.results()[-1] == (511, mav.MAV_RESULT_UNSUPPORTED)
    assert count(2) == 0


@pytest.mark.parametrize("target", [(2, 100), (1, 1), (1, 101), (7, 7)])
def test_foreign_commands_are_ignored(station: Station, target: tuple[int, int]) -> None:
    station.command(mav.MAV_CMD_CAMERA_TRACK_POINT, 0.5, 0.5, target=target)
    station.settle()
    assert (station.heard, station.follower.asked) == ([], [])
    assert not station.camera.dropped


@pytest.mark.parametrize("target", [(0, 0), (1, 0), (0, 100)])
def test_broadcast_commands_are_ours(station: Station, target: tuple[int, int]) -> None:
    station.command(512, mav.MAVLINK_MSG_ID_CAMERA_SETTINGS, target=target)
    assert station.results() == [(512, 0)]


def test_a_command_of_integers_is_told_to_come_as_one_of_floats(station: Station) -> None:
    message = mav.MAVLink_command_int_message(1, 100, 0, 2004, 0, 0, 0.5, 0.5, 0, 0, 0, 0, 0.0)
    station.camera.receive(station.pack(message))
    assert station.results() == [(2004, mav.MAV_RESULT_COMMAND_LONG_ONLY)]


def _damaged(data: bytes) -> Iterator[bytes]:
    yield b""
    yield b"\xfd"
    yield b"GET / HTTP/1.1\r\n\r\n"
    yield data[:-1]
    yield data[:5]
    yield data[:-1] + bytes([data[-1] ^ 1])
    yield b"\xfd\xff" + data[2:]
    generator = random.Random(0)
    for _ in range(500):
        yield generator.randbytes(generator.randrange(1, 300))
        changed = bytearray(data)
        changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        yield bytes(changed)


def test_damaged_datagrams_are_dropped_and_the_next_message_is_heard(station: Station) -> None:
    good = station.pack(mav.MAVLink_command_long_message(1, 100, 2004, 0, 0.5, 0.5, 0, 0, 0, 0, 0))
    for data in _damaged(good):
        station.camera.receive(data)
    assert station.follower.asked == []
    assert station.camera.dropped["malformed"] > 500
    assert station.camera.dropped["failed"] == 0
    station.camera.receive(good)
    station.settle()
    assert station.follower.asked == [(0.5, 0.5, 0.5, 0.5)]


def test_a_stream_may_be_cut_anywhere() -> None:
    station = Station(datagrams=False)
    request = mav.MAVLink_command_long_message(1, 100, 512, 0, 260.0, 0, 0, 0, 0, 0, 0)
    data = b"noise" + station.pack(request) * 3
    for start in range(0, len(data), 7):
        station.camera.receive(data[start : start + 7])
    assert station.results() == [(512, 0)] * 3
    station.camera.close()


def test_with_a_passphrase_unsigned_messages_are_dropped() -> None:
    station = Station(passphrase="correct horse")
    request = (512, mav.MAVLINK_MSG_ID_CAMERA_SETTINGS)
    station.command(*request)
    assert (station.heard, station.camera.dropped["malformed"]) == ([], 1)
    station.sign(b"wrong horse")
    station.command(*request)
    assert station.results() == []
    assert station.camera.dropped["malformed"] == 2
    station.sign(b"correct horse")
    station.command(*request)
    assert station.results() == [(512, 0)]
    assert all(each.get_signed() for each in station.heard)
    station.camera.close()


def test_gimbal_rates(station: Station) -> None:
    station.now = 10.0
    station.camera.turn_gimbal(0.25, -0.5)
    (turn,) = station.of("GIMBAL_MANAGER_SET_ATTITUDE")
    rates = turn.angular_velocity_x, turn.angular_velocity_y, turn.angular_velocity_z
    assert (*rates, turn.target_system) == (0, 0.25, -0.5, 1)
    assert all(map(math.isnan, turn.q))


def test_control_of_the_gimbal_is_claimed_whenever_it_begins_to_turn(station: Station) -> None:
    station.camera.turn_gimbal(0.0, -0.0)  # nothing to stop, nothing to claim
    assert not station.heard
    for station.now, rate in ((10.0, -0.5), (10.25, 0.25), (10.5, 0.0), (10.75, 0.5), (20.0, -0.5)):
        station.camera.turn_gimbal(0.0, rate)
    turn, claim = "GIMBAL_MANAGER_SET_ATTITUDE", "COMMAND_LONG"
    kinds = [each.get_type() for each in station.heard if each.get_type() in (turn, claim)]
    assert kinds == [claim, turn, turn, turn, claim, turn, turn]
    asked = station.of(claim)[0]
    assert (asked.command, asked.target_system) == (mav.MAV_CMD_DO_GIMBAL_MANAGER_CONFIGURE, 1)
    assert (asked.param1, asked.param2, asked.param3, asked.param4) == (1, 100, -1, -1)


def test_the_gimbal_is_stopped_if_rates_fall_silent_or_the_node_ends(station: Station) -> None:
    def rates() -> list[float]:
        return [each.angular_velocity_z for each in station.of("GIMBAL_MANAGER_SET_ATTITUDE")]

    for station.now in (10.0, 10.25, 10.5):
        station.camera.turn_gimbal(0.0, -0.5)
        station.camera.poll()
    assert rates() == [-0.5] * 3
    for station.now in (10.75, 11.25, 11.5, 11.75, 20.0):
        station.camera.poll()
    assert rates() == [-0.5] * 3 + [0.0] * 3
    station.camera.turn_gimbal(0.0, 0.25)
    for _ in range(5):
        station.camera.turn_gimbal(0.0, 0.0)
    assert rates()[6:] == [0.25] + [0.0] * 3
    station.camera.turn_gimbal(0.0, 0.25)
    station.camera.close()
    assert rates()[10:] == [0.25] + [0.0] * 3


@pytest.mark.parametrize("length", [10, 49, 50, 51, 100, 190])
def test_long_texts_arrive_complete(station: Station, length: int) -> None:
    text = ("0123456789" * 20)[:length]
    station.camera.say(text, mav.MAV_SEVERITY_INFO)
    assert station.texts() == text
    pieces = station.of("STATUSTEXT")
    assert [each.chunk_seq for each in pieces] == list(range(len(pieces)))


def test_fractions_and_pixels() -> None:
    fractions = (0.25, 0.5, 0.5, 0.75)
    assert mavlink.box_in_pixels(fractions, 640, 480) == (160, 240, 160, 120)
    assert mavlink.box_in_fractions((160, 240, 160, 120), 640, 480) == fractions
    assert mavlink.box_in_fractions((-10, -10, 20, 500), 100, 100) == (0, 0, 0.1, 1)
    assert mavlink.box_in_pixels((0.25, 0.5, 0.25, 0.5), 640, 480) == (160, 240, 0, 0)  # a point
