from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from moving_square import write_sequences

from siamcar_ros.cli import main
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
def root(tmp_path: Path) -> Path:
    return write_sequences(tmp_path / "data")


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


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_run_on_ray_is_continued_without_it(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its run.json holds what its workers ran on, as any other."""
    arguments = (
        "folder",
        root,
        "--results",
        tmp_path,
        "--network",
        "compact",
        "--backend",
        "torch",
    )
    assert evaluate(*arguments, "--sequences", "a", "--ray", "local", "--workers", "1") == 0
    facts = json.loads((tmp_path / "data" / "SiamCAR-compact" / "run.json").read_text())["tracker"]
    assert facts["device"] == "cpu"
    assert facts["backend"] == "torch"
    assert facts["precision"] in ("fp32", "bf16")
    assert evaluate(*arguments) == 0
    assert "(differs" not in capsys.readouterr().err
    assert evaluate(*arguments, "--precision", "fp32" if facts["precision"] == "bf16" else "bf16")
    assert "differs in precision" in capsys.readouterr().err


def test_machines_of_different_arithmetic_are_refused() -> None:
    facts = {"device": "cpu", "precision": "fp32"}
    assert agreed_facts([facts, dict(facts)]) == facts
    with pytest.raises(ValueError, match=r"different ways \(int8_sha256: 1, None; precision: "):
        agreed_facts([facts, {"device": "cpu", "precision": "int8", "int8_sha256": "1"}])


def evaluate(*arguments: str | Path) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_command_runs_scores_and_goes_on(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("folder", root, "--tracker", "moving_square:Oracle", "--results", tmp_path / "r")
    assert evaluate(*arguments, "--sequences", "a", "c") == 0
    assert not (tmp_path / "r" / "data" / "Oracle" / "b.txt").exists()
    assert evaluate(*arguments, "--name", "Perfect") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data: 2 sequences"
    rows = [line.split()[:2] for line in lines if line.startswith("Perfect ")]
    assert rows == [["Perfect", "1.000"]] * 2  # of boxes and of presence
    assert (tmp_path / "r" / "data" / "Perfect" / "run.json").is_file()


def test_command_tells_what_failed(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "c" / "groundtruth.txt").unlink()
    results = tmp_path / "of today"
    arguments = ("folder", root, "--tracker", "moving_square:Oracle", "--results", results)
    assert evaluate(*arguments) == 1
    assert "c left out: " in capsys.readouterr().err
    assert evaluate(*arguments, "--sequences", "a", "b") == 0
    (root / "b" / "00000001.jpg").write_bytes(b"")
    (results / "data" / "Oracle" / "b.txt").unlink()
    capsys.readouterr()
    assert evaluate(*arguments) == 1
    told = capsys.readouterr()
    assert "c left out: " in told.err
    assert "b: SequenceError" in told.err
    assert "data: 1 sequence\n" in told.out
    assert f"more: siamcar report '{results / 'data' / 'Oracle'}'\n" in told.out


def test_command_tells_what_cannot_be_scored(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotation = root / "b" / "groundtruth.txt"
    annotation.write_text(annotation.read_text().splitlines()[0])  # nothing after the first frame
    arguments = ("folder", root, "--tracker", "moving_square:Oracle", "--results", tmp_path)
    assert evaluate(*arguments, "--sequences", "a", "b") == 0
    told = capsys.readouterr()
    assert "Oracle, b left out: no frame to score" in told.err
    assert "c left out" not in told.err
    assert "data: 1 sequence\n" in told.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["coco", "."], "no benchmark 'coco'; there are: got10k-val"),
        (["folder"], "the following arguments are required: root; see `siamcar evaluate --help`"),
        (["folder", ".", "--workers", "many"], "argument --workers: invalid int value: 'many'"),
        (["folder", ".", "--baseline", "mil", "x"], "argument --baseline: invalid choice: 'x'"),
        (["folder", "nowhere"], "no folder nowhere"),
        (["folder", ".", "--tracker", "moving_square"], "no tracker 'moving_square'"),
        (["folder", ".", "--tracker", "no_such_module:X"], "cannot import"),
        (["folder", ".", "--tracker", ".relative:X"], "cannot import the tracker '.relative:X'"),
        (["folder", ".", "--set", "lr"], "KEY=VALUE"),
        (["folder", ".", "--set", "lr=["], "--set lr is not valid YAML"),
        (["folder", ".", "--set", f"lr={'[' * 50}"], "--set lr is not valid YAML"),
        (["folder", ".", "--workers", "0"], "--workers"),
        (["folder", ".", "--sequences", "z"], "no sequence z; there are: a, b, c"),
        (["folder", ".", "--baseline", "nano"], "needs 2 model files"),
        (["folder", ".", "--network", "compact", "compact"], "two of the trackers have the same"),
        (["folder", ".", "--set", "lr=[", "--set", "lost_below=0.1"], "--set lr is not valid"),
        (
            ["folder", ".", "--network", "no", "--network", "compact"],
            "configuration is called 'no'",
        ),
        (["folder", ".", "--sequences", "z", "--sequences", "a"], "no sequence z"),
        (["vot", ".", "--network", "nosuch"], "no network configuration is called 'nosuch'"),
        (["vot", ".", "--tracker", "moving_square:None"], "cannot import the tracker"),
        (["vot", ".", "--sequences", "a"], "--sequences is not for vot"),
        (["vot", ".", "--again"], "--again is not for vot"),
    ],
)
def test_command_says_what_was_wrong(
    root: Path,
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(root)
    assert main(["evaluate", *arguments]) == 2
    told = capsys.readouterr().err
    assert reason in told
    assert len(told.splitlines()) == 1


def as_got10k(root: Path, data: Path, split: str) -> Path:
    """Copy sequences to data/split under the names that GOT-10k gives."""
    for i, folder in enumerate(sorted(root.iterdir()), 1):
        name = f"GOT-10k_{split.capitalize()}_{i:06d}"
        shutil.copytree(folder, data / split / name)
    return data / split


def test_got10k_test_split_ends_in_an_archive(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = as_got10k(root, tmp_path / "GOT", "test")
    for folder in split.iterdir():
        annotation = folder / "groundtruth.txt"
        annotation.write_text(annotation.read_text().splitlines()[0])
    arguments = ("--tracker", "moving_square:Oracle", "--results", tmp_path / "r")
    assert evaluate("got10k-test", tmp_path / "GOT", *arguments) == 0
    assert (tmp_path / "r" / "GOT-10k" / "Oracle.zip").is_file()
    assert "is ready for http" in capsys.readouterr().out
    (tmp_path / "r" / "GOT-10k" / "Oracle.zip").unlink()
    (folder / "groundtruth.txt").unlink()
    assert evaluate("got10k-test", tmp_path / "GOT", *arguments) == 1
    assert not (tmp_path / "r" / "GOT-10k" / "Oracle.zip").exists()


def test_got10k_test_split_keeps_what_the_other_is_reported_by(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "GOT"
    for split in ("val", "test"):
        as_got10k(root, data, split)
    arguments = (data, "--tracker", "moving_square:Oracle", "--results", tmp_path / "r")
    for part in ("got10k-test", "got10k-val", "got10k-test"):
        assert evaluate(part, *arguments) == 0
    report = ("report", tmp_path / "r" / "GOT-10k", "--output", tmp_path / "out", "--worst", "0")
    assert main(list(map(str, report))) == 0
    assert "GOT-10k validation: 3 of 180 sequences" in capsys.readouterr().out


def test_results_of_two_trackers_do_not_mix(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("folder", root, "--results", tmp_path / "r", "--name", "Mine")
    assert evaluate(*arguments, "--tracker", "moving_square:Oracle") == 0
    assert evaluate(*arguments, "--tracker", "moving_square:Shaky") == 2
    assert "holds results of another tracker (differs in kind)" in capsys.readouterr().err
    assert evaluate(*arguments, "--tracker", "moving_square:Shaky", "--sequences", "a") == 2
    assert evaluate(*arguments, "--tracker", "moving_square:Shaky", "--again") == 0


def test_results_of_unknown_origin_are_not_continued(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("folder", root, "--results", tmp_path / "r", "--tracker", "moving_square:Oracle")
    assert evaluate(*arguments) == 0
    (tmp_path / "r" / "data" / "Oracle" / "run.json").unlink()
    assert evaluate(*arguments) == 2
    assert "without a run.json, so they may be another tracker's" in capsys.readouterr().err
    assert evaluate(*arguments, "--again") == 0
    assert (tmp_path / "r" / "data" / "Oracle" / "run.json").is_file()


def overlaps(printed: str) -> dict[str, str]:
    """The second table that `siamcar evaluate` prints for one tracker: AO by sequence."""
    lines = printed[printed.index("\nAO ") :].splitlines()[3:]
    rows = (line.split() for line in lines)
    return {row[0]: row[1] for row in rows if len(row) == 2}


@pytest.mark.parametrize("layout", ["otb", "got10k"])
def test_again_by_another_tracker_replaces_all_or_nothing(
    tmp_path: Path, root: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results of two trackers never mix, and none are removed before the new run succeeded."""
    data, dataset, names = root, "folder", list("abc")
    if layout == "got10k":
        data, dataset = tmp_path / "GOT", "got10k-val"
        as_got10k(root, data, "val")
        names = sorted(path.name for path in (data / "val").iterdir())
    arguments = (dataset, data, "--results", tmp_path / "r", "--name", "Mine", "--tracker")
    assert evaluate(*arguments, "moving_square:Oracle") == 0
    assert overlaps(capsys.readouterr().out) == dict.fromkeys(names, "1.000")
    # Fussy raises on the ninth frame, which the first sequence does not have.
    for _ in range(2):
        assert evaluate(*arguments, "moving_square:Fussy", "--again") == 1
        told = capsys.readouterr()
        assert overlaps(told.out) == dict.fromkeys(names, "1.000")
        assert "keeps the other tracker's results" in told.err
    assert evaluate(*arguments, "moving_square:Oracle") == 0, "the results are still Oracle's"
    capsys.readouterr()
    one = ("--again", "--sequences", names[0])
    assert evaluate(*arguments, "moving_square:Shaky", *one) == 2
    assert "not run now (2), which would be lost" in capsys.readouterr().err
    assert evaluate(*arguments, "moving_square:Oracle", *one) == 0
    assert overlaps(capsys.readouterr().out) == dict.fromkeys(names, "1.000")
    assert evaluate(*arguments, "moving_square:Shaky", "--again") == 0
    told = capsys.readouterr()
    assert list(overlaps(told.out)) == names
    assert overlaps(told.out)[names[0]] != "1.000"
    place = tmp_path / "r" / ("GOT-10k" if layout == "got10k" else "data")
    assert [path.name for path in place.iterdir()] == ["Mine"]


def test_again_keeps_a_result_until_its_new_run_succeeds(tmp_path: Path, root: Path) -> None:
    arguments = ("folder", root, "--tracker", "moving_square:Oracle", "--results", tmp_path / "r")
    assert evaluate(*arguments) == 0
    place = tmp_path / "r" / "data" / "Oracle"
    kept = (place / "a.txt").read_text()
    (place / "b.txt").write_text(kept)
    (root / "a" / "00000001.jpg").write_bytes(b"")
    assert evaluate(*arguments, "--again", "--sequences", "a", "b") == 1
    assert (place / "a.txt").read_text() == kept
    assert len((place / "b.txt").read_text().splitlines()) == 9


def test_a_tracker_that_is_not_there_leaves_no_folder(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("folder", root, "--results", tmp_path / "r")
    assert evaluate(*arguments, "--tracker", "moving_square:Oracle") == 0
    assert evaluate(*arguments, "--tracker", "moving_square:Nobody") == 2
    assert [path.name for path in (tmp_path / "r" / "data").iterdir()] == ["Oracle"]


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", ".x", "", "a\\b"])
def test_names_that_lead_elsewhere_are_refused(
    tmp_path: Path, root: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    arguments = ("folder", root, "--tracker", "moving_square:Oracle", "--name", name)
    assert evaluate(*arguments, "--results", tmp_path / "r" / "r") == 2
    assert "cannot be the name of a result folder" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_tracker_that_cannot_be_built_takes_no_results_with_it(
    tmp_path: Path, root: Path
) -> None:
    arguments = ("folder", root, "--results", tmp_path / "r", "--name", "Mine", "--tracker")
    assert evaluate(*arguments, "moving_square:Oracle") == 0
    assert evaluate(*arguments, "moving_square:Oracel", "--again") == 2
    assert len(list((tmp_path / "r" / "data" / "Mine").glob("*.txt"))) == 3
