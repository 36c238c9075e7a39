"""`siamcar bench`: turns, ratios, and the command on the backends of this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from siamcar_ros import cli
from siamcar_ros.speed import measure
from siamcar_ros.speed.measure import Timing, interleave
from siamcar_ros.speed.tables import Table


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(measure.time, "perf_counter", clock.perf_counter)
    return clock


def test_contestants_take_turns(clock: Clock) -> None:
    order: list[str] = []

    def contestant(name: str, seconds: float) -> None:
        order.append(name)
        clock.now += seconds

    timings = interleave(
        {"a": lambda: contestant("a", 0.01), "b": lambda: contestant("b", 0.02)}, seconds=10.0
    )
    assert timings["a"].row() == pytest.approx({"ms": 10, "low": 10, "high": 10, "fps": 100})
    assert timings["b"].median == pytest.approx(0.02)
    assert timings["a"].faster_than(timings["b"]) == pytest.approx(2.0)
    turns = "".join(order)
    assert re.search("a{59,62}b{29,32}a{59,62}b{29,32}", turns)
    assert 10.0 <= clock.now < 12.0


def test_a_slow_contestant_is_called_once_a_turn(clock: Clock) -> None:
    calls = 0

    def slow() -> None:
        nonlocal calls
        calls += 1
        clock.now += 2.0

    timings = interleave({"slow": slow}, seconds=1.0)
    assert timings["slow"].rounds.shape == (3,)
    assert calls <= 6


def test_a_ratio_does_not_mind_a_machine_that_slows_down() -> None:
    drift = np.linspace(1, 5, 50)
    a, b = Timing(0.01 * drift, 0.01 * drift), Timing(0.03 * drift, 0.03 * drift)
    assert a.faster_than(b) == pytest.approx(3.0)


def test_table() -> None:
    table = Table("title", {"name": "", "ms": "ms", "note": "note"}, notes=["a note"])
    table.rows += [{"name": "first", "ms": 1.23456}, {"name": "second", "ms": 12345.6, "note": "x"}]
    lines = table.text().splitlines()
    assert lines[0] == "title"
    assert lines[3].split() == ["first", "1.23"]
    assert lines[4].split() == ["second", "12346", "x"]
    assert lines[-1] == "  a note"
    assert json.loads(json.dumps(table.as_dict()))["rows"][1]["note"] == "x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet18"], "resnet18"),
        (["resnet50"], "no weights ship for resnet50: give a weights file"),
        (["compact", "mobile", "--weights", "some.safetensors"], "--weights needs one network"),
        (["--threads", "0"], "--threads must be above 0, not 0"),
        (["--targets", "-1"], "--targets must be above 0"),
        (["--device", "tpu"], "device is auto"),
        (["--json", "nowhere/bench.json"], "there is no folder"),
    ],
)
def test_bad_arguments_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_every_backend_is_timed_and_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    abilities = [("openvino", "int8"), ("opencv", "fp32"), ("onnxruntime", "int8")]
    monkeypatch.setattr("siamcar_ros.speed.backends.installed_abilities", lambda kind: abilities)
    path = tmp_path / "bench.json"
    words = ["--targets", "2", "--seconds", "0.01", "--json", str(path)]
    assert cli.main(["bench", *words]) == 0
    printed = capsys.readouterr().out
    assert "processor:" in printed
    content = json.loads(path.read_text())
    assert "opencv" in content["machine"]["versions"]
    (table,) = content["tables"]
    assert table["title"] == "compact: 640x480, image to box, 2 targets"
    assert [row["name"] for row in table["rows"]] == [" ".join(each) for each in abilities]
    for row in table["rows"]:
        assert row["overlap"] > 0.7
        assert 0 < row["low"] <= row["ms"] <= row["high"]
        assert {"crop", "network", "decode", "start"} <= row.keys()
        assert row["name"] in printed


@pytest.mark.slow
def test_it_needs_no_inference_library(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    path = tmp_path / "bench.json"
    folders = os.pathsep.join(map(str, (root / "test" / "without_torch", root)))
    command = [sys.executable, "-m", "siamcar_ros.cli", "bench", "--seconds", "0.01"]
    done = subprocess.run(
        [*command, "--json", str(path)],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(path.read_text())["tables"][0]["rows"]
    assert row["name"] == "opencv fp32"
