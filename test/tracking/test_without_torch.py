"""The tracker in a process in which no inference library can be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (ROOT / "test" / "without_torch", ROOT)))
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A textured square that moves over noise."""
    folder = tmp_path_factory.mktemp("square")
    random = np.random.default_rng(0)
    ground = cv2.resize(random.integers(0, 120, (24, 32, 3)).astype(np.uint8), (320, 240))
    patch = cv2.resize(random.integers(100, 255, (5, 5, 3)).astype(np.uint8), (50, 50))
    rows = []
    for i in range(6):
        image = ground.copy()
        image[90:140, 100 + 3 * i : 150 + 3 * i] = patch
        cv2.imwrite(str(folder / f"{i + 1:08d}.png"), image)
        rows.append(f"{100 + 3 * i},90,50,50")
    (folder / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    return folder


def test_a_film_is_tracked(sequence: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.txt"
    done = run("-m", "siamcar_ros.cli", "track", str(sequence), "--boxes", str(boxes))
    assert done.returncode == 0, done.stderr
    assert "opencv is the only one installed" in done.stdout
    truth = np.loadtxt(sequence / "groundtruth.txt", delimiter=",")
    assert abs(np.loadtxt(boxes, delimiter=",") - truth).max() < 8


def test_what_needs_pytorch_says_so(sequence: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.safetensors"
    lone.write_bytes((ROOT / "models" / "siamcar_compact.safetensors").read_bytes())
    for arguments in (("--weights", str(lone)), ("--backend", "torch")):
        refused = run("-m", "siamcar_ros.cli", "track", str(sequence), *arguments)
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert "pip install 'siamcar_ros[torch]'" in line
    assert run("-c", "import torch").returncode == 1
