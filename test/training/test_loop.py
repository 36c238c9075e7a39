"""Whole runs on a tiny set: they learn, resume exactly after SIGKILL, and share a batch exactly."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
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
import torch
from safetensors.torch import load_file

from siamcar_ros.model import build_model, load_weights, read_metadata, save_weights
from siamcar_ros.training import RecipeError, load_recipe, loop, siamcar_loss
from siamcar_ros.training.datasets import DataError
from siamcar_ros.training.loop import train

Start = Callable[..., "subprocess.Popen[str]"]

TORCHRUN = (
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--local-addr",
    "127.0.0.1",
    "--nproc-per-node",
    "2",
)

pytestmark = pytest.mark.timeout(900)

RECIPE = """
network: compact
output: {output}
epochs: 2
batch: 2
average: 0.9
data:
  pairs_per_epoch: 6
  max_fault_share: 0.5
  sets: {{videos: {{kind: sequences, root: {root}}}}}
optimizer: {{kind: adamw, lr: 0.001, clip: 5}}
schedule: {{kind: cosine, warmup_epochs: 0, final: 0.1}}
compute: {{device: cpu, workers: 2, threads: 1}}
log: {{every: 2, images_every: 4, checkpoint_every: 2, keep_every_epochs: 1, tensorboard: false}}
"""


@pytest.fixture(scope="module")
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
    """Start `python -m siamcar_ros.training` in a process group of its own, ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str | Path, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [sys.executable, *launcher, "-m", "siamcar_ros.training", *map(str, arguments)]
        if launcher:
            command = [sys.executable, *launcher, *command[1 + len(launcher) :]]
        process = subprocess.Popen(
            command,
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


def wait_for_step(path: Path, step: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if path.is_file() and int(read_metadata(path)["step"]) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[0])


def finish(process: subprocess.Popen[str]) -> str:
    output = process.communicate(timeout=800)[0]
    assert process.returncode == 0, output
    return output


def same(one: Path, other: Path) -> None:
    first, second = load_file(str(one)), load_file(str(other))
    assert first.keys() == second.keys()
    different = [key for key in first if not torch.equal(first[key], second[key])]
    assert not different


@pytest.fixture(scope="module")
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


def test_what_a_run_leaves(whole: Path, videos: Path) -> None:
    final = whole / "model.safetensors"
    metadata = load_weights(build_model("compact"), final)
    assert metadata["step"] == "6"
    assert metadata["seed"] == "0"
    assert len(metadata["data"]) == 16
    assert "pairs_per_epoch: 6" in metadata["recipe"]
    assert metadata["revision"]
    assert load_recipe(whole / "recipe.yaml").data.sets["videos"]["root"] == str(videos)
    history = [json.loads(line) for line in (whole / "history.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in history] == [2, 4, 6]
    assert {"total", "cls", "reg", "cen", "rate", "pairs/s", "loader wait"} <= set(history[0])
    assert (whole / "model_0000003.safetensors").is_file()
    for picture in ("summary.png", "samples.png"):
        assert cv2.imread(str(whole / picture)) is not None
    assert not list(whole.glob("*.part"))


def test_killed_and_resumed_is_as_if_left_alone(recipe: Path, whole: Path, start: Start) -> None:
    """Killed with SIGKILL, workers and all, between checkpoints; started by the same command."""
    run = recipe.parent / "run"
    process = start(recipe, "compute.workers=1")
    wait_for_step(run / "last.safetensors", 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "model.safetensors").exists()
    with (run / "history.jsonl").open("a") as history:
        history.write('{"step": 3, "tot')
    finish(start(recipe))
    same(run / "model.safetensors", whole / "model.safetensors")
    same(run / "last.safetensors", whole / "last.safetensors")


def test_a_step_broken_off_is_made_again(
    recipe: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a second Ctrl-C: after the forward pass, which has moved BatchNorm's statistics."""
    steps = itertools.count()

    def breaking(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return siamcar_loss(*arguments, **options)

    run, threads = recipe.parent / "run", torch.get_num_threads()
    try:
        with monkeypatch.context() as patch:
            patch.setattr("siamcar_ros.training.loop.siamcar_loss", breaking)
            with pytest.raises(KeyboardInterrupt):
                train(load_recipe(recipe, ["compute.workers=0"]))
        train(load_recipe(recipe, ["compute.workers=0"]))
    finally:
        torch.set_num_threads(threads)
    same(run / "model.safetensors", whole / "model.safetensors")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_that_is_not_finite_leaves_no_trace(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, precision: str
) -> None:
    if precision == "fp16" and not torch.cuda.is_available():
        pytest.skip("fp16 needs a CUDA device")
    steps = itertools.count()
    upload = loop._upload

    def spoilt(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        templates, searches = upload(*arguments)
        if next(steps) == 2:
            searches[0, 0, 100, 100] = math.inf
        return templates, searches

    monkeypatch.setattr(loop, "_upload", spoilt)
    threads = torch.get_num_threads()
    try:
        options = ["compute.workers=0", f"compute.precision={precision}"]
        train(load_recipe(recipe, options))
    finally:
        torch.set_num_threads(threads)
    assert "step 2 left out: its gradient is not finite" in caplog.text
    for name in ("model", "last"):
        tensors = load_file(str(recipe.parent / f"run/{name}.safetensors"))
        assert all(torch.isfinite(value).all() for value in tensors.values()), name


def test_a_set_without_targets_is_told_in_a_line(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "one"
    folder.mkdir(parents=True)
    for i in (1, 2):
        cv2.imwrite(str(folder / f"{i:08d}.jpg"), np.zeros((60, 80, 3), np.uint8))
    (folder / "groundtruth.txt").write_text("5,5,1,1\n" * 2)  # too small to be drawn
    threads = torch.get_num_threads()
    try:
        with pytest.raises(DataError, match=r"^sequences: 200 draws in a row gave no target$"):
            train(load_recipe(recipe, [f"data.sets.videos.root={folder.parent}"]))
    finally:
        torch.set_num_threads(threads)


def test_a_taught_run_resumes_with_its_teacher_alone(
    recipe: Path, whole: Path, start: Start, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher.safetensors"
    shutil.copy(whole / "model.safetensors", teacher)
    options = ["teacher.network=compact", f"teacher.weights={teacher}", "compute.workers=0"]
    finish(start(recipe, *options, f"output={tmp_path}/left"))
    run = tmp_path / "run"
    process = start(recipe, *options)
    wait_for_step(run / "last.safetensors", 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "model.safetensors").exists()
    save_weights(build_model("compact"), teacher, {})
    with pytest.raises(RecipeError, match=r"teacher.safetensors, are not those that .*last"):
        train(load_recipe(recipe, options))
    shutil.copy(whole / "model.safetensors", teacher)
    finish(start(recipe, *options))
    same(run / "model.safetensors", tmp_path / "left/model.safetensors")


def test_sigterm_writes_the_last_checkpoint(recipe: Path, start: Start) -> None:
    run = recipe.parent / "run"
    process = start(recipe, "log.checkpoint_every=1000", "epochs=500", "log.every=1")
    history = run / "history.jsonl"
    while process.poll() is None and not (history.is_file() and history.read_text()):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    step = int(read_metadata(run / "last.safetensors")["step"])
    assert step == json.loads(history.read_text().splitlines()[-1])["step"]


def test_sigterm_ends_two_processes_after_their_step(recipe: Path, start: Start) -> None:
    """Though nothing is logged for long: torchrun kills what has not ended after half a minute."""
    process = start(
        recipe,
        "log.every=1000",
        "log.checkpoint_every=1",
        "epochs=500",
        "compute.workers=0",
        launcher=TORCHRUN,
    )
    wait_for_step(recipe.parent / "run/last.safetensors", 1, process)
    process.terminate()
    output = process.communicate(timeout=120)[0]
    assert output.count("siamcar: interrupted") == 2, output


def test_another_recipe_does_not_resume(recipe: Path, whole: Path) -> None:
    with pytest.raises(RecipeError, match=r"\(optimizer.lr differ\)"):
        train(load_recipe(recipe, [f"output={whole}", "optimizer.lr=0.1"]))


def changes(
    recipe: Path, initial: Path, start: Start, tmp_path: Path, *settings: str
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """By how much one process, and two that share the batch, change each parameter."""
    settings = (f"backbone.initial={initial}", *settings)
    finish(start(recipe, f"output={tmp_path}/one", *settings))
    finish(start(recipe, f"output={tmp_path}/two", *settings, launcher=TORCHRUN))
    before, one, two = (
        load_file(str(file))
        for file in (initial, *(tmp_path / f"{n}/model.safetensors" for n in ("one", "two")))
    )
    for key, _ in build_model("compact").named_parameters():
        yield key, one[key] - before[key], two[key] - before[key]


def test_two_processes_have_the_gradients_of_one(
    recipe: Path, whole: Path, start: Start, tmp_path: Path
) -> None:
    """One step of plain SGD, so that the weights' change is the gradient; norms are frozen."""
    initial = whole / "model.safetensors"
    step = (
        "epochs=0.34",
        "average=0",
        "optimizer.kind=sgd",
        "optimizer.momentum=0",
        "optimizer.weight_decay=0",
        "optimizer.clip=0",
        "compute.batchnorm=frozen",
        "compute.workers=0",
    )
    changed = 0
    for key, first, second in changes(recipe, initial, start, tmp_path, *step):
        changed += bool(first.abs().max() > 0)
        assert (first - second).abs().max() <= 1e-3 * first.abs().max() + 1e-6, key
    assert changed > 30


def test_two_processes_unfreeze_the_backbone_as_one_does(
    recipe: Path, whole: Path, start: Start, tmp_path: Path
) -> None:
    """Two steps, the backbone trained in the second."""
    initial = whole / "model.safetensors"
    steps = (
        "backbone.frozen_epochs=1",
        "data.pairs_per_epoch=2",
        "average=0",
        "optimizer.kind=sgd",
        "optimizer.lr=1e-3",
        "optimizer.momentum=0",
        "optimizer.clip=0",
        "schedule.final=1",
        "compute.batchnorm=frozen",
        "compute.workers=0",
    )
    parts = set()
    for key, first, second in changes(recipe, initial, start, tmp_path, *steps):
        if first.abs().max() > 1e-4:
            parts.add(key.split(".")[0])
        assert (first - second).abs().max() <= 1e-2 * first.abs().max() + 1e-6, key
    assert "backbone" in parts


def test_validation_is_refused_at_the_start_and_ends_no_run(
    recipe: Path, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = ["compute.workers=0", "epochs=0.34", "log.images_every=9"]
    with pytest.raises(ValueError, match=r"validation.sequences: no sequence in .*nowhere"):
        train(load_recipe(recipe, [*short, f"validation.sequences={tmp_path}/nowhere"]))
    shutil.copytree(videos / "near", tmp_path / "held_out/near")
    (tmp_path / "held_out/near/00000001.jpg").write_bytes(b"")
    threads = torch.get_num_threads()
    try:
        train(load_recipe(recipe, [*short, f"validation.sequences={tmp_path}/held_out"]))
    finally:
        torch.set_num_threads(threads)
    assert "no sequence in" in caplog.text


def test_it_learns(recipe: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        train(
            load_recipe(
                recipe,
                ["epochs=12", "compute.workers=0", "average=0", "log.every=4", "batch=4"]
                + [f"augment.{name}=0" for name in ("low_resolution", "negative", "gray", "blur")],
            )
        )
    finally:
        torch.set_num_threads(threads)
    history = (tmp_path / "run/history.jsonl").read_text().splitlines()
    totals = [json.loads(line)["total"] for line in history]
    assert totals[-1] < 0.8 * totals[0]


def test_a_teacher_is_learnt_from(recipe: Path, whole: Path, tmp_path: Path) -> None:
    teacher = f"teacher.weights={whole / 'model.safetensors'}"
    options = ["epochs=12", "compute.workers=0", "average=0", "log.every=4", "seed=3"]
    threads = torch.get_num_threads()
    try:
        for name, weight in (("taught", "1"), ("untaught", "1e-9")):
            run = [f"output={tmp_path / name}", f"teacher.weight={weight}"]
            train(load_recipe(recipe, [*options, *run, teacher, "teacher.network=compact"]))
        with pytest.raises(RecipeError, match="17x17 cells do not lie where those of compact do"):
            train(load_recipe(recipe, ["teacher.network=alexnet", teacher]))
        with pytest.raises(
            RecipeError, match=r"missing: backbone\.layer1(.|\n)*set teacher.network"
        ):
            train(load_recipe(recipe, ["teacher.network=resnet50", teacher]))
    finally:
        torch.set_num_threads(threads)
    taught, untaught = (
        [json.loads(line)["teacher"] for line in (tmp_path / name / "history.jsonl").open()]
        for name in ("taught", "untaught")
    )
    # Of several batches, since they are small and differ.
    assert sum(taught[-3:]) < 0.6 * sum(untaught[-3:])
    assert sum(taught[-3:]) / 3 < 0.8 * taught[0]


def test_mixed_precision_and_changes_on_the_device(recipe: Path, whole: Path) -> None:
    options = ["compute.precision=bf16", "compute.augment_on_device=true", "compute.workers=0"]
    options += ["teacher.network=compact", f"teacher.weights={whole / 'model.safetensors'}"]
    threads = torch.get_num_threads()
    try:
        train(load_recipe(recipe, [*options, "epochs=0.34"]))
    finally:
        torch.set_num_threads(threads)
    state = load_file(str(recipe.parent / "run/last.safetensors"))
    assert all(torch.isfinite(value).all() for value in state.values())
    assert {value.dtype for value in state.values()} <= {torch.float32, torch.int64}


def test_sync_norms_need_gpus(recipe: Path) -> None:
    with pytest.raises(RecipeError, match="needs GPUs"):
        train(load_recipe(recipe, ["compute.batchnorm=sync"]))


def test_too_many_broken_files_end_the_run(
    recipe: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    for name in ("a", "b"):
        (broken / name).mkdir(parents=True)
        for path in (videos / "near").iterdir():
            (broken / name / path.name).write_bytes(path.read_bytes())
    (broken / "b/00000003.jpg").write_bytes(b"")
    monkeypatch.setattr("siamcar_ros.training.loader._COUNTED_FROM", 5)
    arguments = [f"data.sets.videos.root={broken}", "compute.workers=0", "epochs=9"]
    with pytest.raises(ValueError, match=r"draws met a file.*b/00000003.jpg: not an image"):
        train(load_recipe(recipe, [*arguments, "data.max_fault_share=0.001"]))
