"""`siamcar track`, as it is typed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from browser import chromium

from siamcar_ros.cli import main
from siamcar_ros.commands.track import _print_summary
from siamcar_ros.data import read_boxes
from siamcar_ros.data.film import Source, SourceError, open_source
from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.model import build_model, save_weights
from siamcar_ros.tracking import TrackState
from siamcar_ros.tracking.selection import NoWindowError, draw_box


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames of a bright square that moves, with ground truth and fresh weights."""
    folder = tmp_path_factory.mktemp("square")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(8):
        image = rng.integers(0, 60, (120, 160, 3), np.uint8)
        image[40:60, 50 + 2 * i : 75 + 2 * i] = 230
        cv2.imwrite(str(folder / f"{i + 1:08d}.png"), image)
        rows.append(f"{50 + 2 * i},40,25,20")
    (folder / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    save_weights(build_model("compact"), folder / "fresh.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converted networks go where nobody else looks, once for all tests here."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def track(sequence: Path, source: str | Path, *more: str | Path) -> int:
    weights = sequence / "fresh.safetensors"
    return main(
        ["track", str(source), "--weights", str(weights), "--device", "cpu", *map(str, more)]
    )


def broken_film(sequence: Path, video: Path) -> None:
    """Write the sequence as a film whose fifth frame does not decode."""
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for image in sorted(sequence.glob("*.png")):
        writer.write(cv2.imread(str(image)))
    writer.release()
    data = bytearray(video.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 3] == b"\xff\xd8\xff"]
    data[starts[4] : starts[5] - 16] = bytes(starts[5] - 16 - starts[4])
    video.write_bytes(data)


def test_a_folder_gives_boxes_a_video_and_the_overlap(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes, video = tmp_path / "boxes.txt", tmp_path / "out.mp4"
    assert track(sequence, sequence, "--boxes", boxes, "--output", video) == 0
    said = capsys.readouterr().out
    assert "8 frames" in said
    assert "AO 0." in said
    rows = np.loadtxt(boxes, delimiter=",")
    assert rows.shape == (8, 4)
    np.testing.assert_array_equal(rows[0], [50, 40, 25, 20])
    film = cv2.VideoCapture(str(video))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 8
    assert film.get(cv2.CAP_PROP_FRAME_WIDTH) == 160


@pytest.mark.slow
def test_browsers_play_the_film_to_its_end(sequence: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    video = tmp_path / "out.mp4"
    assert track(sequence, sequence, "--output", video) == 0
    with chromium() as browser:
        page = browser.new_page()
        page.goto(video.as_uri())
        film = page.locator("video")
        # Chromium starts it by itself, and may be done. Does not wait, as a film may never play.
        film.evaluate("film => { if (!film.ended) film.play(); }")
        page.wait_for_function("document.querySelector('video').ended", timeout=60_000)
        played, seconds = film.evaluate("film => [film.currentTime, film.duration]")
        frames = film.evaluate("film => film.getVideoPlaybackQuality().totalVideoFrames")
    assert played == seconds > 0
    assert frames == 8


def test_without_a_box_or_a_window_a_grid_is_written(
    sequence: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    video = tmp_path / "in 1.mp4"
    track(sequence, sequence, "--output", video)
    assert track(sequence, "in 1.mp4") == 2
    said = capsys.readouterr().err
    assert "there is no screen" in said
    assert "type siamcar track 'in 1.mp4' --box X,Y,W,H" in said
    picture = cv2.imread(str(tmp_path / "in_1.mp4.grid.png"))
    assert picture is not None
    assert picture.shape == (720, 960, 3), "enlarged"
    # A line each 10 pixels, 6 apart in the picture for each of them, on a dark background.
    row = picture[6 * 85 + 3].min(axis=-1)
    assert np.flatnonzero(row > 110).tolist() == list(range(0, 960, 60))
    assert track(sequence, video, "--box", "50,40,25,20", "--frames", "3") == 0
    said = capsys.readouterr().out
    assert "3 frames" in said
    assert "AO" not in said


def test_without_a_box_one_is_drawn_in_a_window(
    sequence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for image in sequence.glob("*.png"):
        (tmp_path / image.name).write_bytes(image.read_bytes())
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "selectROI", lambda title, shown: (50, 40, 25, 20))
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    boxes = tmp_path / "boxes.txt"
    assert track(sequence, tmp_path, "--boxes", boxes) == 0
    assert read_boxes(boxes)[0].tolist() == [50, 40, 25, 20]
    monkeypatch.setattr(cv2, "selectROI", lambda title, shown: (0, 0, 0, 0))
    assert track(sequence, tmp_path) == 2


def test_a_box_is_drawn_in_the_images_pixels_whatever_the_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def drawn(title: str, shown: np.ndarray) -> tuple[int, int, int, int]:
        assert shown.shape == (640, 1280, 3)
        return 100, 50, 20, 10

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "selectROI", drawn)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    assert draw_box(np.zeros((1920, 3840, 3), np.uint8)) == (300, 150, 60, 30)

    def headless(title: str, shown: np.ndarray) -> None:
        raise cv2.error("The function is not implemented. Rebuild the library with GTK+")

    monkeypatch.setattr(cv2, "selectROI", headless)
    change = "uninstall -y opencv-contrib-python-headless && .* install opencv-contrib-python"
    with pytest.raises(NoWindowError, match=change):
        draw_box(np.zeros((9, 9, 3), np.uint8))


@pytest.mark.parametrize("typed", [["--box=-5,40,25,20"], ["--box", "-5,40,25,20"]])
def test_a_box_may_begin_outside_the_image(
    sequence: Path, tmp_path: Path, typed: list[str]
) -> None:
    boxes = tmp_path / "boxes.txt"
    assert track(sequence, sequence, *typed, "--frames", "1", "--boxes", boxes) == 0
    assert read_boxes(boxes)[0].tolist() == [-5, 40, 25, 20]


def test_a_camera_that_breaks_off_keeps_what_was_tracked(
    sequence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filmed() -> Iterator[np.ndarray]:
        yield from open_source(str(sequence)).images()
        raise SourceError("the camera stopped delivering frames")

    camera = Source("camera", True, 30.0, filmed)
    monkeypatch.setattr("siamcar_ros.commands.track.open_source", lambda name: camera)
    boxes = tmp_path / "boxes.txt"
    assert track(sequence, "0", "--box", "50,40,25,20", "--boxes", boxes) == 0
    assert len(read_boxes(boxes)) == 8


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--box", "1,2,3"], "a box (x,y,w,h in pixels) is 4 numbers with"),
        (["--point", "1"], "--point X,Y is 2 numbers with commas between them, not '1'"),
        (["--point", "160,5"], "lies outside the 160x120 image"),
        (["--point", "5,5", "--box", "1,2,3,4"], "give --box or --point, not both"),
        (["--box", "500,500,10,10"], "outside"),
        (["--set", "lr"], "KEY=VALUE"),
        (["--set", "lrate=1"], "lrate is unknown"),
        (["--network", "nano"], "no network configuration"),
        (["--output", "/nowhere/out.mp4"], "/nowhere"),
        (["--output", "out.avi"], "must end in .mp4"),
        (["--boxes", "/"], "is a folder"),
        (["--frames", "0"], "--frames"),
    ],
)
def test_mistakes_are_told_in_a_line(
    sequence: Path, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert track(sequence, sequence, *arguments) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert why in line


def test_targets_are_checked_before_the_network_is_loaded(
    sequence: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TrackerSpec, "load_network", None)  # a call would be a TypeError
    for arguments in (["--point", "1"], ["--point", "1,2", "--box", "1,2,3,4"], ["--box", "1"]):
        assert track(sequence, sequence, *arguments) == 2
        assert "siamcar: error:" in capsys.readouterr().err


def test_a_full_disk_is_an_error_and_keeps_the_old_files(sequence: Path, tmp_path: Path) -> None:
    """The limit on a file's size fails as a full disk does, in a process of its own."""
    boxes, video = tmp_path / "boxes.txt", tmp_path / "out.mp4"
    for path in (boxes, video):
        path.write_text("old")
    arguments = ["track", str(sequence), "--weights", str(sequence / "fresh.safetensors")]
    arguments += ["--device", "cpu", "--boxes", str(boxes), "--output", str(video)]
    code = (
        "import resource, sys\n"
        "from siamcar_ros.cli import main\n"
        "import siamcar_ros.data.video as v\n"
        "begin = v.VideoWriter._begin\n"
        "def limited(self):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))\n"
        "    return begin(self)\n"
        f"v.VideoWriter._begin = limited; sys.exit(main({arguments!r}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "siamcar: error:" in ran.stderr
    assert "wrote" not in ran.stdout
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "boxes.txt": "old",
        "out.mp4": "old",
    }


def test_a_bad_frame_of_a_video_is_passed_over_and_said(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "film.avi"
    broken_film(sequence, video)
    assert track(sequence, video, "--box", "50,40,25,20") == 0
    said = capsys.readouterr().out
    assert "film.avi: 7 frames" in said
    assert "note: film.avi: 7 of 8 frames were decoded; skipped: frame 5" in said


def test_a_first_image_that_does_not_decode_takes_its_box_along(
    sequence: Path, tmp_path: Path
) -> None:
    folder, boxes = tmp_path / "copy", tmp_path / "boxes.txt"
    shutil.copytree(sequence, folder)
    (folder / "00000001.png").write_bytes(b"")
    assert track(sequence, folder, "--boxes", boxes, "--frames", "2") == 0
    assert read_boxes(boxes)[0].tolist() == [52, 40, 25, 20]


def test_frames_that_are_passed_over_do_not_shift_the_ground_truth(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "film.avi"
    broken_film(sequence, video)
    truth = read_boxes(sequence / "groundtruth.txt")
    (tmp_path / "film.groundtruth.txt").write_bytes((sequence / "groundtruth.txt").read_bytes())
    source = open_source(str(video))
    assert len(list(source.images())) == 7
    assert source.skipped == [4]
    tracker: Any = SimpleNamespace(
        result=SimpleNamespace(state=TrackState.TRACKING), network="none"
    )
    boxes = np.delete(truth, 4, axis=0)
    boxes[5, :2] += 5
    _print_summary(source, tracker, [tuple(box) for box in boxes.tolist()], [])
    said = capsys.readouterr().out
    expected = (5 + 20 * 15 / (2 * 25 * 20 - 20 * 15)) / 6
    assert f"AO {expected:.3f} (mean overlap without the first frame; lowest in frame 7)" in said


def test_a_source_is_not_written_over(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "film.mp4"
    assert track(sequence, sequence, "--output", film) == 0
    before = film.read_bytes()
    for sink in ("--output", "--boxes"):
        assert track(sequence, film, "--box", "10,10,20,20", sink, film) == 2
        assert "is the source: write to another file" in capsys.readouterr().err
    assert film.read_bytes() == before


def test_a_source_that_is_not_there(sequence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert track(sequence, "gone.mp4") == 2
    assert "gone.mp4" in capsys.readouterr().err


def test_settings_reach_the_tracker(sequence: Path, tmp_path: Path) -> None:
    results = []
    for decoder in ("paper", "upsampled", "regressed"):
        boxes = tmp_path / f"{decoder}.txt"
        assert track(sequence, sequence, "--boxes", boxes, "--set", f"decoder={decoder}") == 0
        results.append(boxes.read_text())
    assert results[0] != results[1]
