r"""The executable `mavlink_camera`: makes a tracker node a MAVLink camera with tracking.

    ros2 run siamcar_ros mavlink_camera --ros-args -p url:=udpout:127.0.0.1:14550 \
        -p tracker:=/tracker

A ground station (QGroundControl, Mission Planner) then selects the target in its video, sees the
tracked box and stops tracking. See docs/mavlink.md. Requires pymavlink (the extra `mavlink`).
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from geometry_msgs.msg import TwistStamped
from rclpy.node import Node

from siamcar_ros.msg import TrackArray, TrackStatus

try:
    from siamcar_ros.ros import mavlink
except ModuleNotFoundError as missing:
    if missing.name != "pymavlink":
        raise
    sys.exit("error: mavlink_camera needs pymavlink: pip install pymavlink")
from siamcar_ros.ros.client import TrackerClient, TrackerUnavailable
from siamcar_ros.ros.command_line import declare_read_only, run_node
from siamcar_ros.ros.messages import STATES, bbox_to_box

# Seconds without a message from the tracker after which it counts as inactive.
_SILENCE = 3.0
# Seconds for which a command waits for the tracker's first image.
_IMAGE_PATIENCE = 2.0


class MavlinkCamera(Node):
    """Passes a ground station's commands to a tracker, and the tracker's results back."""

    def __init__(self) -> None:
        super().__init__("mavlink_camera")
        parameter = partial(declare_read_only, self)
        tracker = parameter("tracker", "tracker", "Name of the tracker node.")
        url = parameter(
            "url",
            "udpout:127.0.0.1:14550",
            "MAVLink connection: udpout:HOST:PORT sends to a ground station or router, "
            "udpin:HOST:PORT waits for one, DEVICE or DEVICE,BAUD is a serial port.",
        )
        system = parameter(
            "system_id", 1, "MAVLink system id: that of the vehicle.", range=(1, 255)
        )
        component = parameter(
            "component_id", 100, "MAVLink component id: that of a camera.", range=(100, 105)
        )
        rtsp = parameter("rtsp_url", "", "Address of the video, announced to the ground station.")
        secret_file = parameter(
            "signing_passphrase_file",
            "",
            "File with the passphrase of MAVLink signing; empty: messages are not signed.",
        )
        gimbal = parameter(
            "gimbal_rates",
            "",
            "Topic (geometry_msgs/TwistStamped) whose angular.y (down) and angular.z (left), in "
            "rad/s, are passed to the vehicle's gimbal manager; after 0.5 s without any it is told "
            "to stop. Empty: none.",
        )
        if len(rtsp.encode()) > 159:
            raise ValueError("rtsp_url has more than 159 bytes, the most that MAVLink can carry")
        passphrase = Path(secret_file).expanduser().read_text().strip() if secret_file else ""
        if secret_file and not passphrase:
            raise ValueError(f"signing_passphrase_file {secret_file} is empty")
        self.tracker = self.resolve_topic_name(tracker)
        self._url = url
        self._connection = _open(url)
        self._camera = mavlink.Camera(
            self._start,
            lambda: self._client.stop_tracking(),
            self._write,
            system=system,
            component=component,
            passphrase=passphrase,
            rtsp_url=rtsp,
            datagrams=url.startswith("udp"),
        )
        # The camera has been told the size of the images, and the tracker is not silent.
        self._sized = threading.Event()
        self._heard_at = time.monotonic()
        # The newest, from the client's thread for the one that serves the link.
        self._targets: deque[mavlink.Target] = deque(maxlen=1)
        self._rates: deque[tuple[float, float]] = deque(maxlen=1)
        self.create_subscription(TrackArray, f"{self.tracker}/tracks", self._on_tracks, 10)
        if gimbal:
            self.create_subscription(TwistStamped, gimbal, self._on_rates, 1)
        self._client = TrackerClient(self.tracker, on_status=self._on_status, node=self)

    def run(self) -> None:
        """Serve the link until the context ends."""
        logger, dropped, logged = self.get_logger(), self._camera.dropped, 0
        with self._client:
            logger.info(f"MAVLink camera of {self.tracker} on {self._url}")
            try:
                while self.context.ok():
                    self._camera.receive(self._read())
                    self._pass_on()
                    self._camera.poll()
                    if dropped.total() > logged:
                        logged = dropped.total()
                        counts = ", ".join(f"{n} {why}" for why, n in sorted(dropped.items()))
                        logger.warning(
                            f"messages dropped so far: {counts}", throttle_duration_sec=5.0
                        )
            finally:
                self._camera.close()
                self._connection.close()

    def _start(self, box: mavlink.Fractions) -> None:
        """Start the tracker on a box or a point in fractions of the newest image."""
        if not self._sized.wait(_IMAGE_PATIENCE):
            raise TrackerUnavailable(f"{self.tracker} has no image, or is not active")
        self._client.init_target(mavlink.box_in_pixels(box, *self._camera.size))

    def _on_tracks(self, message: TrackArray) -> None:
        self._heard_at = time.monotonic()
        if message.image_width and message.image_height:
            self._camera.size = message.image_width, message.image_height
            self._sized.set()
        target = mavlink.Target()
        if message.tracks and self._sized.is_set():
            oldest = message.tracks[0]
            box = mavlink.box_in_fractions(bbox_to_box(oldest.bbox), *self._camera.size)
            target = mavlink.Target(STATES.get(oldest.state), box)
        self._targets.append(target)

    def _on_status(self, status: TrackStatus) -> None:
        self._heard_at = time.monotonic()
        if status.state == TrackStatus.IDLE:
            self._targets.append(mavlink.Target())

    def _pass_on(self) -> None:
        """Pass what the tracker and the gimbal's controller have sent to the camera."""
        if self._targets:
            self._camera.show(self._targets.popleft())
        elif time.monotonic() - self._heard_at > _SILENCE:
            self._heard_at = math.inf  # reported once
            self._sized.clear()
            self._camera.miss_tracker()
        if self._rates:
            self._camera.turn_gimbal(*self._rates.popleft())

    def _on_rates(self, message: TwistStamped) -> None:
        turn = message.twist.angular
        if math.isfinite(turn.y) and math.isfinite(turn.z):
            self._rates.append((-turn.y, -turn.z))  # ROS: down and left; MAVLink: up and right

    def _read(self) -> bytes:
        try:
            self._connection.select(0.01)
            return bytes(self._connection.recv() or b"")
        except Exception as error:
            self.get_logger().warning(f"{self._url}: {error}", throttle_duration_sec=5.0)
            time.sleep(0.1)
            return b""

    def _write(self, data: bytes) -> None:
        try:
            self._connection.write(data)
        except Exception as error:
            self.get_logger().warning(f"{self._url}: {error}", throttle_duration_sec=5.0)


def _open(url: str) -> Any:
    from pymavlink import mavutil

    if re.fullmatch(r"udp(in|out):[^:]*:\d+", url):
        return mavutil.mavlink_connection(url)
    serial = re.fullmatch(r"(/[^,]+)(?:,(\d+))?", url)
    if serial is None:
        raise ValueError(
            f"url is udpout:HOST:PORT, udpin:HOST:PORT or /dev/DEVICE,BAUD, not {url!r}"
        )
    try:
        baud = int(serial[2] or "57600")
        return mavutil.mavlink_connection(serial[1], baud=baud, autoreconnect=True)
    except ModuleNotFoundError as missing:
        if missing.name != "serial":
            raise
        raise OSError("a serial port needs pyserial: pip install pyserial") from missing


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the process's exit status."""
    return run_node("mavlink_camera", __doc__ or "", lambda: MavlinkCamera().run(), args)


if __name__ == "__main__":
    sys.exit(main())
