"""Messages of packages that need not be installed: video, and annotations for Foxglove."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_harness import Robot, scene, wait_for
from rclpy.node import Node
from sensor_msgs.msg import Image

from siamcar_ros.bags.messages import _FOXGLOVE_MSGS
from siamcar_ros.msg import TrackArray
from siamcar_ros.ros.image_subscription import ImageSubscription

av = pytest.importorskip("av", reason="PyAV is not installed: pip install av")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

# As released: fields, in their order.
DEFINITIONS = {
    "ffmpeg_image_transport_msgs": {
        "FFMPEGPacket": "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\n"
        "uint64 pts\nuint8 flags\nbool is_bigendian\nuint8[] data\n"
    },
    "foxglove_msgs": {
        "CompressedVideo": "builtin_interfaces/Time timestamp\nstring frame_id\n"
        "uint8[] data\nstring format\n",
        **_FOXGLOVE_MSGS,
    },
}
CMAKE = """cmake_minimum_required(VERSION 3.22)
project({package})
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
find_package(std_msgs REQUIRED)
rosidl_generate_interfaces({package} {files} DEPENDENCIES std_msgs)
ament_package()
"""
XML = """<package format="3"><name>{package}</name><version>0.0.0</version>
<description>To test with</description><maintainer email="nobody@example.com">a</maintainer>
<license>none</license><buildtool_depend>ament_cmake</buildtool_depend>
<buildtool_depend>rosidl_default_generators</buildtool_depend><depend>std_msgs</depend>
<depend>builtin_interfaces</depend><member_of_group>rosidl_interface_packages</member_of_group>
<export><build_type>ament_cmake</build_type></export></package>
"""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The packages of the messages, built here where they are not installed."""
    missing = [each for each in DEFINITIONS if importlib.util.find_spec(each) is None]
    if not missing:
        yield
        return
    folder = tmp_path_factory.mktemp("interfaces")
    for package in missing:
        (folder / package / "msg").mkdir(parents=True)
        names = " ".join(f"msg/{name}.msg" for name in DEFINITIONS[package])
        for file, text in {"CMakeLists.txt": CMAKE, "package.xml": XML}.items():
            (folder / package / file).write_text(text.format(package=package, files=names))
        for name, text in DEFINITIONS[package].items():
            (folder / package / "msg" / f"{name}.msg").write_text(text)
    prefix = folder / "install"
    path = os.pathsep.join(
        str(Path(each)) for each in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep) if each
    )
    built = subprocess.run(
        ["colcon", "--log-base", "log", "build", "--merge-install", "--cmake-args", "-Wno-dev"]
        + [f"-D{each}={sys.executable}" for each in ("Python3_EXECUTABLE", "PYTHON_EXECUTABLE")]
        + [f"-DCMAKE_INSTALL_RPATH={prefix / 'lib'}"],
        cwd=folder,
        env={**os.environ, "CMAKE_PREFIX_PATH": path},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (site,) = prefix.glob("lib/python3*/*-packages")
    added = {
        "AMENT_PREFIX_PATH": prefix,
        "LD_LIBRARY_PATH": prefix / "lib",
        "PYTHONPATH": site,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        for name_, value in added.items():
            patch.setenv(name_, str(value), prepend=os.pathsep)
        for library in sorted(prefix.glob("lib/*.so"), key=lambda each: len(each.name)):
            ctypes.CDLL(str(library))  # this process does not look at LD_LIBRARY_PATH again
        yield


def video(count: int) -> list[bytes]:
    """H.264 packets of the scene, with a key frame every 10."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 320, 240, "yuv420p"
    context.framerate, context.gop_size = 25, 10
    context.options = {"tune": "zerolatency", "preset": "ultrafast"}
    images = [av.VideoFrame.from_ndarray(scene(index), format="bgr24") for index in range(count)]
    return [bytes(packet) for image in images for packet in context.encode(image)]


def message_of(transport: str, data: bytes, stamp: int) -> Any:
    sec, nanosec = divmod(stamp, 10**9)
    if transport == "ffmpeg":
        message = import_module("ffmpeg_image_transport_msgs.msg").FFMPEGPacket(encoding="libx264")
        message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
        message.header.frame_id = "camera"
    else:
        message = import_module("foxglove_msgs.msg").CompressedVideo(format="h264")
        message.timestamp.sec, message.timestamp.nanosec = sec, nanosec
        message.frame_id = "camera"
    message.data = data
    return message


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("transport", ["ffmpeg", "foxglove"])
def test_a_video_is_tracked_in(start: Callable[..., Robot], transport: str) -> None:
    robot = start(image_transport=transport)
    robot.client.wait_until_active()
    heard = robot.collect(TrackArray, "tracks")
    drawn = robot.collect(Image, "debug_image")
    sent = video(200)
    kind = type(message_of(transport, b"", 0))
    publisher = robot.publisher(f"image/{transport}", kind)
    wait_for("subscriber", publisher.get_subscription_count)
    ended = threading.Event()

    def film() -> None:
        for index, data in enumerate(sent):
            if index >= 3 and not ended.wait(0.04):  # joins in the middle
                publisher.publish(message_of(transport, data, 10**9 + 4 * 10**7 * index))

    camera = threading.Thread(target=film)
    camera.start()
    robot.track("car")
    wait_for("tracks", lambda: len([each for each in heard if each.tracks]) > 5)
    wait_for("pictures", lambda: drawn)
    ended.set()
    camera.join()
    assert robot.process.log.count("images come from the next key frame on") == 1
    assert heard[0].header.stamp.sec * 10**9 + heard[0].header.stamp.nanosec >= 14 * 10**8
    assert (heard[-1].image_width, heard[-1].image_height) == (320, 240)
    assert heard[-1].header.frame_id == "camera"
    shown = drawn[0]
    index = (shown.header.stamp.sec * 10**9 + shown.header.stamp.nanosec - 10**9) // (4 * 10**7)
    pixels = np.frombuffer(shown.data, np.uint8).reshape(240, 320, 3)[60:]
    assert np.abs(pixels.astype(float) - scene(index)[60:]).mean() < 25


@pytest.mark.usefixtures("packages")
def test_annotations_for_foxglove(start: Callable[..., Robot]) -> None:
    robot = start(annotations=True)
    heard = robot.collect(import_module("foxglove_msgs.msg").ImageAnnotations, "annotations")
    robot.client.wait_until_active()
    robot.start_camera()
    robot.track("car")
    drawn = wait_for("annotations of the target", lambda: [each for each in heard if each.texts])[0]
    assert drawn.texts[0].text.startswith("car ")
    (outline,) = drawn.points
    assert outline.type == outline.LINE_LOOP
    assert len(outline.points) == 4
    assert outline.timestamp in [each.stamp for each in robot.sent]


def test_a_transport_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foxglove_msgs.msg", None)
    node: Any = Node
    with pytest.raises(ValueError, match="image_transport foxglove needs the package foxglove"):
        ImageSubscription(node, transport="foxglove", reliability="auto", on_message=print)
