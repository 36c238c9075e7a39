"""Images of every kind through a running node: encodings, compression, and what cannot be used."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from node_harness import (
    HEIGHT,
    WIDTH,
    Robot,
    jpeg_image,
    raw_image,
    scene,
    wait_for,
    wait_for_header,
)
from numpy.typing import NDArray
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2D

from siamcar_ros.msg import TrackStatus

pytestmark = [pytest.mark.ros, pytest.mark.slow]
Start = Callable[..., Robot]


def unusable_images() -> list[Any]:
    """Messages of every kind that cannot be tracked."""
    good = raw_image(scene(0))
    empty = Image(height=0, width=0, encoding="bgr8")
    short, narrow, strange, nameless = (raw_image(scene(0)) for _ in range(4))
    short.data = short.data[:1000]
    narrow.step = good.width
    strange.encoding = "x" * 100_000
    nameless.encoding = ""
    deep = raw_image(np.zeros((HEIGHT, WIDTH), np.uint16), "mono16")
    deep.step = WIDTH
    huge = Image(height=2**31, width=2**31, encoding="bgr8", step=2**32 - 1)
    return [empty, short, narrow, strange, nameless, deep, huge]


@pytest.mark.parametrize("ahead", [-(10**18), 86_400 * 10**9])
def test_an_unusable_image_ends_no_track_whatever_its_stamp(robot: Robot, ahead: int) -> None:
    detections = robot.collect(Detection2D, "detection")
    statuses = robot.collect(TrackStatus, "status")
    robot.show(raw_image(scene(0)))
    robot.track("good")
    for index, bad in enumerate(unusable_images()):
        stamp = max(0, time.time_ns() + ahead)
        robot.show(bad, stamp=stamp)
        time.sleep(0.05)  # the subscription keeps the newest image only
        robot.show(raw_image(scene(0)), stamp=stamp)  # alone, a good one is not believed, either
        time.sleep(0.05)
        header = robot.show(raw_image(scene(index)))
        wait_for_header(header, detections)
    assert {each.id for each in detections} == {"good"}
    wait_for("counts", lambda: statuses[-1].frames_failed > 3)
    assert statuses[-1].frames_dropped > 3
    assert "went back" not in robot.process.log.split("'good' started")[-1]
    assert max(map(len, robot.process.log.splitlines())) < 2000


def test_encodings(robot: Robot) -> None:
    statuses = robot.collect(TrackStatus, "status")
    detections = robot.collect(Detection2D, "detection")
    pixels = scene(0)
    grey = pixels[:, :, 1]
    robot.show(raw_image(pixels))
    robot.track()
    shown: dict[str, NDArray[Any]] = {
        "bgr8": pixels,
        "rgb8": pixels[:, :, ::-1],
        "mono8": grey,
        "bgra8": np.dstack([pixels, grey]),
        "rgba8": np.dstack([pixels[:, :, ::-1], grey]),
        "mono16": grey.astype(np.uint16) * 256,
        "bayer_rggb8": grey,
        "yuv422_yuy2": np.dstack([grey, np.full_like(grey, 128)]),
    }
    for encoding, content in shown.items():
        header = robot.show(raw_image(content, encoding))
        wait_for_header(header, detections)

    def refused() -> bool:  # which is logged every 5 seconds at most
        robot.show(raw_image(pixels, "nonsense8"))
        time.sleep(0.02)
        return "image encoding 'nonsense8' is not supported" in robot.process.log

    wait_for("the reason in the log", refused)
    short = raw_image(pixels)
    short.data = short.data[:1000]
    robot.show(short)
    header = robot.show(raw_image(pixels))
    wait_for_header(header, detections)
    wait_for("count of failures", lambda: statuses[-1].frames_failed > 0)
    assert robot.process.log.count("'nonsense8'") == 1  # throttled


@pytest.mark.parametrize("offered", ["reliable", "best_effort"])
def test_auto_reliability_hears_both(robot: Robot, offered: str) -> None:
    policy = ReliabilityPolicy.RELIABLE if offered == "reliable" else ReliabilityPolicy.BEST_EFFORT
    publisher = robot.publisher(reliability=policy)
    wait_for("subscriber", publisher.get_subscription_count)
    statuses = robot.collect(TrackStatus, "status")
    wait_for("status", lambda: statuses)
    before = statuses[0].frames_received

    def heard() -> bool:
        publisher.publish(raw_image(scene(0)))
        time.sleep(0.05)
        return bool(statuses[-1].frames_received > before)

    wait_for("an image to arrive", heard)
    if offered == "best_effort":
        robot.process.wait_for_log("changing to that")


def test_compressed_images_and_a_corrupt_one(start: Start) -> None:
    # A remapping of the base topic takes the compressed one along, as image_transport's do.
    robot = start("-r", "image:=front/image_raw", image_transport="compressed")
    robot.client.wait_until_active()
    topic = "front/image_raw/compressed"
    detections = robot.collect(Detection2D, "detection")
    robot.show(jpeg_image(scene(0)), topic)
    robot.track()
    corrupt = jpeg_image(scene(1))
    corrupt.data = corrupt.data[: len(corrupt.data) // 2]
    robot.show(corrupt, topic)
    robot.process.wait_for_log("an image cannot be used")
    header = robot.show(jpeg_image(scene(2)), topic)
    wait_for_header(header, detections)
