from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from moving_square import Oracle, square_boxes, write_boxes, write_frames

from siamcar_ros.data import Sequence, SequenceError, find_frames, read_sequence
from siamcar_ros.evaluation import run_sequence


def test_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    boxes = write_frames(tmp_path / "s" / "img", 12, digits=1)
    write_boxes(tmp_path / "s" / "groundtruth.txt", boxes)
    sequence = read_sequence(tmp_path / "s")
    assert [p.stem for p in sequence.frames] == [str(i) for i in range(1, 13)]
    assert sequence.boxes == pytest.approx(boxes)
    assert sequence.notes == ()


@pytest.mark.parametrize(
    "names",
    [
        ["1311868164.363181", "1311868164.4", "1311868165.02"],
        ["1311868164_5", "1311868164_363181", "1311868165_0"],
        ["frame9_take2", "frame10_take1", "frame10_take2"],
        ["2024-01-09_23-59-59", "2024-01-10_00-00-01", "2024-02-01_00-00-00"],
        ["2024-1-9", "2024-1-10", "2024-2-1"],
        ["IMG_0001_crop2", "img_0002_crop1", "IMG_0003_crop3"],
        ["7", "08", "9", "0010"],
        ["a (2)", "a (10)"],
    ],
)
def test_frames_are_in_natural_order(tmp_path: Path, names: list[str]) -> None:
    write_frames(tmp_path, 1)
    (image,) = tmp_path.iterdir()
    for name in reversed(names):
        shutil.copy(image, tmp_path / f"{name}.jpg")
    image.unlink()
    assert [path.stem for path in find_frames(tmp_path)] == names


def test_absent_frames_become_nan(tmp_path: Path) -> None:
    write_boxes(tmp_path / "groundtruth.txt", write_frames(tmp_path, 4))
    (tmp_path / "absence.label").write_text("0\n0\n1\n0\n")
    (tmp_path / "occlusion.tag").write_text("0\n1\n0\n0\n")
    (tmp_path / "size_change.tag").write_text("0\n0\n0\n0\n")
    sequence = read_sequence(tmp_path)
    assert np.isnan(sequence.boxes).any(axis=1).tolist() == [False, False, True, False]
    assert sequence.annotated.all()
    assert sequence.attributes == {"occlusion"}


@pytest.mark.parametrize("missing", ["annotation", "frames", "folder"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "s"
    if missing != "folder":
        folder.mkdir()
    if missing == "annotation":
        write_frames(folder, 2)
    elif missing == "frames":
        write_boxes(folder / "groundtruth.txt", square_boxes(2))
    with pytest.raises((SequenceError, FileNotFoundError), match=r"annotation|images|folder"):
        read_sequence(folder)


def test_a_tracker_must_start_on_a_box(tmp_path: Path) -> None:
    boxes = write_frames(tmp_path, 3)
    boxes[0] = np.nan
    write_boxes(tmp_path / "groundtruth.txt", boxes)
    with pytest.raises(SequenceError, match="no box to start from"):
        run_sequence(Oracle(), read_sequence(tmp_path))


def test_one_pass(tmp_path: Path) -> None:
    write_boxes(tmp_path / "groundtruth.txt", write_frames(tmp_path, 5))
    seen: list[int] = []
    tracker = Oracle(error=2)
    run = run_sequence(tracker, read_sequence(tmp_path), on_frame=seen.append)
    assert tracker.given == [(10, 8, 16, 12)]
    assert run.boxes[0].tolist() == [10, 8, 16, 12]
    assert run.boxes[1:] == pytest.approx(square_boxes(5)[1:] + np.array([2, 0, 0, 0]))
    assert run.scores.tolist() == [1, 0.9, 0.9, 0.9, 0.9]
    assert (run.times >= 0).all()
    assert seen == [0, 1, 2, 3, 4]


def test_tracker_counts_from_zero_whatever_the_owner_does(tmp_path: Path) -> None:
    write_boxes(tmp_path / "groundtruth.txt", write_frames(tmp_path, 3) + np.array([1, 1, 0, 0]))
    sequence = read_sequence(tmp_path, origin=1)
    tracker = Oracle()
    run = run_sequence(tracker, sequence)
    assert tracker.given == [(10, 8, 16, 12)]
    assert run.boxes == pytest.approx(sequence.boxes)


def test_frame_that_does_not_decode_is_skipped(tmp_path: Path) -> None:
    write_boxes(tmp_path / "groundtruth.txt", write_frames(tmp_path, 4))
    (tmp_path / "00000003.jpg").write_bytes(b"not an image")
    run = run_sequence(Oracle(), read_sequence(tmp_path))
    assert np.isnan(run.times).tolist() == [False, False, True, False]
    assert run.boxes[2].tolist() == run.boxes[1].tolist()
    (tmp_path / "00000001.jpg").write_bytes(b"")
    with pytest.raises(SequenceError, match="first frame does not decode"):
        run_sequence(Oracle(), read_sequence(tmp_path))


def test_arrays_of_other_lengths_are_refused() -> None:
    with pytest.raises(SequenceError, match="2 frames"):
        Sequence("s", (Path("1.jpg"), Path("2.jpg")), np.ones((3, 4)))
