"""Whole runs on videos of a disc."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from whole_runs import RECIPE, Start

from siamcar_ros.training import load_recipe
from siamcar_ros.training.loop import train


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """A run sets PyTorch's number of threads for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences of a bright disc on a noisy ground."""
    root = tmp_path_factory.mktemp("videos")
    draw = np.random.default_rng(0)
    for name, radius in (("near", 22), ("far", 12)):
        (root / name).mkdir()
        rows = []
        ground = cv2.blur(draw.integers(0, 255, (120, 160, 3), dtype=np.uint8), (5, 5))
        for i in range(6):
            image, x, y = ground.copy(), 60 + 6 * i, 50 + 3 * i
            cv2.circle(image, (x, y), radius, (30, 220, 250), -1)
            cv2.imwrite(str(root / name / f"{i + 1:08d}.jpg"), image)
            rows.append(f"{x - radius},{y - radius},{2 * radius + 1},{2 * radius + 1}")
        (root / name / "groundtruth.txt").write_text("\n".join(rows))
    return root


@pytest.fixture
def recipe(tmp_path: Path, videos: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(output=tmp_path / "run", root=videos))
    return path


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `siamcar train` in a process group of its own, ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str | Path, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *launcher, "-m", "siamcar_ros.cli", "train", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was left alone."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(output=folder / "run", root=videos))
    threads = torch.get_num_threads()
    try:
        train(load_recipe(path, ["compute.workers=0"]))
    finally:
        torch.set_num_threads(threads)
    return folder / "run"
