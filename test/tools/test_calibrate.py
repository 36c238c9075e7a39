"""tools/calibrate.py: the fit, its error, and the file that it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import calibrate
import numpy as np
import pytest
from short_sequence import write_sequence

from siamcar_ros.tracking.calibration import EVIDENCE, Calibration


def test_the_fit_gives_the_chances_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    shown = rng.normal(0, 1, (40_000, len(EVIDENCE)))
    true = {name: float(i % 3 - 1) for i, name in enumerate(EVIDENCE)} | {"constant": 0.5}
    model = Calibration.of({"alone": true})
    assert model is not None
    chance = model.chance(shown, np.zeros(len(shown), bool))
    right = rng.uniform(size=len(shown)) < chance
    same = np.ones(len(right))
    named = calibrate.fits(shown, right, same)
    fitted = Calibration.of(named)
    assert fitted is not None
    found = fitted.chance(shown, np.ones(len(shown), bool))
    assert abs(found - chance).mean() < 0.04
    assert calibrate.calibration_error(found, right) < 0.04
    assert calibrate.calibration_error(np.full(len(right), 0.95), right) > 0.3
    # Without the model learned online its confidence takes no part.
    confidence = list(EVIDENCE).index("confidence")
    shown[:, confidence] = 1
    alone = fitted.chance(shown, np.zeros(len(shown), bool))
    shown[:, confidence] = 5
    assert calibrate.fits(shown, right, same)["alone"] == named["alone"]
    assert alone.mean() == pytest.approx(right.mean(), abs=0.02)


def test_frames_of_no_weight_do_not_count() -> None:
    rng = np.random.default_rng(0)
    shown = rng.normal(0, 1, (4_000, len(EVIDENCE)))
    right = shown[:, 0] > 0
    right[:2000] = ~right[:2000]
    weight = np.repeat((0.0, 1.0), 2000)
    assert calibrate.fit(shown, right, weight)["peak"] > 1
    assert calibrate.fit(shown, right, 1 - weight)["peak"] < -1


def test_one_sequence_cannot_be_judged_by_others(tmp_path: Path) -> None:
    write_sequence(tmp_path / "film" / "a", 3)
    with pytest.raises(ValueError, match="judged by what others show, and there are 1"):
        calibrate.main(["compact", str(tmp_path / "film"), "--output", str(tmp_path / "c.json")])
    command = [sys.executable, calibrate.__file__, "compact", "nowhere"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith("calibrate: error: ")
    assert "nowhere" in done.stderr


@pytest.mark.slow
def test_it_is_written_for_the_weights_and_drawn(tmp_path: Path) -> None:
    for name in "abcde":
        write_sequence(tmp_path / "film" / name, 8)
    output, plot = tmp_path / "out.json", tmp_path / "out.png"
    calibrate.main(
        ["compact", f"{tmp_path / 'film'}=0.5", "--output", str(output), "--plot", str(plot)]
    )
    content = json.loads(output.read_text())
    assert content["frames"] == 35
    assert Calibration.of(content["coefficients"]) is not None
    assert plot.read_bytes().startswith(b"\x89PNG")
