"""`siamcar track`, as it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from siamcar_ros.cli import main
from siamcar_ros.commands.track import _say
from siamcar_ros.data import read_boxes
from siamcar_ros.data.film import open_source
from siamcar_ros.model import build_model, save_weights
from siamcar_ros.tracking import TrackState


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


def test_a_video_needs_a_box(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "in.mp4"
    track(sequence, sequence, "--output", video)
    assert track(sequence, video) == 2
    assert "--box" in capsys.readouterr().err
    assert track(sequence, video, "--box", "50,40,25,20", "--frames", "3") == 0
    said = capsys.readouterr().out
    assert "3 frames" in said
    assert "AO" not in said


def test_a_folder_without_ground_truth_needs_a_box(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in sequence.glob("*.png"):
        (tmp_path / image.name).write_bytes(image.read_bytes())
    assert track(sequence, tmp_path) == 2
    assert "--box" in capsys.readouterr().err
    assert track(sequence, tmp_path, "--box", "50,40,25,20") == 0
    assert "8 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--box", "1,2,3"], "four numbers"),
        (["--point", "1"], "--point is two numbers x,y, not '1'"),
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
    _say(source, tracker, [tuple(box) for box in boxes.tolist()], [])
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
