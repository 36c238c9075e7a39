"""Whole runs that are broken off: they resume exactly, or are refused."""

from __future__ import annotations

import itertools
import json
import math
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from whole_runs import (
    TORCHRUN,
    Start,
    finish,
    read_checkpoint,
    same,
    same_checkpoint,
    wait_for_step,
)

from siamcar_ros.cli import main
from siamcar_ros.model import WeightsError, build_model, save_weights
from siamcar_ros.training import load_recipe, siamcar_loss
from siamcar_ros.training.loader import Batch
from siamcar_ros.training.loop import Run, train

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


def test_killed_and_resumed_is_as_if_left_alone(recipe: Path, whole: Path, start: Start) -> None:
    """Killed with SIGKILL, workers and all, between checkpoints; started by the same command."""
    run = recipe.parent / "run"
    process = start(recipe, "compute.workers=1")
    wait_for_step(run / "last.pt", 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "model.safetensors").exists()
    with (run / "history.jsonl").open("a") as history:
        history.write('{"step": 3, "tot')
    finish(start(recipe))
    same(run / "model.safetensors", whole / "model.safetensors")
    same_checkpoint(run / "last.pt", whole / "last.pt")


def test_a_step_broken_off_is_made_again(
    recipe: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a second Ctrl-C: after the forward pass, which has moved BatchNorm's statistics."""
    steps = itertools.count()

    def breaking(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        if next(steps) == 3:
            raise KeyboardInterrupt
        return siamcar_loss(*arguments, **options)

    run = recipe.parent / "run"
    with monkeypatch.context() as patch:
        patch.setattr("siamcar_ros.training.loop.siamcar_loss", breaking)
        with pytest.raises(KeyboardInterrupt):
            train(load_recipe(recipe, ["compute.workers=0"]))
    train(load_recipe(recipe, ["compute.workers=0"]))
    same(run / "model.safetensors", whole / "model.safetensors")


def spoil(monkeypatch: pytest.MonkeyPatch, spoilt: Callable[[int], bool]) -> None:
    """Make a pixel infinite in the steps that `spoilt` picks."""
    prepared, count = Run._prepared, itertools.count()

    def spoiling(self: Run, pairs: Iterator[Batch]) -> Any:
        inputs = prepared(self, pairs)
        if spoilt(next(count)):
            inputs.searches[0, 0, 100, 100] = math.inf
        return inputs

    monkeypatch.setattr(Run, "_prepared", spoiling)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_that_is_not_finite_leaves_no_trace(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, precision: str
) -> None:
    if precision == "fp16" and not torch.cuda.is_available():
        pytest.skip("fp16 needs a CUDA device")
    spoil(monkeypatch, lambda step: step == 2)
    options = ["compute.workers=0", f"compute.precision={precision}"]
    train(load_recipe(recipe, options))
    assert "step 2 left out: its gradient is not finite" in caplog.text
    state = read_checkpoint(recipe.parent / "run/last.pt")
    for tensors in (load_file(str(recipe.parent / "run/model.safetensors")), state["model"]):
        assert all(torch.isfinite(value).all() for value in tensors.values())


def test_a_taught_run_resumes_with_its_teacher_alone(
    recipe: Path, whole: Path, start: Start, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher.safetensors"
    shutil.copy(whole / "model.safetensors", teacher)
    options = ["teacher.network=compact", f"teacher.weights={teacher}", "compute.workers=0"]
    finish(start(recipe, *options, f"output={tmp_path}/left"))
    run = tmp_path / "run"
    process = start(recipe, *options)
    wait_for_step(run / "last.pt", 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "model.safetensors").exists()
    save_weights(build_model("compact"), teacher, {})
    with pytest.raises(
        ValueError, match=r"last.pt belongs to a run whose teacher was not .*teacher.safetensors"
    ):
        train(load_recipe(recipe, options))
    shutil.copy(whole / "model.safetensors", teacher)
    finish(start(recipe, *options))
    same(run / "model.safetensors", tmp_path / "left/model.safetensors")


@pytest.mark.parametrize(
    "signals", [[signal.SIGTERM], [signal.SIGHUP, signal.SIGHUP]], ids=["kill", "closed terminal"]
)
def test_signals_write_the_last_checkpoint(
    recipe: Path, start: Start, signals: list[signal.Signals]
) -> None:
    if signal.getsignal(signals[0]) is signal.SIG_IGN:
        pytest.skip("the tests run under nohup")
    run = recipe.parent / "run"
    process = start(recipe, "log.checkpoint_every=1000", "epochs=500", "log.every=1")
    history = run / "history.jsonl"
    while process.poll() is None and not (history.is_file() and history.read_text()):
        time.sleep(0.02)
    for number in signals:
        os.killpg(process.pid, number)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert output.count("stopping after this step") == 1
    step = read_checkpoint(run / "last.pt")["step"]
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
    wait_for_step(recipe.parent / "run/last.pt", 1, process)
    process.terminate()
    output = process.communicate(timeout=120)[0]
    assert output.count("siamcar: interrupted") == 2, output
    assert output.count(" steps of 2 pairs") == output.count("stopping after") == 1, output


def test_the_first_signal_ends_a_run_that_opens_its_data(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opening(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it goes on")

    monkeypatch.setattr("siamcar_ros.training.loop.build_mixture", opening)
    with pytest.raises(KeyboardInterrupt):
        train(load_recipe(recipe))


def test_another_recipe_does_not_resume(recipe: Path, whole: Path) -> None:
    with pytest.raises(ValueError, match=r"\(optimizer.lr differ\)"):
        train(load_recipe(recipe, [f"output={whole}", "optimizer.lr=0.1"]))


def test_a_recipe_of_another_version_does_not_resume(recipe: Path, whole: Path) -> None:
    last = recipe.parent / "run/last.pt"
    last.parent.mkdir()
    content = read_checkpoint(whole / "last.pt")
    content["metadata"]["recipe"] += "forgotten: 1\n"
    torch.save(content, last)
    match = r"last.pt has a recipe that .* \(key forgotten is unknown; .*; give another output"
    with pytest.raises(ValueError, match=match):
        train(load_recipe(recipe))


@pytest.mark.parametrize("fault", ["cut", "no checkpoint", "pickled code"])
def test_a_checkpoint_that_cannot_be_read_is_refused(
    recipe: Path, whole: Path, tmp_path: Path, fault: str
) -> None:
    last = recipe.parent / "run/last.pt"
    last.parent.mkdir()
    content = (whole / "last.pt").read_bytes()
    if fault == "cut":
        last.write_bytes(content[: len(content) // 2])
    elif fault == "no checkpoint":
        torch.save({"a": 1}, last)
    else:
        torch.save({"metadata": Path}, last)
    with pytest.raises(WeightsError, match=r"last.pt is damaged.*remove it") as raised:
        train(load_recipe(recipe, ["compute.workers=0"]))
    assert "\n" not in str(raised.value)
    assert "weights_only" not in str(raised.value)


def test_a_diverged_run_ends_with_an_error(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command: no weights, and the checkpoint is from before."""
    spoil(monkeypatch, lambda step: step >= 3)
    options = ["compute.workers=0", "epochs=9", "optimizer.give_up_after=4"]
    assert main(["train", str(recipe), *options, "log.checkpoint_every=3"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "siamcar: error" in line]
    assert len(lines) == 1
    assert "the run has diverged: no finite gradient in 4 steps in a row, up to step 6" in lines[0]
    assert "lower optimizer.lr (0.001) or optimizer.clip (5) and train again" in lines[0]
    assert not (recipe.parent / "run/model.safetensors").exists()
    assert read_checkpoint(recipe.parent / "run/last.pt")["step"] == 6


def test_steps_left_out_now_and_then_end_no_run(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(monkeypatch, lambda step: step % 2 == 1)
    train(load_recipe(recipe, ["compute.workers=0", "optimizer.give_up_after=2"]))
    assert caplog.text.count("left out") == 3


def test_a_full_disk_is_one_sentence_and_costs_no_checkpoint(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files may not grow past 10 kB from the second checkpoint on: as on a full disk."""
    save, hard = Run.save, resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def limited(self: Run) -> None:
        if self.step > 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        save(self)

    monkeypatch.setattr(Run, "save", limited)
    try:
        status = main(["train", str(recipe), "compute.workers=0", "log.checkpoint_every=2"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert status == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("siamcar: error")]
    assert "last.pt cannot be written: File too large" in line
    assert "Traceback" not in error
    assert read_checkpoint(recipe.parent / "run/last.pt")["step"] == 2
    assert not list((recipe.parent / "run").glob("*partial*"))


def test_leftovers_of_a_killed_run_are_cleared(recipe: Path) -> None:
    leftover = recipe.parent / "run/.last.partial.pt"
    leftover.parent.mkdir()
    leftover.write_bytes(bytes(1000))
    train(load_recipe(recipe, ["compute.workers=0", "epochs=0.34", "log.checkpoint_every=99"]))
    assert not leftover.exists()
