from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from moving_square import square_boxes, write_sequences

from siamcar_ros.data import Sequence, SequenceError, read_sequence
from siamcar_ros.evaluation import Run
from siamcar_ros.evaluation.results import TrackerResults


@pytest.fixture
def sequence(tmp_path: Path) -> Sequence:
    return read_sequence(write_sequences(tmp_path / "data") / "a")


def a_run(n: int = 8) -> Run:
    return Run(square_boxes(n), np.full(n, 0.5), np.linspace(0.01, 0.02, n))


@pytest.mark.parametrize(
    ("layout", "boxes", "times"),
    [
        ("got10k", "a/a_001.txt", "a/a_time.txt"),
        ("otb", "a.txt", "times/a_time.txt"),
    ],
)
def test_layouts_are_the_toolkits(
    tmp_path: Path, sequence: Sequence, layout: str, boxes: str, times: str
) -> None:
    results = TrackerResults(tmp_path / "T", layout)
    assert not results.is_done(sequence)
    results.write("a", a_run())
    assert results.is_done(sequence)
    assert np.loadtxt(tmp_path / "T" / boxes, delimiter=",") == pytest.approx(square_boxes(8))
    assert np.loadtxt(tmp_path / "T" / times) == pytest.approx(a_run().times)
    (run,) = results.read(sequence)
    assert run.boxes == pytest.approx(square_boxes(8))
    assert run.scores == pytest.approx(a_run().scores)
    assert not list(tmp_path.rglob(".*"))  # no file half written is left


def test_an_unfinished_file_is_not_a_result(tmp_path: Path, sequence: Sequence) -> None:
    results = TrackerResults(tmp_path / "T", "otb")
    results.write("a", a_run(5))
    assert not results.is_done(sequence)
    with pytest.raises(SequenceError, match="5 boxes for 8 frames"):
        results.read(sequence)
    with pytest.raises(FileNotFoundError, match="no result"):
        results.read(replace(sequence, name="b"))


def test_results_of_other_tools(tmp_path: Path, sequence: Sequence) -> None:
    # Tabs, another name, rows of frames that the benchmark omits, no times.
    folder = tmp_path / "Other"
    folder.mkdir()
    np.savetxt(folder / "a_1.txt", square_boxes(10), fmt="%d", delimiter="\t")
    renamed = replace(sequence, name="a.1", aliases=("a_1",), lead_in=2)
    (run,) = TrackerResults(folder, "otb").read(renamed)
    assert run.boxes == pytest.approx(square_boxes(10)[2:])
    assert np.isnan(run.times).all()
    (folder / "times").mkdir()
    (folder / "times" / "a_1_time.txt").write_text("")
    assert np.isnan(TrackerResults(folder, "otb").read(renamed)[0].times).all()


def test_repetitions_of_the_got10k_toolkit(tmp_path: Path, sequence: Sequence) -> None:
    folder = tmp_path / "T" / "a"
    folder.mkdir(parents=True)
    for trial in (1, 2):
        np.savetxt(folder / f"a_{trial:03d}.txt", square_boxes(8) + trial, delimiter=",")
    np.savetxt(folder / "a_time.txt", np.tile([[0.1, 0.2]], (8, 1)), delimiter=",")
    first, second = TrackerResults(tmp_path / "T", "got10k").read(sequence)
    assert second.boxes[0, 0] - first.boxes[0, 0] == 1
    assert first.times[0] == 0.1
    assert second.times[0] == 0.2
    assert TrackerResults(tmp_path / "T", "got10k").names() == ["a"]


def test_submission_holds_what_the_server_wants(tmp_path: Path, sequence: Sequence) -> None:
    results = TrackerResults(tmp_path / "GOT-10k" / "T", "got10k")
    results.write_run_file({"benchmark": "got10k-test"})
    with pytest.raises(ValueError, match="1 of 1 sequences have no result"):
        results.write_submission([sequence])
    results.write("a", a_run())
    archive = results.write_submission([sequence])
    assert archive == tmp_path / "GOT-10k" / "T.zip"
    with zipfile.ZipFile(archive) as file:
        assert sorted(file.namelist()) == ["a/a_001.txt", "a/a_time.txt"]


def test_run_file_that_is_no_json(tmp_path: Path) -> None:
    results = TrackerResults(tmp_path, "otb")
    assert results.read_run_file() == {}
    results.write_run_file({"root": "/data"})
    assert results.read_run_file() == {"root": "/data"}
    for text in ("{", "[]", '{"tracker": "SiamCAR"}', "\udcff"):
        (tmp_path / "run.json").write_text(text, "utf-8", "surrogateescape")
        with pytest.raises(ValueError, match=r"run\.json"):
            results.read_run_file()
