"""`make gpu` rehearsed on the CPU: its parts, tables and JSON, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import run as gpu
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.inference import union
from benchmarks.gpu.run import Clock, GpuOptions, Part, failed, measure_gpu, run_tests
from benchmarks.gpu.training import write_clips
from siamcar_ros.data import build_mixture
from siamcar_ros.runtime import DeviceError

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def test_what_is_missing_is_named_with_the_file_that_lists_it() -> None:
    bare = [sys.executable, "-S", "-m", "benchmarks.gpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(bare, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks: error: No module named ")
    assert done.stderr.endswith(" -m pip install -r benchmarks/gpu/requirements.txt\n")


@pytest.mark.timeout(1200)
def test_the_rehearsal_runs_every_part_in_a_clean_copy_of_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("siamcar_ros", "benchmarks", "config", "films", "models", "test"):
        shutil.copytree(ROOT / name, tree / name, ignore=unwanted)
    for name in ("Makefile", "package.xml", "pyproject.toml"):
        shutil.copy(ROOT / name, tree)
    python = Path(sys.executable).parent
    done = subprocess.run(
        ["make", "gpu", f"ARGS=--device cpu --quick --output {tmp_path}"],
        cwd=tree,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert set(content["parts"]) == {"inference", "tests", "training", "providers"}
    titles = [t["title"] for part in content["parts"].values() for t in part["tables"]]
    assert "compact: one target, 640x480, image to box" in titles
    assert "alexnet: several targets, torch fp32" in titles
    rows = {t["title"]: t["rows"] for part in content["parts"].values() for t in part["tables"]}
    published = rows["compact: one target, 640x480, image to box"][-1]
    assert published["name"] == "as published"
    assert published["ratio"] == 1
    (trained,) = rows["training, from clips on disk"]
    assert trained["pairs"] > 0
    assert trained["fed"] > 0
    assert {row["name"] for row in rows["tests marked gpu"]} == {"passed", "skipped", "failed"}
    page = (tmp_path / "gpu.md").read_text()
    assert "| as published |" in page
    assert content["machine"]["processor"] in page
    assert content["machine"]["processor"] in done.stdout


def test_a_part_that_dies_leaves_the_others_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif '\"part\": \"training\"' in ' '.join(sys.orig_argv): os._exit(9)\n"
    )
    monkeypatch.setattr(gpu, "_ROOT", tmp_path / "nowhere")
    options = GpuOptions("cpu", quick=True, parts=("training", "tests"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, map(str, sys.path))])
    )
    content = measure_gpu(options, tmp_path / "out")
    assert failed(content) == ["training"]
    assert "ended with status 9" in content["parts"]["training"]["notes"][0]
    assert not content["parts"]["tests"].get("failed")


def test_a_copy_without_tests_leaves_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_ROOT", tmp_path)
    part = Part(tmp_path / "part.json")
    run_tests(part, GpuOptions("cpu"), Clock(1.0))
    assert part.notes[0].startswith("tests left out: this copy of the repository has none")
    assert not part.failed


def test_a_step_that_fails_is_noted(tmp_path: Path) -> None:
    part = Part(tmp_path / "part.json")

    def step() -> None:
        raise RuntimeError("no such kernel\nand a long trace")

    part.attempt("resnet50, frames", step)
    written = json.loads((tmp_path / "part.json").read_text())
    assert written["failed"]
    assert written["notes"] == ["resnet50, frames failed: RuntimeError: no such kernel"]


def test_without_a_gpu_it_is_refused_in_a_sentence(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(DeviceError, match="cuda was asked for, but"):
        main(["--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_overlapping_kernels_count_once() -> None:
    events = [("a", 0.0, 4.0), ("b", 1.0, 2.0), ("c", 3.0, 5.0), ("d", 7.0, 8.0)]
    assert union(events) == 6.0


def test_clips_are_a_training_set(tmp_path: Path) -> None:
    write_clips(tmp_path / "train", 2, 3)
    mixture = build_mixture({"clips": {"kind": "sequences", "root": str(tmp_path / "train")}})
    assert mixture.sizes() == {"clips": 2}
    first, _ = mixture.pair(np.random.default_rng(0))
    assert first.image.shape[:2] == (480, 640)
