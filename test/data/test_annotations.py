from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from siamcar_ros.data.annotations import (
    SequenceError,
    fit_boxes,
    read_boxes,
    read_flags,
    read_numbers,
    read_rows,
)


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3,4\n5,6,7,8\n",
        "1\t2\t3\t4\r\n5\t6\t7\t8\r\n",
        "1 2  3 4\n5 6 7 8",
        "1;2;3;4\n5, 6, 7, 8",
    ],
)
def test_boxes_in_any_dialect(tmp_path: Path, text: str) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text(text)
    assert read_boxes(path).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_polygons_codes_and_nan(tmp_path: Path) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text("10,20,30,10,40,30,20,45\n10, 20, 30, 10, 40, 30, 20, 45\n1\nnan,nan,nan,nan\n")
    boxes = read_boxes(path)
    assert boxes[:2].tolist() == [[10, 10, 30, 35]] * 2
    assert np.isnan(boxes[2:]).all()


@pytest.mark.parametrize("row", ["0,0,0,0", "-1,-1,-1,-1", "5,6,0,8", "5,6,7,-2", "1,2,inf,4"])
def test_rows_without_an_area_are_absent_targets(tmp_path: Path, row: str) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text(f"1,2,3,4\n{row}\n1,2,3,4\n")
    assert np.isnan(read_boxes(path)).all(axis=1).tolist() == [False, True, False]
    assert not np.isnan(read_rows(path)).any(), "results are read as they are"


def vot_mask(mask: NDArray[np.bool_], x: int, y: int) -> str:
    """The VOT toolkit's text of a mask whose bitmap lies at x, y."""
    changes = np.flatnonzero(np.diff(mask.ravel().astype(int), prepend=0, append=0))
    runs = np.diff(changes, prepend=0, append=mask.size)
    return f"m{x},{y},{mask.shape[1]},{mask.shape[0]}," + ",".join(map(str, runs))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(2, 5), slice(3, 4)),  # one column
        (slice(2, 3), slice(1, 6)),  # one row: one run
        (slice(0, 7), slice(0, 9)),  # all of the bitmap
        (slice(1, 7), slice(0, 9)),  # whole rows, which run into each other
        (slice(0, 1), slice(0, 1)),
    ],
)
def test_vot_masks_give_the_box_around_their_pixels(
    tmp_path: Path, rows: slice, columns: slice
) -> None:
    mask = np.zeros((7, 9), bool)
    mask[rows, columns] = True
    path = tmp_path / "groundtruth.txt"
    path.write_text(vot_mask(mask, 20, 30) + "\n")
    left, top = 20 + columns.start, 30 + rows.start
    size = [columns.stop - columns.start, rows.stop - rows.start]
    assert read_boxes(path).tolist() == [[left, top, *size]]


def test_masks_that_wrap_span_their_bitmap(tmp_path: Path) -> None:
    """Two pixels, the last of a row and the first of the next, are one run."""
    path = tmp_path / "groundtruth.txt"
    path.write_text("m5,6,4,3,3,2\n")
    assert read_boxes(path).tolist() == [[5, 6, 4, 2]]


@pytest.mark.parametrize("row", ["m0,0,1,1,1", "m0,0,8,6,48", "m0,0,0,0", "m5,6,7,8"])
def test_empty_masks_are_absent_targets(tmp_path: Path, row: str) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text(f"{row}\n")
    assert np.isnan(read_boxes(path)).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2,3,4\n1,2,x,4\n", "line 2: not a box"),
        ("1,2,3\n", "line 1: 3 values"),
        ("1,-1,5,6,7,8,1,-1,-1,-1\n", "line 1: 10 values, as in MOT's files"),
        ("1,1,5,6,7,8,1,1,0.8\n", "line 1: 9 values, as in MOT's files"),
        ("204,5;150,2;60,5;80,25\n", "line 1: commas beside other separators"),
        ("204,5 150,2 60,5 80,25\n", "line 1: commas beside other separators"),
        ("m1,2,3,4,5,9\n", "line 1: not a mask: its run lengths do not fit"),
        ("m1,2,3\n", "line 1: not a mask"),
        ("minf,2,3,4,12\n", "line 1: not a mask: a value is too large"),
        ("m1,2,3,4,1e30\n", "line 1: not a mask: a value is too large"),
        ("\n1,2,3,4\n", "line 1 is empty"),
        ("1,2,3,4\n\n \n1,2,3,4\n", "line 2 is empty"),
        ("", "empty"),
    ],
)
def test_what_is_no_annotation_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text(text)
    with pytest.raises(SequenceError, match=reason):
        read_boxes(path)


def images(*numbers: int) -> list[Path]:
    return [Path(f"{number:04d}.jpg") for number in numbers]


def test_too_few_rows_leave_frames_unscored() -> None:
    boxes, annotated, notes = fit_boxes(np.ones((2, 4)), images(1, 2, 3), Path("g.txt"))
    assert np.isnan(boxes[2]).all()
    assert annotated.tolist() == [True, True, False]
    assert notes == ("g.txt: 2 rows for 3 frames; frames from 3 on are not scored",)


def test_extra_rows_are_left_out() -> None:
    boxes, annotated, notes = fit_boxes(np.ones((5, 4)), images(1, 2, 3), Path("g.txt"))
    assert boxes.shape == (3, 4)
    assert annotated.all()
    assert "5 rows for 3 frames" in notes[0]


@pytest.mark.parametrize(
    ("numbers", "rows"),
    [((1, 2, 4, 6), 6), ((1, 2, 4, 6), 8), ((3, 4, 5, 6), 6), ((100, 101, 103), 4)],
)
def test_missing_images_do_not_shift_the_boxes(numbers: tuple[int, ...], rows: int) -> None:
    """The rows are numbered from the first image, or from 1; the last image may be missing."""
    first = 1 if numbers[-1] <= rows else numbers[0]
    truth = np.arange(first, first + rows, dtype=float)[:, None] * np.ones(4)
    boxes, annotated, notes = fit_boxes(truth, images(*numbers), Path("g.txt"))
    assert boxes[:, 0].tolist() == list(numbers)
    assert annotated.all()
    assert re.search(rf"{rows - len(numbers)} images? (is|are) missing", notes[0])


@pytest.mark.parametrize(
    ("numbers", "first"), [((776, 777, 779), 775), ((1, 2, 4), 0), ((1, 2, 3), 0), ((2, 3, 5), 1)]
)
def test_a_known_first_number_tells_the_rows(numbers: tuple[int, ...], first: int) -> None:
    rows = numbers[-1] - first + 3
    truth = np.arange(first, first + rows, dtype=float)[:, None] * np.ones(4)
    boxes, annotated, _ = fit_boxes(truth, images(*numbers), Path("g.txt"), first)
    assert boxes[:, 0].tolist() == list(numbers)
    assert annotated.all()


@pytest.mark.parametrize(
    ("numbers", "rows"),
    [
        ((2, 3, 5), 7),  # they count from 0 or from 1
        ((10, 20, 30), 5),  # not in steps of 1
        ((1, 3, 2), 5),
    ],
)
def test_rows_whose_images_cannot_be_told_are_refused(numbers: tuple[int, ...], rows: int) -> None:
    with pytest.raises(SequenceError, match=rf"{rows} rows for 3 images, whose names do not tell"):
        fit_boxes(np.ones((rows, 4)), images(*numbers), Path("g.txt"))


def test_flags_are_matched_by_number_as_the_boxes_are(tmp_path: Path) -> None:
    path = tmp_path / "flags.txt"
    path.write_text("0\n0\n0\n1\n0\n")
    flags, notes = read_flags(path, images(1, 2, 4))
    assert flags.tolist() == [False, False, True]
    assert "5 flags for 3 frames" in notes[0]


def test_flags_on_one_line_or_many(tmp_path: Path) -> None:
    path = tmp_path / "flags.txt"
    path.write_text("0,1,0")
    assert read_flags(path, images(1, 2, 3))[0].tolist() == [False, True, False]
    path.write_text("0\n8\n1\n")
    flags, notes = read_flags(path, images(1, 2, 3, 4))
    assert flags.tolist() == [False, True, True, False]
    assert "3 flags for 4 frames" in notes[0]
    assert not read_flags(tmp_path / "none.txt", images(1, 2))[0].any()
    path.write_text("\n0\n1\n0\n")
    with pytest.raises(SequenceError, match="line 1 is empty"):
        read_flags(path, images(1, 2, 3))
    path.write_text("0 yes")
    with pytest.raises(SequenceError, match="numbers only"):
        read_numbers(path)
