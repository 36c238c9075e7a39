from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from siamcar_ros.evaluation import metrics


def test_overlap_by_hand() -> None:
    truth = [[0, 0, 10, 10]] * 6
    boxes = [
        [0, 0, 10, 10],  # the same
        [5, 0, 10, 10],  # half shared: 50 / 150
        [0, 0, 5, 10],  # half as wide: 50 / 100
        [2, 2, 5, 5],  # inside: 25 / 100
        [10, 0, 10, 10],  # touching: nothing shared
        [30, 30, 1, 1],
    ]
    assert metrics.iou(boxes, truth) == pytest.approx([1, 1 / 3, 0.5, 0.25, 0, 0])


def test_overlap_of_odd_boxes() -> None:
    nan = float("nan")
    truth: list[list[float]] = [[0, 0, 10, 10], [nan] * 4, [0, 0, 0, 0], [0, 0, 10, 10]]
    found: list[list[float]] = [[nan, 0, 10, 10], [0, 0, 10, 10], [0, 0, 0, 0], [10, 10, -10, -10]]
    assert metrics.iou(found, truth) == pytest.approx([0, nan, 0, 0], nan_ok=True)


def test_overlap_cut_to_the_image() -> None:
    # Image 100 x 50. Both boxes lose what lies beyond the right border: 10 of 20 and 10 of 30.
    truth, box = [[90, 0, 20, 10]], [[90, 0, 30, 10]]
    assert metrics.iou(box, truth) == pytest.approx([2 / 3])
    assert metrics.iou(box, truth, bound=(100, 50)) == pytest.approx([1])
    # GOT-10k moves a box that starts outside.
    truth, boxes = [[0, 0, 50, 50]] * 2, [[-500, -500, 50, 50], [-25, 0, 50, 50]]
    bound = (100, 100)
    assert metrics.iou(boxes, truth, bound=bound) == pytest.approx([0, 0.5])
    assert metrics.iou(boxes, truth, bound=bound, keep_size=True) == pytest.approx([1, 1])


def test_center_error_by_hand() -> None:
    truth = [[0, 0, 10, 20], [0, 0, 10, 20]]
    boxes = [[3, 4, 10, 20], [0, 0, 20, 40]]
    assert metrics.center_error(boxes, truth) == pytest.approx([5, np.hypot(5, 10)])
    assert metrics.center_error(boxes, truth, normalized=True) == pytest.approx(
        [np.hypot(0.3, 0.2), np.hypot(0.5, 0.5)]
    )


def test_center_error_of_odd_boxes() -> None:
    nan = float("nan")
    here, nowhere = [0.0, 0, 1, 1], [nan] * 4
    errors = metrics.center_error([nowhere, here], [here, nowhere])
    assert errors[0] == np.inf
    assert np.isnan(errors[1])


def test_success_is_strictly_above_its_threshold() -> None:
    curve = metrics.success_curve([0.0, 0.5, 1.0], np.linspace(0, 1, 21))
    assert len(curve) == 21
    assert curve[0] == pytest.approx(2 / 3)  # 0 is not above 0
    assert curve[9] == pytest.approx(2 / 3)  # 0.45
    assert curve[10] == pytest.approx(1 / 3)  # 0.5 is not above 0.5
    assert curve[20] == 0


def test_precision_includes_its_threshold() -> None:
    curve = metrics.precision_curve([0.0, 20.0, 50.5, np.inf])
    assert len(curve) == 51
    assert curve[0] == 0.25
    assert curve[19] == 0.25
    assert curve[20] == 0.5
    assert curve[50] == 0.5


def test_speed_is_the_mean_of_the_rates() -> None:
    assert metrics.frame_rates([[0.1, 0.2], [0.0, np.nan]]) == pytest.approx([10, 5])
    assert len(metrics.frame_rates([])) == 0


@pytest.mark.parametrize("shape", [(4,), (2, 3), (3, 4)])
def test_arrays_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        metrics.iou(np.zeros(shape), np.zeros((2, 4)))


@st.composite
def boxes(draw: st.DrawFn) -> NDArray[np.float64]:
    """(7, 4) boxes; those with a size are at least a quarter of a pixel wide and high."""
    rows = st.tuples(
        st.integers(-200, 200), st.integers(-200, 200), st.integers(0, 200), st.integers(0, 200)
    )
    return np.array(draw(st.lists(rows, min_size=7, max_size=7)), float) / 4


@settings(deadline=None)
@given(boxes(), boxes())
def test_overlap_is_symmetric_and_within_bounds(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> None:
    overlap = metrics.iou(a, b)
    assert overlap == pytest.approx(metrics.iou(b, a))
    assert ((overlap >= 0) & (overlap <= 1)).all()
    shift = np.array([3.0, -7.0, 0, 0])
    assert overlap == pytest.approx(metrics.iou(a + shift, b + shift), abs=1e-6)


@settings(deadline=None)
@given(boxes(), boxes())
def test_overlap_is_that_of_the_got10k_toolkit(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> None:
    toolkit = pytest.importorskip("got10k.utils.metrics")
    assert metrics.iou(a, b) == pytest.approx(toolkit.rect_iou(a, b), abs=1e-9)
    assert metrics.center_error(a, b) == pytest.approx(toolkit.center_error(a, b), abs=1e-9)
    bound = (40, 30)
    # The toolkit cuts the arrays that it is given.
    expected = toolkit.rect_iou(a.copy(), b.copy(), bound=bound)
    assert metrics.iou(a, b, bound=bound, keep_size=True) == pytest.approx(expected, abs=1e-9)


def test_inflated_boxes() -> None:
    truth = [(100.0, 100, 40, 20)] * 6 + [(np.nan,) * 4]
    boxes = [
        (100.0, 100, 40, 20),  # exact
        (90, 90, 60, 40),  # 3 times the area around the target, overlap 1/3
        (100, 100, 40, 34),  # 1.7 times the area exactly
        (122, 90, 80, 60),  # large, but beside the center
        (99, 95, 42, 33),  # 1.73 times the area, overlap 0.577
        (np.nan,) * 4,
        (90, 90, 60, 40),  # no target
    ]
    assert metrics.inflated(boxes, truth).tolist() == [False, True, *[False] * 5]
