"""What is measured, and the command on quick contestants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import peaks
from benchmarks.__main__ import main
from benchmarks.contestants import Film
from benchmarks.peaks import matrix_rate, search_operations
from benchmarks.plots import plot_backbones, plot_growth
from siamcar_ros.model import build_model, save_weights
from siamcar_ros.speed.tables import Table


def test_operations_of_a_network() -> None:
    """AlexNet's first layer alone: 123 x 123 places, 96 kernels of 3 x 11 x 11."""
    model = build_model("alexnet")
    assert search_operations(model) > 2 * 123 * 123 * 96 * 363
    resnet, compact = (search_operations(build_model(n)) for n in ("resnet34", "compact"))
    assert resnet > 10 * compact


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_matrix_product_runs(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peaks.SIDE, "cpu", 64)
    assert matrix_rate(precision, "cpu") > 0


def test_a_film_of_another_size_keeps_its_target() -> None:
    usual, wide, small = Film(2), Film(2, (1280, 720)), Film(2, (320, 240))
    assert wide.images[0].shape == (720, 1280, 3)
    assert wide.boxes == usual.boxes
    assert (wide.images[1][:480, :640] == usual.images[1]).all()
    assert small.boxes[1] == pytest.approx([v / 2 for v in usual.boxes[1]])
    endless = usual.endless()
    shown = [next(endless) for _ in range(5)]
    assert shown[0] is shown[2] is shown[4] is usual.images[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--networks", "resnet18"], "no network configuration is called 'resnet18'"),
        (["--weights", "some.safetensors"], "--weights needs one network"),
        (["--threads", "0"], "--threads must be above 0"),
        (["--device", "tpu"], "device is auto"),
        (["--json", "nowhere/b.json"], "there is no folder"),
    ],
)
def test_the_command_refuses(words: list[str], message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        main(words)


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
        main([*words, "--json", str(tmp_path / "b.json"), "--plots", str(tmp_path / "docs")])
    finally:
        torch.set_num_threads(threads)
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
