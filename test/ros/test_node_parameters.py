"""What the parameters do to a running node: each is set, and its effect is seen on a topic."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from node_harness import (
    PATIENCE,
    NodeProcess,
    Robot,
    camera_info,
    raw_image,
    scene,
    wait_for,
    wait_for_header,
)
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from siamcar_ros.msg import Track, TrackArray, TrackStatus

pytestmark = [pytest.mark.ros, pytest.mark.slow]
Start = Callable[..., Robot]

TRACKING, UNCERTAIN, LOST = TrackStatus.TRACKING, TrackStatus.UNCERTAIN, TrackStatus.LOST
HERE, FAR = (100, 100), (520, 380)
BOX = (100.0, 100.0, 40.0, 30.0)


def view(place: tuple[int, int], hidden: bool = False) -> NDArray[np.uint8]:
    """A textured rectangle with its top left corner at `place`, on a ground of 640 by 480."""
    rng = np.random.default_rng(5)
    ground = rng.integers(90, 110, (480, 640, 3), dtype=np.uint8)
    target = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((5, 5, 1))).astype(np.uint8)
    if not hidden:
        ground[place[1] : place[1] + 30, place[0] : place[0] + 40] = target
    return ground


class Film:
    """Shows images one by one; the track in each."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.heard: list[TrackArray] = robot.collect(TrackArray, "tracks")

    def change(self, **values: object) -> None:
        assert self.robot.set_parameters(**values) == ""

    def show(self, place: tuple[int, int], hidden: bool = False) -> Track:
        header = self.robot.show(raw_image(view(place, hidden)))
        wait_for_header(header, self.heard)
        return next(each for each in self.heard if each.header == header).tracks[0]

    def states(self, place: tuple[int, int], count: int, hidden: bool = False) -> set[int]:
        return {self.show(place, hidden).state for _ in range(count)}

    def hide(self, place: tuple[int, int]) -> None:
        wait_for("loss", lambda: self.show(place, hidden=True).state == LOST)

    def looks_at(self, place: tuple[int, int]) -> bool:
        """Whether the box is at the target, which is `place`, in one more image."""
        center = self.show(place).bbox.center.position
        return abs(center.x - place[0] - 20) < 8 and abs(center.y - place[1] - 15) < 8


def test_what_a_score_is_made_of_and_what_it_decides(start: Start) -> None:
    robot = start(config="compact", backend="auto")
    robot.client.wait_until_active(PATIENCE)
    film, scores = Film(robot), {}
    header = robot.show(raw_image(view(HERE)))
    for online, calibrated in ((False, True), (True, True), (True, False)):
        film.change(online=online, calibrated=calibrated)
        robot.track("a", BOX, header)
        scores[online, calibrated] = film.show((110, 105)).score
    # Each has a calibration of its own, or none.
    assert len({round(each, 3) for each in scores.values()}) == 3
    film.change(calibrated=True)
    assert film.states(HERE, 2) == {TRACKING}
    film.change(uncertain_below=1.0)
    assert film.states(HERE, 2) == {UNCERTAIN}
    film.change(uncertain_below=0.5, certain_above=1.0)
    assert film.states(HERE, 2) == {UNCERTAIN}
    film.change(certain_above=0.7)
    assert film.states(HERE, 2) == {TRACKING}


def test_where_a_lost_target_is_expected_searched_for_and_found(start: Start) -> None:
    robot = start(config="compact", backend="auto", redetect=False)
    robot.client.wait_until_active(PATIENCE)
    film = Film(robot)
    header = robot.show(raw_image(view(HERE)))
    robot.track("a", BOX, header)
    for x in range(100, 160, 5):
        film.show((x, 100))
    film.hide(HERE)
    # It is expected farther along its way, which is straight.
    before, after = (film.show(HERE, hidden=True).bbox.center.position for _ in range(2))
    assert 180 < before.x < after.x
    assert after.y == pytest.approx(before.y, abs=0.1)
    film.change(camera_motion=False)
    before, after = (film.show(HERE, hidden=True).bbox.center.position for _ in range(2))
    assert abs(after.y - before.y) > 0.1  # the box goes wherever the network sees most

    film.change(redetect=True, camera_motion=True, search_regions=0)
    assert not any(film.looks_at(FAR) for _ in range(15))
    film.change(search_regions=3, found_after=1000)
    wait_for("a look at it", lambda: film.looks_at(FAR))
    assert film.states(FAR, 3) == {LOST}
    film.change(found_after=1)
    assert film.states(FAR, 3) == {TRACKING}
    film.hide(FAR)
    film.change(found_above=1.0)
    wait_for("a look at it", lambda: film.looks_at(HERE))
    assert film.states(HERE, 3) == {LOST}
    film.change(found_above=0.5)
    assert film.states(HERE, 3) == {TRACKING}


def test_rays_markers_and_overlays(robot: Robot) -> None:
    tracks = robot.collect(TrackArray, "tracks")
    markers = robot.collect(MarkerArray, "markers")
    overlays = robot.collect(Image, "debug_image")
    info = camera_info()
    info.p = [600.0, 0.0, 160.0, 0.0, 0.0, 600.0, 120.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    robot.show(raw_image(scene(0)))
    robot.track()
    robot.show(info, "camera_info")

    def rays() -> tuple[float, float]:
        """The focal length by which the bearing was found, and the length of the frustum."""
        header = robot.show(raw_image(scene(0)))
        wait_for_header(header, tracks)
        (track,) = next(each for each in tracks if each.header == header).tracks
        bearing = track.bearing[0].direction if track.bearing else None
        if bearing is None:
            return 0.0, 0.0
        wait_for("markers", lambda: markers and markers[-1].markers[0].header == header)
        length = max(point.z for point in markers[-1].markers[1].points)
        return (track.bbox.center.position.x - 160.5) * bearing.z / bearing.x, length

    wait_for("bearings", lambda: rays() == pytest.approx((300.0, 5.0)))
    assert robot.set_parameters(image_rectified=True, marker_depth=2.5) == ""
    assert rays() == pytest.approx((600.0, 2.5))
    assert robot.set_parameters(image_rectified=False, marker_depth=5.0) == ""

    wait_for("overlays", lambda: rays() and overlays)
    assert robot.set_parameters(debug_rate=0.001) == ""
    rays()
    count = len(overlays)
    for _ in range(5):
        rays()
    assert len(overlays) <= count + 1
    assert robot.set_parameters(debug_rate=30.0) == ""


def test_images_of_16_bits_and_too_large_ones(start: Start) -> None:
    robot = start(
        image_transport="compressed",
        image_depth="range:1000,3000",
        max_megapixels=1,
        precision="fp32",
    )
    robot.client.wait_until_active(PATIENCE)
    robot.process.wait_for_log("torch on cpu in fp32")
    overlays = robot.collect(Image, "debug_image")
    tracks = robot.collect(TrackArray, "tracks")

    def show(height: int, width: int, value: int) -> CompressedImage:
        message = CompressedImage(format="mono16; png compressed")
        image = np.full((height, width), value, np.uint16)
        message.data.frombytes(cv2.imencode(".png", image)[1].tobytes())
        return robot.show(message, "image/compressed")

    show(240, 320, 2000)
    robot.track()
    wait_for("overlay", lambda: show(240, 320, 2000) and overlays)
    assert overlays[-1].data[0] == pytest.approx(127.5, abs=1)
    robot.process.wait_for_log("values 1000 to 3000 are scaled to 8 bits")
    show(1001, 1000, 2000)
    robot.process.wait_for_log("1000x1001")
    wait_for_header(show(240, 320, 2000), tracks)


def test_images_whose_stamps_run_ahead(robot: Robot) -> None:
    tracks = robot.collect(TrackArray, "tracks")
    robot.show(raw_image(scene(0)))
    robot.track()
    robot.show(raw_image(scene(0)), stamp=time.time_ns() + 5 * 10**9)  # beyond time_jump: dropped
    wait_for_header(robot.show(raw_image(scene(0))), tracks)
    assert robot.sent[-2].stamp not in [each.header.stamp for each in tracks]
    assert robot.set_parameters(time_jump=60.0) == ""
    stamp = time.time_ns() + 5 * 10**9
    wait_for_header(robot.show(raw_image(scene(0)), stamp=stamp), tracks)
    assert robot.set_parameters(time_jump=1.0) == ""


def test_the_length_of_a_simulation(robot: Robot, tmp_path: Path) -> None:
    values = {"duration": 1.5, "rate": 20.0, "report": tmp_path, "lag": 0.0}
    space = robot.process.namespace
    mount = NodeProcess(tmp_path / "mount.log", space, values, executable="pan_tilt_simulation")
    assert mount.process.wait(PATIENCE) == 0, mount.log
    frames = json.loads((tmp_path / "follow.json").read_text())["frames"]
    assert [each["seconds"] for each in frames] == pytest.approx(np.arange(30) / 20)
    assert robot.client.stop_tracking().startswith("stopped")
