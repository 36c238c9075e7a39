"""A short run of `make torture`, and what it calls a failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("siamcar_ros.srv")
torture = pytest.importorskip("torture", reason="psutil is not installed")

pytestmark = [pytest.mark.ros, pytest.mark.slow]
PHASES = ("calls", "raw", "compressed", "transitions", "cameras", "signals", "soak1")


def test_a_short_run_breaks_nothing(config: Path) -> None:
    command = [sys.executable, torture.__file__, "--minutes", "0.05", "--seed", "0"]
    command += ["--config", str(config), "--backend", "torch", "--only", *PHASES]
    command += ["--answer-within", "60"]  # a loaded machine is slow
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    _, head, _, *rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert head == "phase"
    assert rows[:3] == ["service calls", "raw images", "compressed images"]


def test_a_phase_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        torture.main(["--only", "nothing"])
    assert "no phase nothing; there are calls, raw" in capsys.readouterr().err


def test_a_phase_that_ends_early_leaves_the_others_their_rows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise torture.TargetRefused("no image")

    phases = {"bad": refused, "good": lambda: torture.Row("all well")}
    monkeypatch.setattr(torture.Torture, "phases", lambda self: phases)
    assert torture.main([]) == 1
    told = capsys.readouterr().out
    assert "all well" in told
    assert "  bad: no image\nFAILED bad: 1 faults were fatal\n" in told


def test_missed_bars_are_named() -> None:
    row = torture.Row("calls", calls=10, answered=9, longest=2.5, faults=3, survived=2, growth=1.5)
    assert row.problems(2.0) == [
        "calls: 1 calls were not answered",
        "calls: an answer took 2.5 s",
        "calls: 1 faults were fatal",
        "calls: memory grew by 1.50 MB/h",
    ]
    good = torture.Row("soak", faults=1, survived=1, growth=0.4, shown=9, lost=1)
    assert good.problems(2.0) == []
