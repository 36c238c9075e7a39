"""CONTRIBUTING.md's steps work: its code blocks are applied to a copy of the package and run.

The node's part, a parameter and a topic, is in test/ros.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from contributed import apply, copy_package, python
from short_sequence import write_sequence


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copy_package(tmp_path / "checkout")


def siamcar(folder: Path, *arguments: object) -> str:
    """What a `siamcar` command that succeeds prints."""
    done = python(folder, "-m", "siamcar_ros.cli", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_backbone_is_one_module_and_one_file(copy: Path) -> None:
    pytest.importorskip("torch")
    touched = apply("Add a backbone", copy)
    assert touched == ["siamcar_ros/model/backbones/tiny.py", "config/networks/tiny.yaml"]
    car = write_sequence(copy / "footage" / "car", 8)
    (copy / "recipe.yaml").write_text(
        "epochs: 1\nbatch: 2\n"
        "data: {pairs_per_epoch: 2, sets: {footage: {kind: sequences, root: footage}}}\n"
        "compute: {device: cpu, workers: 0, threads: 1}\nlog: {tensorboard: false}\n"
    )
    siamcar(copy, "train", "recipe.yaml", "network=tiny", "output=run")
    network = ("--network", "tiny", "--weights", "run/model.safetensors")
    siamcar(copy, "export", *network)
    assert (copy / "run" / "model.search.onnx").is_file()
    printed = siamcar(copy, "track", car, *network, "--backend", "opencv", "--boxes", "boxes.txt")
    assert "opencv" in printed.lower()
    assert len((copy / "boxes.txt").read_text().splitlines()) == 8
    timed = siamcar(copy, "bench", "tiny", *network[2:], "--seconds", "0.01")
    assert "tiny: 640x480" in timed
    assert re.search(r"^opencv fp32 .*\d", timed, re.MULTILINE)


@pytest.mark.slow
def test_a_decoder_is_one_function(copy: Path) -> None:
    car = write_sequence(copy / "car", 4)
    command = ("-m", "siamcar_ros.cli", "track", car, "--set", "decoder=best_cell")
    refused = python(copy, *command)
    assert refused.returncode == 2
    assert "best_cell" in refused.stderr
    assert "upsampled, paper, regressed" in refused.stderr
    assert apply("Add a decoder", copy) == ["siamcar_ros/tracking/decode.py"]
    accepted = python(copy, *command)
    assert accepted.returncode == 0, accepted.stderr
    assert "4 frames" in accepted.stdout
    table = python(copy, "-m", "siamcar_ros.ros.parameters").stdout
    assert "| upsampled, paper, regressed, best_cell |" in table


@pytest.mark.slow
def test_a_kind_of_data_set_is_one_class(copy: Path) -> None:
    assert apply("Add a kind of data set", copy) == ["siamcar_ros/data/readers/beside.py"]
    car = write_sequence(copy / "footage" / "car", 4)
    shutil.move(car / "groundtruth.txt", car.with_suffix(".csv"))
    assert "car" in siamcar(copy, "evaluate", "beside", "footage", "--network", "compact")
    pytest.importorskip("torch")
    (copy / "recipe.yaml").write_text(
        "data: {sets: {footage: {kind: beside, root: footage}}}\ncompute: {device: cpu}\n"
    )
    assert "# footage: 1 images or videos" in siamcar(copy, "train", "recipe.yaml", "--check")


def test_a_parameter_is_one_field(copy: Path) -> None:
    assert apply("Add a parameter of the node", copy) == ["siamcar_ros/ros/parameters.py"]
    table = python(copy, "-m", "siamcar_ros.ros.parameters").stdout
    assert "| `score_scale` | `1.0` | 0 to 1 | yes | Factor of the published score. |" in table
