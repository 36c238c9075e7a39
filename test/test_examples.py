"""Each file in examples/ does what its docstring says; test/ros holds the client's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from short_sequence import write_sequence

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: object, cwd: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_video_is_tracked(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "twelve", 12)
    box = (folder / "groundtruth.txt").read_text().split()[0]
    lines = run("track_video.py", folder, box, tmp_path / "out.mp4", cwd=tmp_path).splitlines()
    assert len(lines) == 12
    index, x, y, w, h, score = map(float, lines[0].split())
    assert [x, y, w, h] == pytest.approx([float(part) for part in box.split(",")], abs=0.06)
    assert (index, score) == (0, 1)
    assert (tmp_path / "out.mp4").stat().st_size > 10_000


@pytest.mark.slow
def test_a_decoder_of_ones_own_tracks(tmp_path: Path) -> None:
    found = dict(
        re.findall(r"^(\w+) +mean overlap (\S+)$", run("own_decoder.py", cwd=tmp_path), re.M)
    )
    assert found.keys() == {"regressed", "best_cell"}
    assert all(float(overlap) > 0.6 for overlap in found.values())


def test_footage_is_scored(tmp_path: Path) -> None:
    write_sequence(tmp_path / "footage" / "car", 12)
    settings = ("decoder=paper", "lr=0.4")
    printed = run("evaluate_footage.py", tmp_path / "footage", *settings, cwd=tmp_path)
    scored = re.fullmatch(r"car: AO (\S+), \d+ frames/s\n", printed)
    assert scored, printed
    assert 0.6 < float(scored[1]) <= 1


@pytest.mark.slow
def test_a_backbone_of_ones_own_trains_and_tracks(tmp_path: Path) -> None:
    """test_contributing.py walks the other way, with the module in the package."""
    pytest.importorskip("torch")
    write_sequence(tmp_path / "footage" / "car", 12)
    toy = EXAMPLES / "own_backbone"
    (tmp_path / "recipe.yaml").write_text(
        "epochs: 1\nbatch: 2\n"
        "data: {pairs_per_epoch: 4, sets: {footage: {kind: sequences, root: footage}}}\n"
        "compute: {device: cpu, workers: 1, threads: 1}\nlog: {tensorboard: false}\n"
    )
    network = toy / "toy.yaml"
    settings = (f"network={network}", "output=run")
    run("own_backbone/toy.py", "train", "recipe.yaml", *settings, cwd=tmp_path)
    weights = tmp_path / "run" / "model.safetensors"
    options = ("--network", network, "--weights", weights, "--boxes", "boxes.txt")
    run("own_backbone/toy.py", "track", tmp_path / "footage" / "car", *options, cwd=tmp_path)
    assert len((tmp_path / "boxes.txt").read_text().splitlines()) == 12
