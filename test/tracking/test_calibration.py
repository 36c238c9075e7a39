"""The calibrated score: what it is made of, and where it is used."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamcar_ros.geometry import context_side
from siamcar_ros.runtime.network import Maps
from siamcar_ros.tracking import SiamCarTracker, TrackerParams
from siamcar_ros.tracking.calibration import EVIDENCE, Calibration, observe
from siamcar_ros.tracking.decode import Grid, decode

BOX = (300.0, 200.0, 40.0, 80.0)
FRAME = (640, 480)


def evidence(
    network: Any, *, center: tuple[float, float] = (320, 240), usual: float = math.nan
) -> dict[str, float]:
    """Of a target of 40 x 80 pixels at `center`, in the maps that the network shows."""
    grid, maps, size = Grid(network.score_size), Maps(*network.maps), np.array([[40.0, 80.0]])
    scale = np.array([127 / context_side(40, 80)])
    decoded = decode(grid, maps, size, scale, TrackerParams(decoder="regressed"))
    row = observe(
        grid, maps, decoded, np.array([center]), size, scale, np.array([usual]), [0.7], FRAME
    )[0]
    return dict(zip(EVIDENCE, row.tolist(), strict=True))


def test_a_clear_target_and_a_doubtful_one(network: Any) -> None:
    scale = 127 / context_side(40, 80)
    size = (40 * scale, 80 * scale)
    network.show(size, logit=6)
    clear = evidence(network, usual=5.0)
    assert clear["peak"] == pytest.approx(6)
    assert clear["strength"] == pytest.approx(2)
    assert clear["quality"] == pytest.approx(3)
    assert clear["growth"] == pytest.approx(0, abs=1e-5)
    assert clear["shift"] == pytest.approx(0, abs=1e-5)
    assert clear["outside"] == pytest.approx(0)
    assert clear["usual"] == 5
    assert clear["confidence"] == 0.7
    assert evidence(network)["usual"] == pytest.approx(6)
    assert evidence(network, center=(0, 240))["outside"] == pytest.approx(0.5)
    network.show((2 * size[0], 2 * size[1]), logit=6)
    assert evidence(network)["growth"] == pytest.approx(math.log(2), abs=1e-5)

    # A look-alike beside it.
    network.show(size, logit=6)
    network.maps[0][0, 1, 2, 2] = 5.5
    rivaled = evidence(network)
    assert rivaled["lead"] == pytest.approx(0.5)
    assert clear["lead"] == 3
    assert clear["margin"] > 3


@given(st.lists(st.tuples(*[st.floats(-20, 20)] * 3), min_size=1, max_size=5), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_a_batch_is_observed_as_each_alone(
    given_maps: Any, shown: list[tuple[float, float, float]], seed: int
) -> None:
    rng, n, s = np.random.default_rng(seed), len(shown), 25
    maps = Maps(
        rng.normal(0, 50, (n, 2, s, s)).astype(np.float32),
        rng.lognormal(3, 3, (n, 4, s, s)).astype(np.float32),
        rng.normal(0, 50, (n, 1, s, s)).astype(np.float32),
    )
    centers, sizes = rng.uniform(-50, 700, (n, 2)), rng.uniform(1, 300, (n, 2))
    scale, usual = rng.uniform(0.1, 5, n), np.array([each[0] for each in shown])
    confidence = [each[1] for each in shown]
    grid, params = Grid(s), TrackerParams(decoder="regressed")
    rows = []
    for part in (slice(None), *(slice(i, i + 1) for i in range(n))):
        some = Maps(*(each[part] for each in maps))
        decoded = decode(grid, some, sizes[part], scale[part], params)
        rows.append(
            observe(
                grid, some, decoded, centers[part], sizes[part], scale[part], usual[part],
                confidence[part], FRAME,
            )
        )  # fmt: skip
    np.testing.assert_array_equal(rows[0], np.concatenate(rows[1:]))
    assert np.isfinite(rows[0]).all()


def test_coefficients_by_name() -> None:
    row = np.zeros((2, len(EVIDENCE)))
    row[:, list(EVIDENCE).index("peak")] = 2
    fitted = Calibration.of({"alone": {"peak": 1}, "online": {"constant": -1}})
    assert fitted is not None
    chance = fitted.chance(row, np.array([False, True]))
    assert chance == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.e)])
    assert Calibration.of(None) is None
    alone = Calibration.of({"alone": {"peak": 1}})
    assert alone is not None
    assert alone.chance(row, np.array([True, False])).tolist() == pytest.approx([chance[0]] * 2)
    with pytest.raises(ValueError, match=r"peek is unknown; .*peak, strength"):
        Calibration.of({"alone": {"peek": 1}})
    with pytest.raises(ValueError, match="offline"):
        Calibration.of({"alone": {}, "offline": {}})


def test_the_score_is_calibrated_where_the_network_is(network: Any) -> None:
    frame = np.zeros((480, 640, 3), np.uint8)
    scale = 127 / context_side(40, 80)
    network.show((40 * scale, 80 * scale), logit=3)
    results = {}
    for calibration, used in ((None, True), ({"alone": {"constant": -1}}, True), ({}, False)):
        network.calibration = calibration or ({"alone": {}} if calibration == {} else None)
        tracker = SiamCarTracker(network, TrackerParams(calibrated=used))
        tracker.init(frame, BOX)
        assert tracker.evidence == ()
        result = tracker.update(frame)
        results[str(calibration)] = result.score
        assert result.raw_score == pytest.approx(1 / (1 + math.exp(-3)), abs=0.01)
        assert len(tracker.evidence) == (len(EVIDENCE) if calibration else 0)
    assert results["None"] == results["{}"] == result.raw_score
    assert results["{'alone': {'constant': -1}}"] == pytest.approx(1 / (1 + math.e))
