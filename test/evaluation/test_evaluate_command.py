"""`siamcar evaluate`: what it runs, keeps, prints and refuses."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from siamcar_ros.cli import main


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
