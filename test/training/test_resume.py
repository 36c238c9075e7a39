"""Whole runs that are broken off: they resume exactly, or are refused."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from whole_runs import TORCHRUN, Start, finish, same, wait_for_step

from siamcar_ros.model import build_model, read_metadata, save_weights
from siamcar_ros.training import RecipeError, load_recipe, loop, siamcar_loss
from siamcar_ros.training.loop import train

pytestmark = pytest.mark.timeout(900)


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
