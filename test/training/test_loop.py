"""Whole runs on a tiny set: they learn, and share a batch exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from whole_runs import TORCHRUN, Start, finish, read_checkpoint

from siamcar_ros.data import DataError
from siamcar_ros.model import build_model, load_weights
from siamcar_ros.resources import resource_path
from siamcar_ros.training import load_recipe
from siamcar_ros.training.loop import train

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


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
    assert not list(whole.glob("*part*"))


def test_a_set_without_targets_is_told_in_a_line(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "one"
    folder.mkdir(parents=True)
    for i in (1, 2):
        cv2.imwrite(str(folder / f"{i:08d}.jpg"), np.zeros((60, 80, 3), np.uint8))
    (folder / "groundtruth.txt").write_text("5,5,1,1\n" * 2)  # too small to be drawn
    with pytest.raises(DataError, match=r"^sequences: 200 draws in a row gave no target$"):
        train(load_recipe(recipe, [f"data.sets.videos.root={folder.parent}"]))


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
        "compute.correlation=direct",  # rounds alike for one pair and for two
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
    with pytest.raises(ValueError, match=r"validation.sequences: no folder .*nowhere"):
        train(load_recipe(recipe, [*short, f"validation.sequences={tmp_path}/nowhere"]))
    shutil.copytree(videos / "near", tmp_path / "held_out/near")
    (tmp_path / "held_out/near/00000001.jpg").write_bytes(b"")
    train(load_recipe(recipe, [*short, f"validation.sequences={tmp_path}/held_out"]))
    assert "no sequence can be scored" in caplog.text


def test_it_learns(recipe: Path, tmp_path: Path) -> None:
    train(
        load_recipe(
            recipe,
            ["epochs=12", "compute.workers=0", "average=0", "log.every=4", "batch=4"]
            + [f"augment.{name}=0" for name in ("low_resolution", "negative", "gray", "blur")],
        )
    )
    history = (tmp_path / "run/history.jsonl").read_text().splitlines()
    totals = [json.loads(line)["total"] for line in history]
    assert totals[-1] < 0.8 * totals[0]


def test_a_teacher_is_learnt_from(recipe: Path, whole: Path, tmp_path: Path) -> None:
    teacher = f"teacher.weights={whole / 'model.safetensors'}"
    options = ["epochs=12", "compute.workers=0", "average=0", "log.every=4", "seed=3"]
    for name, weight in (("taught", "1"), ("untaught", "1e-9")):
        run = [f"output={tmp_path / name}", f"teacher.weight={weight}"]
        train(load_recipe(recipe, [*options, *run, teacher, "teacher.network=compact"]))
    with pytest.raises(ValueError, match="17x17 cells do not lie where those of compact do"):
        train(load_recipe(recipe, ["teacher.network=alexnet", teacher]))
    with pytest.raises(ValueError, match=r"missing: backbone\.layer1(.|\n)*set teacher.network"):
        train(load_recipe(recipe, ["teacher.network=resnet50", teacher]))
    taught, untaught = (
        [json.loads(line)["teacher"] for line in (tmp_path / name / "history.jsonl").open()]
        for name in ("taught", "untaught")
    )
    # Both see the same batches, which are small and differ.
    assert sum(taught[-3:]) < 0.6 * sum(untaught[-3:])
    assert all(one < other for one, other in zip(taught[3:], untaught[3:], strict=True))


def test_mixed_precision_and_changes_on_the_device(recipe: Path, whole: Path) -> None:
    options = ["compute.precision=bf16", "compute.augment_on_device=true", "compute.workers=0"]
    options += ["teacher.network=compact", f"teacher.weights={whole / 'model.safetensors'}"]
    train(load_recipe(recipe, [*options, "epochs=0.34"]))
    state = read_checkpoint(recipe.parent / "run/last.pt")["model"]
    assert all(torch.isfinite(value).all() for value in state.values())
    assert {value.dtype for value in state.values()} <= {torch.float32, torch.int64}


def test_sync_norms_need_gpus(recipe: Path) -> None:
    with pytest.raises(ValueError, match="needs GPUs"):
        train(load_recipe(recipe, ["compute.batchnorm=sync"]))


def test_a_cut_jpeg_is_named_and_replaced(
    recipe: Path, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(videos / "near", tmp_path / "cut/near")
    cut = tmp_path / "cut/near/00000002.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    train(load_recipe(recipe, [f"data.sets.videos.root={tmp_path}/cut", "compute.workers=1"]))
    assert f"skipped {cut}: not an image" in caplog.text
    assert (recipe.parent / "run/model.safetensors").is_file()


def test_validation_that_fails_ends_no_run(
    recipe: Path, videos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> dict[str, float]:
        assert (recipe.parent / "run/last.pt").is_file(), "a validation can take long"
        raise KeyError("tracker")

    monkeypatch.setattr("siamcar_ros.training.loop.validate", failing)
    options = ["compute.workers=0", "epochs=0.34", f"validation.sequences={videos}"]
    train(load_recipe(recipe, options))
    assert "no validation after step 1: 'tracker'" in caplog.text


def test_a_network_of_ones_own_is_validated(recipe: Path, videos: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    shipped = resource_path("config/networks/compact.yaml").read_text()
    own.write_text(shipped.replace("network: compact", "network: own"))
    options = [f"network={own}", "epochs=0.34", f"validation.sequences={videos}"]
    train(load_recipe(recipe, ["compute.workers=0", *options]))
    assert '"tracking/ao"' in (tmp_path / "run/history.jsonl").read_text()


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_first_losses_are_the_cpus(recipe: Path, tmp_path: Path) -> None:
    """From the same pairs, in TF32; and in bfloat16 with pairs changed on the device."""
    totals = {}
    for name, options in {
        "cpu": ["compute.device=cpu"],
        "cuda": ["compute.device=cuda"],
        "eager": ["compute.device=cuda", "compute.cuda_graph=false"],
        "bf16": ["compute.device=cuda", "compute.precision=bf16", "compute.augment_on_device=true"],
    }.items():
        output = tmp_path / name
        settings = [*options, f"output={output}", "log.every=1", "compute.workers=0"]
        train(load_recipe(recipe, settings))
        lines = (output / "history.jsonl").read_text().splitlines()
        totals[name] = [json.loads(line)["total"] for line in lines]
    assert totals["cuda"][0] == pytest.approx(totals["cpu"][0], rel=0.01)
    assert totals["cuda"] == pytest.approx(totals["eager"], rel=0.05)
    assert len(totals["bf16"]) == len(totals["cpu"])
    assert np.isfinite(totals["bf16"]).all()
