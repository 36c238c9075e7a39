r"""The executable `pan_tilt_controller`: turns a pan-tilt mount so that the target stays in view.

    ros2 run siamcar_ros pan_tilt_controller --ros-args -p tracker:=/tracker \
        -r '~/joint_velocities:=/pan_tilt_velocity_controller/commands'

Needs the bearing in the tracker's `tracks`, and so the camera's `camera_info`. Publishes the same
rates as `~/rates` (TwistStamped: angular.y turns down, angular.z to the left, as in REP 103) and as
`~/joint_velocities` (pan, tilt) for ros2_control's velocity controllers. They become 0 when the
node ends. See docs/pan_tilt.md.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from siamcar_ros.data.detections import stamp_of
from siamcar_ros.msg import TrackArray, TrackStatus
from siamcar_ros.ros.command_line import (
    declare_read_only,
    parameter_descriptor,
    run_node,
    spin_until_interrupted,
)
from siamcar_ros.ros.messages import STATES
from siamcar_ros.ros.pan_tilt import Pair, PanTiltLaw, PanTiltSettings

_LOG_PERIOD = 5.0
# Seconds without joint angles after which the mount is stopped.
_FRESH = 0.5
# The longest wait for the last rates to arrive.
_ARRIVED = Duration(seconds=1)
# Seconds; an older stamp is assumed to be of another clock.
_OLDEST = 1.0


class PanTiltController(Node):
    """Publishes the rates of `PanTiltLaw` at the parameter `rate`."""

    def __init__(self) -> None:
        super().__init__("pan_tilt_controller")
        parameter = partial(declare_read_only, self)
        tracker = parameter("tracker", "tracker", "Name of the tracker node.")
        self._target = parameter("target", "", "Id of the target; empty: the oldest.")
        rate = parameter("rate", 50.0, "Rate of the commands in Hz.", range=(0.1, 1000.0))
        self._frame_id = parameter("frame_id", "", "frame_id of ~/rates.")
        self._joints = (
            parameter("pan_joint", "", "Name of the pan joint in joint_states; empty: unknown."),
            parameter("tilt_joint", "", "Name of the tilt joint in joint_states; empty: unknown."),
        )
        reversed_joints = (
            parameter(
                "pan_reversed",
                False,
                "The pan joint turns to the right at positive rates, not to the left.",
            ),
            parameter(
                "tilt_reversed", False, "The tilt joint turns up at positive rates, not down."
            ),
        )
        self._signs = np.where(reversed_joints, 1.0, -1.0)
        settings = {}
        for each in fields(PanTiltSettings):
            described = parameter_descriptor(each.metadata["description"], each.metadata["range"])
            settings[each.name] = self.declare_parameter(each.name, each.default, described).value
        self._law = PanTiltLaw(PanTiltSettings(**settings))
        self.add_on_set_parameters_callback(self._change_settings)
        self._joints_at = -math.inf  # when joint_states arrived, in seconds
        self._rates = self.create_publisher(TwistStamped, "~/rates", 10)
        self._velocities = self.create_publisher(Float64MultiArray, "~/joint_velocities", 10)
        name = self.resolve_topic_name(tracker)
        self.create_subscription(TrackArray, f"{name}/tracks", self._on_tracks, 1)
        if all(self._joints):
            newest = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
            self.create_subscription(JointState, "joint_states", self._on_joints, newest)
        else:
            self.get_logger().info(
                "pan_joint and tilt_joint are not set: the limits of pan and tilt are not respected"
            )
        self.create_timer(1 / rate, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def stop(self) -> None:
        """Publish rates of 0, and wait until they have arrived: the node may end right after."""
        self._publish(np.zeros(2))
        for publisher in (self._rates, self._velocities):
            publisher.wait_for_all_acked(_ARRIVED)

    def _change_settings(self, parameters: list[Parameter]) -> SetParametersResult:
        values = {each.name: each.value for each in parameters}
        known = {name: value for name, value in values.items() if hasattr(PanTiltSettings, name)}
        try:
            self._law.settings = replace(self._law.settings, **known)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _age(self, message: Any) -> float:
        """Seconds since a message's stamp; 0 if the stamp is of another clock."""
        age = (self.get_clock().now().nanoseconds - stamp_of(message)) / 1e9
        return age if 0 < age < _OLDEST else 0.0

    def _on_tracks(self, message: TrackArray) -> None:
        tracks = [each for each in message.tracks if self._target in ("", each.id)]
        if not tracks:
            self._law.see(time.monotonic(), None)
            return
        track, bearing = tracks[0], None
        if track.bearing:
            angles = track.bearing[0].azimuth, track.bearing[0].elevation
            bearing = np.array(angles) if all(map(math.isfinite, angles)) else None
        elif track.state == TrackStatus.TRACKING:
            self.get_logger().warning(
                "the track has no bearing: the tracker needs the camera's camera_info",
                throttle_duration_sec=_LOG_PERIOD,
            )
        self._law.see(time.monotonic(), STATES.get(track.state), bearing, self._age(message))

    def _on_joints(self, message: JointState) -> None:
        positions = dict(zip(message.name, message.position, strict=False))
        if all(math.isfinite(positions.get(name, math.nan)) for name in self._joints):
            angles = np.array([positions[name] for name in self._joints])
            self._joints_at = time.monotonic()
            self._law.moved(self._joints_at - self._age(message), angles * self._signs)

    def _tick(self) -> None:
        now = time.monotonic()
        if all(self._joints) and now - self._joints_at > _FRESH:
            self.get_logger().warning(
                f"no {' and '.join(self._joints)} in joint_states for {_FRESH:g} s: the mount is "
                "stopped",
                throttle_duration_sec=_LOG_PERIOD,
            )
            self._law.see(now, None)
        self._publish(self._law.rates(now))

    def _publish(self, rates: Pair) -> None:
        right, up = rates.tolist()
        message = TwistStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = self._frame_id
        message.twist.angular.y, message.twist.angular.z = -up, -right
        self._rates.publish(message)
        self._velocities.publish(Float64MultiArray(data=(rates * self._signs).tolist()))


def _run() -> None:
    node = PanTiltController()
    try:
        spin_until_interrupted(node)
    finally:
        node.stop()
        node.destroy_node()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the process's exit status."""
    return run_node("pan_tilt_controller", __doc__ or "", _run, args, own_signals=True)


if __name__ == "__main__":
    sys.exit(main())
