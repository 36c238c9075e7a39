from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from siamcar_ros.data.annotations import (
    SequenceError,
    fit_boxes,
    polygon_boxes,
    read_boxes,
    read_flags,
    read_numbers,
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


def test_polygons_masks_codes_and_nan(tmp_path: Path) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text("10,20,30,10,40,30,20,45\nm5,6,7,8,3,2,1\n1\nnan,nan,nan,nan\n")
    boxes = read_boxes(path)
    assert boxes[:2].tolist() == [[10, 10, 30, 35], [5, 6, 7, 8]]
    assert np.isnan(boxes[2:]).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2,3,4\n1,2,x,4\n", "line 2: not a box"),
        ("1,2,3\n", "line 1: 3 values"),
        ("", "empty"),
    ],
)
def test_what_is_no_annotation_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "groundtruth.txt"
    path.write_text(text)
    with pytest.raises(SequenceError, match=reason):
        read_boxes(path)


def test_too_few_rows_leave_frames_unscored() -> None:
    boxes, annotated, notes = fit_boxes(np.ones((2, 4)), 3, Path("g.txt"))
    assert np.isnan(boxes[2]).all()
    assert annotated.tolist() == [True, True, False]
    assert notes == ("g.txt: 2 rows for 3 frames; from frame 3 on none is scored",)


def test_extra_rows_are_left_out() -> None:
    boxes, annotated, notes = fit_boxes(np.ones((5, 4)), 3, Path("g.txt"))
    assert boxes.shape == (3, 4)
    assert annotated.all()
    assert "5 rows for 3 frames" in notes[0]


def test_flags_on_one_line_or_many(tmp_path: Path) -> None:
    path = tmp_path / "flags.txt"
    path.write_text("0,1,0")
    assert read_flags(path, 3)[0].tolist() == [False, True, False]
    path.write_text("0\n8\n1\n")
    flags, notes = read_flags(path, 4)
    assert flags.tolist() == [False, True, True, False]
    assert "3 flags for 4 frames" in notes[0]
    assert not read_flags(tmp_path / "none.txt", 2)[0].any()
    path.write_text("0 yes")
    with pytest.raises(SequenceError, match="numbers only"):
        read_numbers(path)


def test_box_around_a_polygon() -> None:
    assert polygon_boxes([[0, 5, 10, 0, 12, 9]]).tolist() == [[0, 0, 12, 9]]
