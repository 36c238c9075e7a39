"""What the operator console makes of a tracker's images and results."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import CompressedImage, Image

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


@pytest.mark.parametrize(
    ("topic", "transport", "shown"),
    [
        ("/image", "raw", Image),
        ("/image/compressed", "compressed", CompressedImage),
        ("/image/ffmpeg", "ffmpeg", None),
        ("/compressed", "raw", Image),
        ("/ffmpeg", "raw", Image),
        ("", "raw", None),
    ],
)
def test_the_images_are_those_that_the_tracker_reports(
    topic: str, transport: str, shown: type | None
) -> None:
    camera = Camera("/nobody/tracker", lambda: None)
    try:
        status = DiagnosticStatus(name="/nobody/tracker: tracker")
        status.values = [
            KeyValue(key="image topic", value=topic),
            KeyValue(key="image transport", value=transport),
        ]
        camera._on_diagnostics(DiagnosticArray(status=[status]))
        kinds = {each.topic_name: each.msg_type for each in camera.client.node.subscriptions}
        assert kinds.get(topic) is shown
        assert (camera._images is None) == (shown is None)
    finally:
        camera.close()
