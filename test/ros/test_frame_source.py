"""frame_source in a process of its own, heard over the middleware."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("siamcar_ros.srv")

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from short_sequence import write_sequence
from streams import serve
from vision_msgs.msg import Detection2D

from siamcar_ros.data.film import open_source
from siamcar_ros.ros.messages import bbox_to_box
from siamcar_ros.srv import InitTarget

pytestmark = pytest.mark.slow

COUNT = 8
NODE = ("-m", "siamcar_ros.ros.frame_source")
# The node on a camera that films 100 images a second, each of one colour: its number.
CAMERA = """
import sys, time
import numpy as np
from siamcar_ros.data.film import Source, SourceError
from siamcar_ros.ros import frame_source

def film():
    for number in range({length}):
        time.sleep(0.01)
        yield np.full((8, 8, 3), (number // 256, number % 256, 0), np.uint8)
    raise SourceError("the camera broke off")

def encode(*arguments):
    raise AssertionError("encoded for nobody")

frame_source.open_source = lambda name: Source("fake", True, 30.0, film)
frame_source.cv2.imencode = encode
sys.exit(frame_source.main(sys.argv[1:]))
"""
Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequence(tmp_path_factory.mktemp("source") / "clip", COUNT)


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def begin(*program: str, cwd: Path | None = None, **parameters: object) -> Process:
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        process = subprocess.Popen(
            [sys.executable, *(program or NODE), "--ros-args", *words],
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={k: v for k, v in os.environ.items() if "DISPLAY" not in k},
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


class Listener:
    """Keeps every message of some topics."""

    def __init__(self, **topics: Any) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("listener", context=self.context)
        self.heard: dict[str, list[Any]] = {name: [] for name in topics}
        for name, (topic, kind) in topics.items():
            self.node.create_subscription(kind, topic, self.heard[name].append, 100)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def until(self, done: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            counts = {name: len(messages) for name, messages in self.heard.items()}
            assert time.monotonic() < deadline, f"heard only {counts}"
            self.executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


def test_every_frame_comes_with_its_box_under_one_header(folder: Path, start: Start) -> None:
    listener = Listener(
        image=("image", Image),
        info=("camera_info", CameraInfo),
        truth=("ground_truth", Detection2D),
    )
    process = start(
        source=folder,
        rate=5.0,
        wait_for_subscriber=True,
        first_frame_hold=0.2,
        focal=500.0,
        frame_id="mast",
    )
    try:
        listener.until(lambda: all(len(each) >= COUNT for each in listener.heard.values()))
    finally:
        listener.close()
    assert process.wait(20) == 0
    source = open_source(str(folder))
    assert source.boxes is not None
    images = listener.heard["image"]
    assert len(images) == COUNT
    for index, (message, expected) in enumerate(zip(images, source.images(), strict=True)):
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        assert np.array_equal(pixels.reshape(expected.shape), expected)
        info, truth = listener.heard["info"][index], listener.heard["truth"][index]
        assert message.header == info.header == truth.header
        assert message.header.frame_id == "mast"
        x, y, w, h = source.boxes[index]
        box, middle = truth.bbox, truth.bbox.center.position
        assert (middle.x, middle.y) == pytest.approx((x + w / 2, y + h / 2))
        assert (box.size_x, box.size_y) == pytest.approx((w, h))
    assert listener.heard["info"][0].k[0] == 500.0
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in images]
    assert stamps[1] - stamps[0] >= 0.15e9, "the first frame stands"


def test_frames_are_scaled_preloaded_and_played_back_and_forth(folder: Path, start: Start) -> None:
    listener = Listener(image=("image", Image), truth=("ground_truth", Detection2D))
    process = start(source=folder, rate=50.0, size="320x120", preload=3, wait_for_subscriber=True)
    heard = listener.heard
    try:
        listener.until(lambda: all(len(each) > 12 for each in heard.values()))
    finally:
        listener.close()
    assert process.poll() is None
    source = open_source(str(folder))
    assert source.boxes is not None
    assert (heard["image"][0].width, heard["image"][0].height) == (320, 120)
    wanted = [source.boxes[index] for index in (0, 1, 2, 1, 0, 1, 2, 1)]
    for truth, (_, y, w, h) in zip(heard["truth"], wanted, strict=False):
        assert truth.bbox.size_x == pytest.approx(w / 2)
        assert truth.bbox.center.position.y == pytest.approx((y + h / 2) / 4)


def test_a_frame_without_the_target_has_a_truth_without_area(
    folder: Path, start: Start, tmp_path: Path
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    lines[2] = "nan,nan,nan,nan"
    (tmp_path / "groundtruth.txt").write_text("\n".join(lines))
    listener = Listener(truth=("ground_truth", Detection2D), image=("image", Image))
    start(source=tmp_path, rate=20.0, wait_for_subscriber=True)
    try:
        listener.until(lambda: len(listener.heard["truth"]) >= COUNT)
    finally:
        listener.close()
    sizes = [each.bbox.size_x for each in listener.heard["truth"]]
    assert [index for index, size in enumerate(sizes) if not size] == [2]


@pytest.mark.parametrize("preload", [0, COUNT])
def test_who_subscribes_to_one_of_both_forms_misses_no_frame(
    folder: Path, start: Start, preload: int
) -> None:
    """The first frame is prepared before anyone has subscribed, preloaded ones all are."""
    listener = Listener(
        image=("image/compressed", CompressedImage), info=("camera_info", CameraInfo)
    )
    given = {"image_transport": "both", "wait_for_subscriber": True, "preload": preload}
    start(source=folder, rate=20.0, **given)
    images, infos = listener.heard["image"], listener.heard["info"]
    try:
        listener.until(lambda: min(len(images), len(infos)) >= COUNT)
    finally:
        listener.close()
    assert [each.header for each in images[:COUNT]] == [each.header for each in infos[:COUNT]]


def test_compressed_frames_and_a_loop_that_is_interrupted(folder: Path, start: Start) -> None:
    listener = Listener(image=("image/compressed", CompressedImage))
    process = start(source=folder, rate=60.0, image_transport="compressed", loop=True)
    try:
        listener.until(lambda: len(listener.heard["image"]) > 2 * COUNT)
    finally:
        listener.close()
    assert process.poll() is None, "it goes round"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    message = listener.heard["image"][0]
    image = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (480, 640, 3)


def test_a_camera_is_read_as_it_films(start: Start) -> None:
    process = start("-c", CAMERA.format(length=10**4), rate=5.0, wait_for_subscriber=True)
    listener = Listener(image=("image", Image))
    heard = listener.heard["image"]
    try:
        listener.until(lambda: len(heard) >= 5)
    finally:
        listener.close()
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors
    numbers = [256 * each.data[0] + each.data[1] for each in heard]
    assert numbers[0] > 2, "what was filmed before someone listened is not kept"
    assert numbers[-1] - numbers[0] > 2 * len(numbers), "nor what was filmed between two images"


def test_a_stream_that_breaks_off_is_opened_again(start: Start) -> None:
    listener = Listener(image=("image", Image))
    heard = listener.heard["image"]
    try:
        with serve("http") as port:
            url = f"http://127.0.0.1:{port}/video"
            process = start(source=url, reconnect=0.2)
            listener.until(lambda: len(heard) > 3)
        assert process.stderr is not None
        while "trying again every 0.2 s" not in process.stderr.readline():
            assert process.poll() is None
        heard.clear()
        with serve("http", port):
            listener.until(lambda: len(heard) > 3)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
    finally:
        listener.close()
    assert process.returncode == 0
    assert "trying again" not in errors, "it is said once"
    assert f"{url} is back" in errors


@pytest.mark.parametrize(
    ("parameters", "box"),
    [
        ({"init": "auto"}, (242.27, 239.18, 91.24, 36.56)),
        ({"init": "ground_truth", "size": "320x240"}, (121.135, 119.59, 45.62, 18.28)),
        ({"init": "10,20,30,40", "loop": True}, (10, 20, 30, 40)),
    ],
)
def test_the_tracker_is_started_on_the_first_frame(
    folder: Path, start: Start, parameters: dict[str, object], box: tuple[float, ...]
) -> None:
    """By a node that is active in time, and finds the image at the second request."""
    listener = Listener(image=("image", Image))
    images = listener.heard["image"]
    asked: list[Any] = []

    def state(request: Any, response: Any) -> Any:
        asked.append(None)
        active = len(asked) > 2
        assert active or not images
        response.current_state = State(id=3 if active else 2, label="inactive")
        return response

    def init(request: Any, response: Any) -> Any:
        asked.append((request.header, bbox_to_box(request.bbox), len(images)))
        response.success = len([each for each in asked if each]) > 1
        response.message, response.id = "the image is not known yet", "car"
        return response

    listener.node.create_service(GetState, "eye/get_state", state)
    listener.node.create_service(InitTarget, "eye/init_target", init)
    process = start(source=folder, rate=50.0, tracker="eye", **parameters)
    rounds = 2 if "loop" in parameters else 1
    try:
        listener.until(lambda: len(images) > (rounds - 1) * COUNT and len(images) % COUNT == 0)
        listener.until(lambda: len([each for each in asked if each]) > rounds)
    finally:
        listener.close()
    refused, *taken = [each for each in asked if each]
    assert refused[2] <= 1
    for place, (header, found, seen) in enumerate(taken[:rounds]):
        assert header == images[place * COUNT].header
        assert found == pytest.approx(box, abs=0.01)
        assert seen <= place * COUNT + 1, "the next frame waits for the answer"
    if rounds == 1:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "car is tracked from" in errors


def test_a_camera_that_breaks_off_is_told(start: Start) -> None:
    process = start("-c", CAMERA.format(length=20), image_transport="both", reconnect=0.0)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the camera broke off" in errors
    assert "encoded for nobody" not in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"source": 99}, "camera 99 cannot be opened"),
        ({"source": "nowhere.mp4"}, "no source 'nowhere.mp4'"),
        ({"image_transport": "smoke"}, "image_transport is one of"),
        ({"qos_reliability": "maybe"}, "qos_reliability is one of"),
        ({"rate": -3.0}, "rate out of range"),
        ({"preload": -1}, "preload out of range"),
        ({"jpeg_quality": 101}, "jpeg_quality out of range"),
        ({"size": "wide"}, "size is WIDTHxHEIGHT"),
        ({"init": "here"}, "(x,y,w,h in pixels) is 4 numbers"),
        ({"init": "draw"}, "clip.grid.png is the first frame with its coordinates"),
    ],
)
def test_what_cannot_be_published_is_said(
    start: Start, parameters: dict[str, object], reason: str, folder: Path, tmp_path: Path
) -> None:
    process = start(**{"source": folder} | parameters, cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert reason in errors
    assert "Traceback" not in errors
