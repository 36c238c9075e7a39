"""Tracking in a film whose camera swings, with and without its angular velocity."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf2_msgs", reason="the messages are not built")

from clip.render import Clip
from node_harness import Log
from sensor_msgs.msg import CameraInfo, Imu

from siamcar_ros.evaluation.metrics import iou
from siamcar_ros.ros.camera_motion import CameraMotion
from siamcar_ros.ros.parameters import NodeSettings
from siamcar_ros.tracking import MultiTracker

# Of the clip's frames every third is shown, as by a camera of 10 Hz; rates are measured at 240 Hz.
FRAMES, EVERY, RATES = 150, 3, 8
PERIOD = 1e9 / 30


def stamp(index: float) -> int:
    return round(10**9 + index * PERIOD)


def overlaps(clip: Clip, *, measured: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of the shipped network with the true boxes, after the first frame."""
    info = CameraInfo(width=640, height=480)
    node: Any = SimpleNamespace(
        settings=NodeSettings(camera_rates="rates"),
        camera_info=info,
        subscribe=lambda *_: None,
        get_logger=Log,
    )
    motion = CameraMotion(node)
    info.header.frame_id = "camera"
    info.k = [clip.focal, 0.0, 319.5, 0.0, clip.focal, 239.5, 0.0, 0.0, 1.0]
    tracker = MultiTracker.from_config("compact")
    tracker.add(clip.frame(0).image, clip.box(0), "car")
    found = []
    for index in range(EVERY, FRAMES, EVERY):
        for at in np.arange(index - EVERY, index, 1 / RATES):
            message = Imu()
            message.header.frame_id = "camera"
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp(at), 10**9)
            rate = message.angular_velocity
            rate.x, rate.y, rate.z = clip.turn_rate(float(at) + 0.5 / RATES).tolist()
            motion._on_rate(message)
        before = tracker.result("car").box
        shift = None
        if measured:
            shift = motion.shift(stamp(index - EVERY), stamp(index), before, clip.size)
        assert (shift is not None) == measured
        found.append(
            tracker.update(clip.frame(index).image, motion=shift and {"car": shift})["car"].box
        )
    return iou(found, [clip.box(index) for index in range(EVERY, FRAMES, EVERY)])


@pytest.mark.slow
def test_the_measured_turn_keeps_a_target_that_would_leave_the_search() -> None:
    """The camera swings by 14 degrees: up to 136 pixels from one image to the next."""
    clip = Clip(seed=0, turning=0.25)
    without, with_rates = (overlaps(clip, measured=each) for each in (False, True))
    assert without.mean() < 0.5
    assert with_rates.mean() > 0.65
    assert with_rates.min() > 0.2
