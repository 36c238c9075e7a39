"""The demonstration as a user starts it: separate processes over the real middleware."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("siamcar_ros.srv")

from short_sequence import write_sequence

from siamcar_ros import resources
from siamcar_ros.data.film import CLIP, open_source
from siamcar_ros.demo.__main__ import _opened, _write_pictures
from siamcar_ros.resources import FASTDDS_VARIABLES
from siamcar_ros.ros.client import Detection
from siamcar_ros.ros.live_run import Recording

pytestmark = pytest.mark.slow

ENVIRONMENT = os.environ | {
    "ROS_DOMAIN_ID": str(101 + os.getpid() % 100),
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compact network, never LOST, in a file by whose path a test knows its processes."""
    weights = resources.resource_path("models/siamcar_compact.safetensors")
    file = tmp_path_factory.mktemp("network") / "net.yaml"
    file.write_text(
        f"network: compact\nweights: {weights}\n"
        "tracker: {lost_below: 0.0, uncertain_below: 0.0}\n"
    )
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequence(tmp_path_factory.mktemp("demo") / "twenty", 20)


@pytest.fixture(autouse=True)
def nothing_is_left_running(config: Path, tmp_path: Path) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 120  # loaded machines are slow
    while left := _running(config) + _running(tmp_path):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.1)


def _running(mark: Path) -> list[str]:
    """Command lines of live processes that name `mark`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(mark) in command:
                found.append(command)
    return found


def _command(*arguments: object) -> list[str]:
    words = [str(word) for word in arguments]
    return [sys.executable, "-m", "siamcar_ros.demo", "--backend", "torch", *words]


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=240
    )


def test_a_sequence_is_tracked_and_reported(config: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = _run("--sequence", folder, "--config", config, "--output", output, "--rate", 10)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("19 frames, ", "in hand", "latency", "received 20", "tracked to the end"):
        assert words in done.stdout
    assert "frame/s" not in done.stderr, "a progress bar, and no terminal"
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["source"], summary["frames"]) == ("twenty", 19)
    assert 0 <= summary["overlap_answered"] <= 1
    assert summary["latency_ms"]["median"] > 0
    for name in ("tracked.mp4", "strip.png"):
        assert (output / name).stat().st_size > 10_000
        assert name in done.stdout


def test_an_image_that_does_not_decode_is_skipped_and_told(
    config: Path, folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "00000004.jpg").write_bytes(b"")
    done = _run("--sequence", broken, "--config", config, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "00000004.jpg does not decode and is skipped" in done.stdout + done.stderr


def test_a_node_that_does_not_start_is_reported(folder: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    done = _run("--sequence", folder, "--config", missing, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "the tracker node ended with status" in done.stderr
    assert "missing.yaml" in done.stderr


def test_another_run_is_noticed(config: Path, folder: Path, tmp_path: Path) -> None:
    """Its node is active, and would answer for one that is still loading."""
    command = [sys.executable, "-m", "siamcar_ros.ros.tracker_node", "--ros-args"]
    command += ["-r", "__ns:=/demo", "-p", f"config:={config}", "-p", "backend:=torch"]
    log = tmp_path / "other.log"
    with log.open("wb") as out:
        other = subprocess.Popen(command, env=ENVIRONMENT, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 120
        while "activate: done" not in log.read_text():
            assert other.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        done = _run("--sequence", folder, "--config", config, "--output", tmp_path / "out")
        assert done.returncode == 1
        assert "2 nodes are called /demo/tracker: another run is active" in done.stderr
    finally:
        other.send_signal(signal.SIGINT)
        other.wait(30)


def test_a_refused_box_is_reported(config: Path, folder: Path, tmp_path: Path) -> None:
    outside = "5000,5000,40,40"
    done = _run(
        "--sequence", folder, "--config", config, "--output", tmp_path / "out", "--box", outside
    )
    assert done.returncode == 1
    assert "lies wholly outside the 640x480 image" in done.stderr


def test_a_film_without_annotation_needs_a_box(config: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(resources.resource_path("films/car.mp4").read_bytes())
    done = _run("--video", film, "--config", config, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "film.mp4 has no true boxes: give the target's box" in done.stderr


def test_a_box_without_area_is_refused(config: Path, folder: Path, tmp_path: Path) -> None:
    done = _run("--sequence", folder, "--config", config, "--output", tmp_path, "--box", "1,2,0,4")
    assert done.returncode == 1
    assert "has no area" in done.stderr


def test_pictures_are_written(folder: Path, tmp_path: Path) -> None:
    source = open_source(str(folder))
    assert source.boxes is not None
    heard = Recording()
    for index, (x, y, w, h) in enumerate(source.boxes.tolist()):
        stamp = (index + 1) * 10**9
        heard.stamps.append(stamp)
        if index % 2 == 0:
            heard.detections[stamp] = Detection(stamp, stamp, (x + 9, y, w, h), 0.9, "target")
    strip = _write_pictures(source, heard, tmp_path / "tracked.mp4")
    film = open_source(str(tmp_path / "tracked.mp4"))
    assert film.length == 20
    images = list(film.images())
    assert images[0].shape == (480, 640, 3)
    picture = cv2.imread(str(strip))
    assert picture is not None
    assert picture.shape == (2 * 240, 4 * 320, 3)
    # green where a detection came, orange where the one before is shown
    for index, reddish in ((4, False), (5, True)):
        x, y, w, h = source.boxes[index - index % 2].round().astype(int)
        edge = images[index][y + h // 4 : y + 3 * h // 4, x + w + 7 : x + w + 16].astype(int)
        assert (
            (edge[..., 1] - edge[..., 2] > 60).any(),
            (edge[..., 2] - edge[..., 0] > 90).any(),
        ) == (
            not reddish,
            reddish,
        )


@pytest.mark.parametrize("name", ["0", "rtsp://10.0.0.2/main", CLIP])
def test_the_console_plays_what_is_no_file(tmp_path: Path, name: str) -> None:
    given = argparse.Namespace(video=name, sequence="", output=tmp_path, rate=0.0)
    _, played = _opened(given)
    assert played["source"] == name


def test_a_source_is_not_its_own_output(config: Path, tmp_path: Path) -> None:
    film = tmp_path / "tracked.mp4"
    film.write_bytes(b"a film")
    done = _run("--video", film, "--box", "1,2,3,4", "--config", config, "--output", tmp_path)
    assert done.returncode == 1
    assert "would be overwritten" in done.stderr
    assert film.read_bytes() == b"a film"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--sequence", "nowhere"], "no source 'nowhere'"),
        (["--video", "film.mp4"], "no source 'film.mp4'"),
        (["--video", "film.mp4", "--box", "1,2,3"], "a box (x,y,w,h in pixels) is 4 numbers"),
        (["--follow", "--console"], "--console: not allowed with argument --follow"),
        (["--sequence", "nowhere", "--box", "-5,2,30,40"], "no source 'nowhere'"),
        (["--console", "--box", "1,2,3,4"], "--box: not allowed with arguments --follow and"),
    ],
)
def test_what_cannot_be_run_is_said_at_once(
    tmp_path: Path, arguments: list[str], reason: str
) -> None:
    done = _run(*arguments, "--output", tmp_path / "out")
    assert done.returncode in (1, 2)
    assert reason in done.stderr


@pytest.mark.parametrize(
    ("shipped", "own", "taken"),
    [
        ("/shipped.xml", "", "/shipped.xml"),
        ("", "", None),
        ("/shipped.xml", "/own.xml", "/own.xml"),
    ],
)
def test_the_profile_is_the_users_or_the_one_that_has_room(
    monkeypatch: pytest.MonkeyPatch, shipped: str, own: str, taken: str | None
) -> None:
    environment = {FASTDDS_VARIABLES[1]: own} if own else {}
    monkeypatch.setattr(resources, "os", SimpleNamespace(environ=environment))
    monkeypatch.setattr(resources, "fastdds_profile", lambda: Path(shipped) if shipped else None)
    resources.use_fastdds_profile()
    assert [environment.get(name) for name in FASTDDS_VARIABLES] == [taken, taken]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupt_ends_all_processes(
    config: Path, folder: Path, tmp_path: Path, sign: signal.Signals
) -> None:
    # Both the demonstration and its frame source name the test's own folder.
    frames = shutil.copytree(folder, tmp_path / folder.name)
    output = tmp_path / "out"
    arguments = ("--sequence", frames, "--config", config, "--output", output, "--rate", 0.5)
    process = subprocess.Popen(
        _command(*arguments),
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
        # under nohup they are ignored, which is handed down
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        # itself and the frame source, at the very moment that it is started
        while len(_running(tmp_path)) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(sign)
        assert process.wait(60) == (-sign if sign == signal.SIGKILL else 128 + sign)
    finally:
        process.kill()
        process.wait()
