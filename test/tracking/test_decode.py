"""What all decoders must do whatever the maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from siamcar_ros.runtime import Maps
from siamcar_ros.tracking import DECODERS, Decoded, TrackerParams, register_decoder
from siamcar_ros.tracking.decode import Grid, decode, foreground, normalized

SIZE = np.array([[40.0, 80.0]])
SCALE = np.array([1.25])
decoders = pytest.mark.parametrize("name", DECODERS)


def random_maps(seed: int, batch: int = 1, s: int = 25) -> Maps:
    rng = np.random.default_rng(seed)
    return Maps(
        rng.normal(0, 3, (batch, 2, s, s)).astype(np.float32),
        np.exp(rng.normal(3, 1, (batch, 4, s, s))).astype(np.float32),
        rng.normal(0, 3, (batch, 1, s, s)).astype(np.float32),
    )


def peak(row: float, column: float, distances: Any, s: int = 25) -> Maps:
    y, x = np.indices((s, s))
    bump = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 6.0)
    reg = np.broadcast_to(np.array(distances)[:, None, None], (4, s, s))
    cls = np.stack((np.zeros((s, s)), 12 * bump - 6))
    return Maps(
        cls[None].astype(np.float32),
        reg[None].astype(np.float32),
        (3 * bump)[None, None].astype(np.float32),
    )


@decoders
@given(
    seed=st.integers(0, 2**32 - 1),
    extreme=st.sampled_from([1.0, 1e3, 1e6]),
    penalty_k=st.sampled_from([0.0, 0.04, 10.0]),
    lr=st.sampled_from([0.0, 0.3, 1.0]),
)
@example(seed=15, extreme=1.0, penalty_k=0.0, lr=1.0)
@settings(max_examples=60, deadline=None)
def test_any_finite_maps_give_a_score_in_0_1_and_a_positive_size(
    name: str, seed: int, extreme: float, penalty_k: float, lr: float
) -> None:
    maps = random_maps(seed)
    maps = Maps(maps.cls * extreme, maps.reg * extreme, maps.cen * extreme)
    params = TrackerParams(decoder=name, penalty_k=penalty_k, lr=lr)
    decoded = decode(Grid(25), maps, SIZE, SCALE, params)
    assert 0 <= decoded.score[0] <= 1
    assert (decoded.size > 0).all()
    assert np.isfinite(decoded.shift).all()


@decoders
def test_an_infinite_distance_elsewhere_changes_nothing(name: str) -> None:
    maps = peak(12, 12, (25, 50, 25, 50))
    wild = Maps(maps.cls, maps.reg.copy(), maps.cen)
    wild.reg[..., 20:, 20:] = np.inf
    results = [decode(Grid(25), m, SIZE, SCALE, TrackerParams(decoder=name)) for m in (maps, wild)]
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@decoders
@given(row=st.integers(3, 21), column=st.integers(3, 21))
@settings(max_examples=40, deadline=None)
def test_a_target_some_cells_away_moves_the_box_by_so_many_strides(
    name: str, row: int, column: int
) -> None:
    params = TrackerParams(decoder=name, window_influence=0.0)
    decoded = decode(Grid(25), peak(row, column, (25, 50, 25, 50)), SIZE, SCALE, params)
    moved = decoded.shift[0] * SCALE[0]
    # Enlarging stretches the map a little; the paper's three neighbors stand to one side.
    assert moved == pytest.approx([8 * (column - 12), 8 * (row - 12)], abs=9)


@decoders
@given(lower=st.floats(5, 60), factor=st.floats(1.05, 3.0), probability_row=st.integers(8, 16))
@settings(max_examples=40, deadline=None)
def test_longer_distances_give_a_larger_box(
    name: str, lower: float, factor: float, probability_row: int
) -> None:
    params = TrackerParams(decoder=name, penalty_k=0.0)
    small, large = (
        decode(Grid(25), peak(probability_row, 12, (d, 2 * d, d, 2 * d)), SIZE, SCALE, params)
        for d in (lower, lower * factor)
    )
    assert (large.size > small.size).all()


@decoders
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_mirrored_maps_give_the_mirrored_box(name: str, seed: int) -> None:
    maps = random_maps(seed)
    mirrored = Maps(
        maps.cls[..., ::-1].copy(), maps.reg[:, [2, 1, 0, 3], :, ::-1].copy(), maps.cen[..., ::-1]
    )
    # Enlarging reckons with float32 weights, so an exact tie of two samples may fall either way.
    params = TrackerParams(decoder=name, window_influence=0.0)
    one = decode(Grid(25), maps, SIZE, SCALE, params)
    other = decode(Grid(25), mirrored, SIZE, SCALE, params)
    if name != "paper":
        assert other.shift[0] == pytest.approx(one.shift[0] * [-1, 1], abs=8.1 / SCALE[0])
    else:
        assert other.shift[0] == pytest.approx(one.shift[0] * [-1, 1], abs=1e-6)
        assert other.size[0] == pytest.approx(one.size[0], rel=1e-6)


@decoders
@pytest.mark.parametrize("s", [17, 25])
def test_targets_decoded_together_are_as_alone(name: str, s: int) -> None:
    maps, grid, params = random_maps(3, 5, s), Grid(s), TrackerParams(decoder=name)
    size, scale = np.linspace(8, 200, 10).reshape(5, 2), np.linspace(0.3, 6, 5)
    together = decode(grid, maps, size, scale, params)
    for i in range(5):
        alone = decode(
            grid,
            Maps(*(part[i : i + 1] for part in maps)),
            size[i : i + 1],
            scale[i : i + 1],
            params,
        )
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], all_[i], rtol=1e-12)


@pytest.mark.parametrize("s", [17, 25])
@given(seed=st.integers(0, 2**32 - 1), influence=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_paper_is_equation_9_and_three_of_eight_neighbours(
    s: int, seed: int, influence: float
) -> None:
    maps = random_maps(seed, 1, s)
    params = TrackerParams(decoder="paper", penalty_k=0.1, window_influence=influence)
    decoded = decode(Grid(s), maps, SIZE, SCALE, params)
    shift, size, score = equation_9(maps, params, s)
    np.testing.assert_allclose(decoded.shift[0], shift, atol=1e-6)
    np.testing.assert_allclose(decoded.size[0], size, rtol=1e-6)
    assert decoded.score[0] == pytest.approx(score, rel=1e-6)


def equation_9(maps: Maps, params: TrackerParams, s: int) -> tuple[Any, Any, float]:
    """Section 3.3 of the paper, cell by cell."""
    cls, reg = maps.cls[0].astype(float), maps.reg[0].astype(float)
    last_w, last_h = SIZE[0] * SCALE[0]

    def side(w: float, h: float) -> float:
        p = (w + h) / 2
        return float(np.sqrt((w + p) * (h + p)))

    probability, ranked = np.zeros((s, s)), np.zeros((s, s))
    for i in range(s):
        for j in range(s):
            left, top, right, bottom = reg[:, i, j]
            w, h = left + right, top + bottom
            r = max((last_w / last_h) / (w / h), (w / h) / (last_w / last_h))
            z = max(side(w, h) / side(last_w, last_h), side(last_w, last_h) / side(w, h))
            probability[i, j] = 1 / (1 + np.exp(cls[0, i, j] - cls[1, i, j]))
            ranked[i, j] = probability[i, j] * np.exp(-(r * z - 1) * params.penalty_k)
    cosine = np.outer(np.hanning(s), np.hanning(s))
    windowed = (1 - params.window_influence) * ranked + params.window_influence * cosine
    qi, qj = np.unravel_index(windowed.argmax(), (s, s))
    around = [
        (int(qi + a), int(qj + b))
        for a in (-1, 0, 1)
        for b in (-1, 0, 1)
        if (a or b) and 0 <= qi + a < s and 0 <= qj + b < s
    ]
    best = sorted(around, key=lambda cell: ranked[cell], reverse=True)[:3]
    boxes, weights = [], []
    for i, j in best:
        left, top, right, bottom = reg[:, i, j]
        x, y = 8 * (j - (s - 1) / 2), 8 * (i - (s - 1) / 2)
        boxes.append((x - left, y - top, x + right, y + bottom))
        weights.append(ranked[i, j])
    x1, y1, x2, y2 = np.average(boxes, axis=0, weights=weights) / SCALE[0]
    return ((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1), float(probability[qi, qj])


@decoders
def test_a_constant_centerness_map_says_nothing(name: str) -> None:
    maps = peak(14, 10, (25, 50, 25, 50))
    flat = Maps(maps.cls, maps.reg, np.full_like(maps.cen, 3.0))
    params = TrackerParams(decoder=name, window_influence=0.0)
    decoded = decode(Grid(25), flat, SIZE, SCALE, params)
    assert decoded.shift[0] * SCALE[0] == pytest.approx([-16, 16], abs=9)


def test_centerness_is_stretched_to_0_1_over_each_map() -> None:
    cen = np.stack((np.linspace(-5, 3, 25), np.linspace(2, 90, 25))).reshape(2, 5, 5)
    stretched = normalized(cen.astype(np.float32))
    expected = np.linspace(0, 1, 25).reshape(5, 5)
    np.testing.assert_allclose(stretched, np.stack((expected, expected)), atol=1e-6)


def test_foreground_does_not_overflow() -> None:
    cls = np.zeros((1, 2, 1, 3), np.float32)
    cls[0, 1] = [-1e30, 0, 1e30]
    np.testing.assert_array_equal(foreground(cls)[0, 0], [0, 0.5, 1])


@given(boost=st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_the_window_draws_towards_the_middle(boost: float) -> None:
    near, far = peak(12, 12, (25, 50, 25, 50)), peak(12, 21, (25, 50, 25, 50))
    both: NDArray[np.float32] = np.maximum(near.cls * (0.6 + 0.2 * boost), far.cls)
    maps = Maps(both, near.reg, np.zeros_like(near.cen))
    shifts = [
        decode(
            Grid(25), maps, SIZE, SCALE, TrackerParams(decoder="paper", window_influence=w)
        ).shift
        for w in (0.0, 0.5)
    ]
    assert shifts[0][0, 0] * SCALE[0] > 60
    assert abs(shifts[1][0, 0] * SCALE[0]) < 10


def test_a_map_of_a_few_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="3x3"):
        Grid(2)


def test_a_decoder_is_a_function_by_name() -> None:
    maps = random_maps(4, 1, 25)
    with pytest.raises(ValueError, match="decoder is one of upsampled, paper, regressed, not 'm"):
        TrackerParams(decoder="mine")
    with pytest.raises(ValueError, match="'paper' is registered already"):
        register_decoder("paper")

    @register_decoder("mine")
    def mine(grid: Grid, maps: Maps, size: Any, scale: Any, params: TrackerParams) -> Decoded:
        return Decoded(np.ones((len(size), 2)), size * 2, np.full(len(size), 0.5))

    try:
        decoded = decode(Grid(25), maps, SIZE, SCALE, TrackerParams(decoder="mine"))
    finally:
        del DECODERS["mine"]
    np.testing.assert_array_equal(decoded.size, SIZE * 2)
