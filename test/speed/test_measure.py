"""Taking turns, ratios, tables, and the command on quick contestants."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from siamcar_ros.commands import bench
from siamcar_ros.model import build_model, save_weights
from siamcar_ros.speed import measure, peaks
from siamcar_ros.speed.contestants import Film, Seen, box_change, seen_by
from siamcar_ros.speed.measure import Timing, interleave
from siamcar_ros.speed.peaks import matrix_multiply, search_operations
from siamcar_ros.speed.plots import plot_backbones, plot_growth
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
    assert timings["a"].median == pytest.approx(0.01)
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


def test_operations_of_a_network() -> None:
    """AlexNet's first layer alone: 123 x 123 places, 96 kernels of 3 x 11 x 11."""
    model = build_model("alexnet")
    assert search_operations(model) > 2 * 123 * 123 * 96 * 363
    resnet, compact = (search_operations(build_model(n)) for n in ("resnet34", "compact"))
    assert resnet > 10 * compact


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_matrix_product_runs(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peaks.SIDE, "cpu", 64)
    call, operations = matrix_multiply(precision, "cpu")
    call()
    assert operations == 2 * 64**3


def test_box_change() -> None:
    corners = np.zeros((3, 625, 4))
    moved = corners.copy()
    moved[0, 7] = (0, 0.5, 0, -2.0)
    best = np.array([7, 7, 7])
    reference, other = Seen(best, corners), Seen(np.array([7, 8, 7]), moved)
    median, most, same = box_change(reference, other)
    assert (median, most) == (0.0, 2.0)
    assert same == pytest.approx(2 / 3)


def test_a_network_sees_what_it_sees() -> None:
    torch.manual_seed(0)
    model = build_model("compact").eval()
    film = Film(3)
    seen = seen_by(model, film.pairs(model.offset, model.score_size))
    assert seen.best.shape == (2,)
    assert seen.corners.shape == (2, 625, 4)
    assert (seen.corners[:, :, :2] < 0).all()
    assert box_change(seen, seen) == (0.0, 0.0, 1.0)


def test_a_film_of_another_size_keeps_its_target() -> None:
    usual, wide, small = Film(2), Film(2, (1280, 720)), Film(2, (320, 240))
    assert wide.images[0].shape == (720, 1280, 3)
    assert wide.boxes == usual.boxes
    assert (wide.images[1][:480, :640] == usual.images[1]).all()
    assert small.boxes[1] == pytest.approx([v / 2 for v in usual.boxes[1]])
    endless = usual.endless()
    shown = [next(endless) for _ in range(5)]
    assert shown[0] is shown[2] is shown[4] is usual.images[0]


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(list(words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--networks", "resnet18"], "no network resnet18"),
        (["--weights", "some.safetensors"], "--weights needs one network"),
        (["tracker", "--nanotrack-head", "head.onnx"], "needs both"),
        (["--threads", "0"], "at least 1"),
        (["--device", "tpu"], "device is auto"),
    ],
)
def test_the_command_refuses(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench.run(_arguments(*words))


def test_the_command_measures_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.manual_seed(0)
    weights = tmp_path / "compact.safetensors"
    save_weights(build_model("compact"), weights, {})
    words = ["sizes", "--networks", "compact", "--weights", str(weights), "--seconds", "0.01"]
    threads = torch.get_num_threads()
    try:
        status = bench.run(
            _arguments(
                *words, "--json", str(tmp_path / "b.json"), "--plots", str(tmp_path / "docs")
            )
        )
    finally:
        torch.set_num_threads(threads)
    assert status == 0
    printed = capsys.readouterr().out
    assert "processor:" in printed
    assert "1920x1080 ours" in printed
    content = json.loads((tmp_path / "b.json").read_text())
    assert "torch" in content["machine"]["versions"]
    (table,) = content["tables"]
    assert table["what"] == "sizes"
    assert all(row["ms"] > 0 for row in table["rows"])
    assert (tmp_path / "docs" / "speed-sizes.png").stat().st_size > 5000


def test_pictures(tmp_path: Path) -> None:
    rows = [
        {"name": f"x, {n}", "n": n, "line": "x", "ms": 2.0 * n, "low": n, "high": 3.0 * n}
        for n in (1, 2, 4)
    ]
    table = Table("network: compact, one", {"name": ""}, rows)
    plot_growth(table, "n", "targets", "line", tmp_path / "growth.png")
    plot_backbones([table], tmp_path / "backbones.png")
    for name in ("growth.png", "backbones.png"):
        assert (tmp_path / name).stat().st_size > 3000
