"""Runs of a tracker over sequences, in one process, in workers and on Ray."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from siamcar_ros.commands.evaluate import _differing
from siamcar_ros.data import Sequence, read_image, read_sequence
from siamcar_ros.data.readers.stills import read_reduced
from siamcar_ros.evaluation import runs
from siamcar_ros.evaluation.results import TrackerResults
from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.evaluation.workers import agreed_facts, open_workers, worker_devices
from siamcar_ros.resources import resource_path


def run_all(
    spec: TrackerSpec,
    sequences: list[Sequence],
    results: TrackerResults,
    *,
    count: int | None = None,
    ray: str | None = None,
    again: bool = False,
) -> list[str]:
    with open_workers(
        spec, spec.build, items=len(sequences), count=count, ray_address=ray
    ) as workers:
        return runs.run_all(workers, sequences, results, again=again)


PERFECT = TrackerSpec("Perfect", "moving_square:Oracle")


@pytest.fixture
def sequences(root: Path) -> list[Sequence]:
    return [read_sequence(root / name) for name in "abc"]


@pytest.mark.parametrize("workers", [1, 2])
def test_all_sequences_are_run(tmp_path: Path, sequences: list[Sequence], workers: int) -> None:
    results = TrackerResults(tmp_path / "Perfect", "otb")
    assert run_all(PERFECT, sequences, results, count=workers) == []
    for sequence in sequences:
        (run,) = results.read(sequence)
        assert run.boxes == pytest.approx(sequence.boxes)
        assert np.isfinite(run.times).all()


def test_finished_sequences_are_not_run_again(tmp_path: Path, sequences: list[Sequence]) -> None:
    results = TrackerResults(tmp_path / "Perfect", "otb")
    run_all(PERFECT, sequences[:2], results)
    kept = results.boxes_path("a")
    first, *others = kept.read_text().splitlines()
    kept.write_text("\n".join([first, *(line.replace("16.000", "17.000") for line in others)]))
    run_all(PERFECT, sequences, results)
    assert "17.000" in kept.read_text()
    assert results.is_done(sequences[2])
    run_all(PERFECT, sequences, results, again=True)
    assert "17.000" not in kept.read_text()


def test_results_of_other_data_of_the_same_name_are_not_kept(
    tmp_path: Path, sequences: list[Sequence]
) -> None:
    results = TrackerResults(tmp_path / "Perfect", "otb")
    run_all(PERFECT, sequences, results)
    moved = [replace(s, boxes=s.boxes + np.array([60, 0, 0, 0])) for s in sequences]
    assert not any(results.is_done(sequence) for sequence in moved)
    results.boxes_path("a").write_text("spoilt")
    assert not results.is_done(sequences[0])


@pytest.mark.parametrize(
    ("spec", "on", "devices"),
    [
        (TrackerSpec("t"), "cuda:0", ["cuda:0", "cuda:1"]),
        (TrackerSpec("t", device="cuda:1"), "cuda:1", [None]),
        (TrackerSpec("t", backend="openvino"), "cpu", [None]),
        (PERFECT, None, [None]),
    ],
)
def test_workers_get_the_gpus_where_the_tracker_is_on_one(
    monkeypatch: pytest.MonkeyPatch, spec: TrackerSpec, on: str | None, devices: list[str | None]
) -> None:
    monkeypatch.setattr("siamcar_ros.evaluation.workers.gpu_names", lambda: ["one", "another"])
    network = None if on is None else SimpleNamespace(device=on)
    assert worker_devices(spec, network) == devices


def test_workers_on_a_gpu_need_no_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime runs there without it."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("siamcar_ros.runtime.select.is_installed", lambda package: False)
    on_gpu = SimpleNamespace(device="cuda:0")
    assert worker_devices(TrackerSpec("t", backend="onnxruntime"), on_gpu) == [None]


def test_facts_tell_where_auto_leads_and_what_is_read(tmp_path: Path) -> None:
    facts = TrackerSpec("t", backend="torch", precision="fp32").facts()
    assert (facts["device"], facts["backend"], facts["precision"]) == ("cpu", "torch", "fp32")
    assert "auto" not in {str(value) for value in TrackerSpec("t").facts().values()}
    spec = TrackerSpec("n", "nano", files=(str(tmp_path / "b"), str(tmp_path / "h")))
    with pytest.raises(ValueError, match="NanoTrack: no file"):
        spec.facts()
    for name in "bh":
        (tmp_path / name).write_text(name)
    before = spec.facts()
    (tmp_path / "h").write_text("another")
    assert spec.facts() != before


def test_the_spelling_of_a_path_makes_no_other_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "mine.safetensors"
    shutil.copy(resource_path("models/siamcar_compact.safetensors"), weights)
    monkeypatch.chdir(tmp_path)
    absolute, relative = (TrackerSpec("t", weights=w).facts() for w in (str(weights), weights.name))
    assert absolute == relative
    before = absolute | {"weights": str(weights)}  # as it was once recorded
    assert _differing({"tracker": before}, {"tracker": relative}) == []
    before["weights_sha256"] = "another"
    assert _differing({"tracker": before}, {"tracker": relative}) == ["weights_sha256"]


def test_a_new_int8_graph_is_another_tracker(tmp_path: Path) -> None:
    weights, graph = (
        resource_path(f"models/siamcar_compact{end}")
        for end in (".safetensors", ".search.int8.onnx")
    )
    mine = tmp_path / weights.name
    shutil.copy(weights, mine)
    spec = TrackerSpec("t", weights=str(mine), device="cpu", backend="openvino")
    without = spec.facts()
    beside = tmp_path / graph.name
    shutil.copy(graph, beside)
    spec = replace(spec, precision="int8")
    shipped = spec.facts()
    assert shipped["int8_sha256"] == hashlib.sha256(beside.read_bytes()).hexdigest()
    assert "int8_sha256" not in without


def test_orientation_tags_turn_no_frame(tmp_path: Path) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    plain = cv2.imencode(".jpg", image)[1].tobytes()
    tag = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "tagged.jpg").write_bytes(plain[:2] + tag + plain[2:])
    turned = cv2.imread(str(tmp_path / "tagged.jpg"))
    assert turned is not None
    assert turned.shape[:2] == (60, 40), "the tag is one that OpenCV heeds"
    for read in (read_image, partial(read_reduced, short_side=100)):
        found = read(tmp_path / "tagged.jpg")
        assert found is not None
        assert found.shape[:2] == (40, 60)


def test_a_sequence_that_fails_is_named_and_the_rest_run(
    tmp_path: Path, sequences: list[Sequence]
) -> None:
    sequences[0].frames[0].write_bytes(b"")
    results = TrackerResults(tmp_path / "Perfect", "otb")
    (problem,) = run_all(PERFECT, sequences, results)
    assert problem.startswith("a: SequenceError: a: the first frame does not decode")
    assert [results.is_done(s) for s in sequences] == [False, True, True]


def test_whatever_a_tracker_raises_is_the_reason(tmp_path: Path, sequences: list[Sequence]) -> None:
    spec = TrackerSpec("Fussy", "moving_square:Fussy")
    problems = run_all(spec, sequences[:2], TrackerResults(tmp_path / "Fussy", "otb"))
    assert problems == ["b: RuntimeError: no ninth frame for me"]


def test_a_worker_that_dies_is_told(tmp_path: Path, sequences: list[Sequence]) -> None:
    spec = TrackerSpec("Mortal", "moving_square:Mortal")
    with pytest.raises(ValueError, match="worker process died"):
        run_all(spec, sequences, TrackerResults(tmp_path / "M", "otb"), count=2)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_ray_gives_the_same_results(tmp_path: Path, sequences: list[Sequence]) -> None:
    results = TrackerResults(tmp_path / "Perfect", "otb")
    problems = run_all(PERFECT, sequences, results, count=2, ray="local")
    assert problems == []
    assert all(results.is_done(s) for s in sequences)


def test_machines_of_different_arithmetic_are_refused() -> None:
    facts = {"device": "cpu", "precision": "fp32"}
    assert agreed_facts([facts, dict(facts)]) == facts
    with pytest.raises(ValueError, match=r"different ways \(int8_sha256: 1, None; precision: "):
        agreed_facts([facts, {"device": "cpu", "precision": "int8", "int8_sha256": "1"}])
