"""What the operator console makes of a tracker's images and results."""

from __future__ import annotations

import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import Image

pytest.importorskip("aiohttp", reason="aiohttp is not installed: the extra `console`")

from siamcar_ros.msg import TrackArray
from siamcar_ros.ros.console.camera import Camera


def test_images_do_not_pile_up_while_no_result_arrives() -> None:
    camera = Camera("/nobody/tracker", lambda: None)
    try:
        for number in range(1000):
            image = Image(height=1, width=1, encoding="mono8", step=1, data=[0])
            image.header.stamp.sec = number
            camera._on_image(image)
        assert camera.view is not None
        assert len(camera._frames) < 500
    finally:
        camera.close()


def test_an_image_is_not_shown_again_when_others_are_tracked() -> None:
    camera = Camera("/nobody/tracker", lambda: None)
    try:
        image = Image(height=1, width=1, encoding="mono8", step=1, data=[0])
        camera._on_image(image)
        shown = camera.view
        assert shown is not None
        tracks = TrackArray()
        tracks.header.stamp.sec = 1
        camera._on_tracks(tracks)
        assert camera.view is shown
        tracks.header.stamp.sec = 0
        camera._on_tracks(tracks)  # the result for it
        assert camera.view.tracks is tracks
    finally:
        camera.close()


def test_depth_images_are_not_taken_for_the_cameras() -> None:
    camera = Camera("/tracker_client", lambda: None)  # its own node subscribes to both
    try:
        for topic in ("/a_depth", "/image"):
            camera.client.node.create_subscription(Image, topic, lambda _: None, 1)
        status = DiagnosticStatus(name="/tracker_client: tracker")
        status.values = [KeyValue(key="image topic", value="/image")]
        camera._on_diagnostics(DiagnosticArray(status=[status]))
        for _ in range(100):
            camera.look()
            if camera._source is not None:
                break
            time.sleep(0.05)
        assert camera._source is not None
        assert camera._source[0] == "/image"
    finally:
        camera.close()
