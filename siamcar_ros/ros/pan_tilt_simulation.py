"""The executable `pan_tilt_simulation`: a camera on a simulated mount, and a car to follow.

    ros2 launch siamcar_ros follow.launch.py

Publishes `image`, `camera_info`, `ground_truth` and `joint_states` (pan, tilt). Starts the tracker
on the car, plays the scene, and turns the camera at the received `rates`
(geometry_msgs/TwistStamped). After `duration` it logs how well the car was kept in the middle,
writes a report to the folder `report`, and ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D

from siamcar_ros.data.detections import stamp_of
from siamcar_ros.data.video import VideoWriter
from siamcar_ros.files import reason, replacing
from siamcar_ros.geometry import box_center
from siamcar_ros.msg import TrackArray
from siamcar_ros.ros.client import TargetRefused, TrackerClient, TrackerUnavailable
from siamcar_ros.ros.command_line import declare_read_only, run_node
from siamcar_ros.ros.messages import (
    STATES,
    bbox_to_box,
    box_to_bbox,
    image_message,
    pinhole_info,
)
from siamcar_ros.ros.pan_tilt_scene import FOCAL, SIZE, Scene, View
from siamcar_ros.tracking import TrackResult, TrackState
from siamcar_ros.tracking.overlay import draw_overlay

NEAR = 0.05
"""Share of the image's width and height within which the car counts as in the middle."""

SETTLING = 1.0
"""Seconds at the start that are left out of the summary."""

# Pan and tilt in radians by which the camera points past the car at the start.
_FIRST_OFFSET = np.array((0.07, 0.03))
_PATIENCE = 180.0  # seconds for the tracker to load its network, and to start
_HIDDEN = 0.5  # visible share below which the car counts as hidden


class Moment(NamedTuple):
    """One frame of the run."""

    seconds: float  # since the start
    pan: float  # of the camera, to the right, in radians
    tilt: float  # upward
    across: float  # distance of the car's center from the image's, as a share of the width
    down: float  # as a share of the height
    visible: float  # share of the car that is seen
    stamp: int  # of the image, in nanoseconds

    @property
    def error(self) -> float:
        """The larger of the two distances."""
        return max(abs(self.across), abs(self.down))


class PanTiltSimulation(Node):
    """The camera, its mount and the scene."""

    def __init__(self) -> None:
        super().__init__("pan_tilt_simulation")
        parameter = partial(declare_read_only, self)
        tracker = parameter("tracker", "tracker", "Name of the tracker node.")
        self._rate = parameter("rate", 30.0, "Frames per second.", range=(0.0, 1000.0))
        self._duration = parameter(
            "duration", 26.0, "Seconds; the car is hidden once in 26.", range=(0.0, 3600.0)
        )
        self._lag = parameter(
            "lag", 0.05, "Time constant in s with which the mount reacts.", range=(0.0, 10.0)
        )
        report = parameter("report", "", "Folder for follow.png, .mp4 and .json; empty: none.")
        if not (self._duration - SETTLING) * self._rate >= 1:
            raise ValueError(f"duration must be longer than {SETTLING:g} s by a frame or more")
        self._folder = Path(report).expanduser() if report else None
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        self.tracker = self.resolve_topic_name(tracker)
        self._scene = Scene()
        self._rates, self._wanted = np.zeros(2), np.zeros(2)  # to the right and upward
        self._angles = np.array(self._scene.view(0.0, 0.0, 0.0).target) - _FIRST_OFFSET
        self._tracks: dict[int, TrackResult] = {}  # by stamp in nanoseconds
        self._image = self.create_publisher(Image, "image", 5)
        self._info = self.create_publisher(CameraInfo, "camera_info", QoSProfile(depth=5))
        self._truth = self.create_publisher(Detection2D, "ground_truth", 10)
        self._joints = self.create_publisher(JointState, "joint_states", 10)
        self.create_subscription(TwistStamped, "rates", self._on_rates, 1)
        self.create_subscription(TrackArray, f"{self.tracker}/tracks", self._on_tracks, 200)

    def run(self) -> None:
        """Play the scene once and write the report; end the process if that fails."""
        with TrackerClient(self.tracker, node=self) as client:
            try:
                client.wait_until_active(_PATIENCE, check=self._check)
                self._begin(client)
                moments = self._play()
                time.sleep(0.5)  # for the last results
                self._report(moments)
            except (TrackerUnavailable, TargetRefused, OSError) as error:
                if self.context.ok():
                    self.get_logger().fatal(reason(error))
                    sys.exit(1)

    def _check(self) -> None:
        if not self.context.ok():
            raise TrackerUnavailable("interrupted")

    def _begin(self, client: TrackerClient) -> None:
        """Show the first view until the tracker has started on the car."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            self._check()
            view, _ = self._show(0.0)
            time.sleep(0.1)
            try:
                client.init_target(view.box)
                return
            except TargetRefused:
                if time.monotonic() > deadline:
                    raise

    def _play(self) -> list[Moment]:
        moments: list[Moment] = []
        begin, step = time.monotonic(), 1 / self._rate
        share = 1 - np.exp(-step / self._lag) if self._lag else 1.0
        for index in range(int(self._duration * self._rate)):
            self._check()
            behind = time.monotonic() - begin - index * step
            if behind < 0:
                time.sleep(-behind)
            elif behind > step:
                begin += behind  # too slow: play slower, so that no frame is left out
            # The mount's rates follow the commands with a first-order lag.
            before = self._rates
            self._rates = before + share * (self._wanted - before)
            self._angles = self._angles + step * (before + self._rates) / 2
            view, stamp = self._show(index * step)
            across, down = np.array(box_center(view.box)) / SIZE - 0.5
            pan, tilt = self._angles.tolist()
            moment = (index * step, pan, tilt, float(across), float(down), view.visible, stamp)
            moments.append(Moment(*moment))
        return moments

    def _show(self, seconds: float) -> tuple[View, int]:
        """Render and publish one moment; return the view and its stamp in nanoseconds."""
        view = self._scene.view(seconds, *self._angles.tolist())
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id="camera")
        image = image_message(header, view.image)
        joints = JointState(header=header, name=["pan", "tilt"])
        joints.position, joints.velocity = (-self._angles).tolist(), (-self._rates).tolist()
        truth = Detection2D(header=header, bbox=box_to_bbox(view.box), id="ground_truth")
        for publisher, message in (
            (self._info, pinhole_info(header, SIZE, FOCAL)),
            (self._joints, joints),
            (self._image, image),
            (self._truth, truth),
        ):
            publisher.publish(message)
        return view, stamp_of(image)

    def _on_rates(self, message: TwistStamped) -> None:
        wanted = -np.array((message.twist.angular.z, message.twist.angular.y))
        if np.isfinite(wanted).all():
            self._wanted = wanted

    def _on_tracks(self, message: TrackArray) -> None:
        if message.tracks:
            track = message.tracks[0]
            found = TrackResult(bbox_to_box(track.bbox), track.score, STATES[track.state])
            self._tracks[stamp_of(message)] = found

    def _report(self, moments: list[Moment]) -> None:
        told = summary(moments)
        tracks = [self._tracks.get(each.stamp) for each in moments]
        states = [each.state for each in tracks if each is not None]
        told["states"] = {each.name: states.count(each) for each in TrackState}
        self.get_logger().info(
            f"within {100 * NEAR:g} % of the image's middle on {100 * told['near']:.1f} % of "
            f"{told['frames']} frames; median {100 * told['median_error']:.1f} %, largest "
            f"{100 * told['largest_error']:.1f} %"
        )
        counts = ", ".join(f"{name} {count}" for name, count in told["states"].items())
        self.get_logger().info(f"{counts}; the car was hidden on {told['hidden_frames']} frames")
        if self._folder is None:
            return
        document = {"summary": told, "frames": [each._asdict() for each in moments]}
        with replacing(self._folder / "follow.json") as file:
            file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        self._write_film(moments, tracks, self._folder / "follow.mp4")
        draw(moments, tracks, self._folder / "follow.png")
        self.get_logger().info(f"wrote {self._folder}/follow.png, .mp4 and .json")

    def _write_film(
        self, moments: list[Moment], tracks: list[TrackResult | None], file: Path
    ) -> None:
        """Render the run again, with the tracker's boxes."""
        with VideoWriter(file, self._rate) as writer:
            for each, found in zip(moments, tracks, strict=True):
                view = self._scene.view(each.seconds, each.pan, each.tilt)
                shown = {} if found is None else {"": found}
                caption = f"{100 * each.error:.1f} % off"
                writer.write(draw_overlay(view.image, shown, caption=caption, truth=view.box))


def summary(moments: Sequence[Moment]) -> dict[str, Any]:
    """Return the figures of a run, the first second left out."""
    counted = [each for each in moments if each.seconds >= SETTLING]
    errors = np.array([each.error for each in counted])
    return {
        "frames": len(counted),
        "near": float((errors <= NEAR).mean()),
        "median_error": float(np.median(errors)),
        "largest_error": float(errors.max()),
        "hidden_frames": sum(each.visible < _HIDDEN for each in counted),
    }


def draw(moments: Sequence[Moment], tracks: Sequence[TrackResult | None], picture: Path) -> None:
    """Draw error, states and the mount's angles over time."""
    from matplotlib.figure import Figure

    seconds, pan, tilt, across, down, visible, _ = np.array(moments).T
    figure = Figure(figsize=(10, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.axhspan(-100 * NEAR, 100 * NEAR, color="tab:green", alpha=0.12, label="within 5 %")
    above.plot(seconds, 100 * across, label="across, % of width")
    above.plot(seconds, 100 * down, label="down, % of height")
    for state, color in ((TrackState.UNCERTAIN, "tab:orange"), (TrackState.LOST, "tab:red")):
        off = [each is not None and each.state is state for each in tracks]
        style = {"color": color, "alpha": 0.25, "label": state.name}
        above.fill_between(seconds, 0, 1, off, transform=above.get_xaxis_transform(), **style)
    above.axvline(SETTLING, color="gray", linewidth=0.8)
    above.set_ylabel("car off the image's middle")
    above.legend(loc="upper right", ncols=3, fontsize="small")
    below.plot(seconds, np.degrees(pan), label="pan, degrees")
    below.plot(seconds, np.degrees(tilt), label="tilt, degrees")
    below.fill_between(seconds, 0, 100 * visible, color="gray", alpha=0.2, label="car visible, %")
    below.set_xlabel("seconds")
    below.legend(loc="upper right", ncols=3, fontsize="small")
    with replacing(picture) as file:
        figure.savefig(str(file), dpi=110, format="png")


def main(args: Sequence[str] | None = None) -> int:
    """Run the simulation to its end or until SIGINT or SIGTERM; return the exit status."""
    return run_node("pan_tilt_simulation", __doc__ or "", lambda: PanTiltSimulation().run(), args)


if __name__ == "__main__":
    sys.exit(main())
