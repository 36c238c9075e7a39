from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from moving_square import write_sequences

from siamcar_ros.cli import main
from siamcar_ros.evaluation.comparison import compare, format_table
from siamcar_ros.evaluation.report import plots, write_report
from siamcar_ros.evaluation.report.page import differing_settings
from siamcar_ros.evaluation.report.strips import choose_frames, describe_losses, worst_strips
from siamcar_ros.evaluation.results import TrackerResults


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `siamcar report` wrote."""
    place = tmp_path_factory.mktemp("report")
    results = write_results(place)
    arguments = ["--output", str(place / "out"), "--focus", "Lost", "--worst", "2"]
    assert main(["report", str(results), *arguments]) == 0
    return place / "out"


def write_results(folder: Path) -> Path:
    """Three trackers on sequences a, b and c: exact, 8 pixels off (overlap 1/3), lost in b."""
    root = write_sequences(folder / "data")
    for i, name in enumerate("abc"):
        tags = ("occlusion", "motion", "size")[: i + 1]
        for tag in tags:
            (root / name / f"{tag}.tag").write_text("1\n" * 8)
    place = folder / "results" / "data"
    for tracker in ("Exact", "Off", "Lost"):
        (place / tracker).mkdir(parents=True)
        results = TrackerResults(place / tracker, "otb")
        facts: dict[str, Any] = {"benchmark": "folder", "root": str(root)}
        if tracker == "Off":
            ran = {"kind": "siamcar", "backend": "openvino", "precision": "int8"}
            facts |= {"tracker": ran, "processor": "Chip 5000", "workers": 2}
        results.write_run_file(facts)
        for name in "abc":
            boxes = np.loadtxt(root / name / "groundtruth.txt", delimiter=",")
            if tracker == "Off":
                boxes[:, 0] += 8
            if tracker == "Lost" and name == "b":
                boxes[4:] = (70, 50, 16, 12)
            np.savetxt(results.boxes_path(name), boxes, delimiter=",")
    return place


def test_trackers_are_ranked_by_the_headline(results: Path) -> None:
    comparison = compare([results])
    assert [t.tracker for t in comparison.trackers] == ["Exact", "Lost", "Off"]
    measures = {t.tracker: t.measures for t in comparison.trackers}
    assert measures["Exact"]["ao"] == pytest.approx(1)
    assert measures["Off"]["ao"] == pytest.approx(1 / 3)
    assert measures["Lost"]["ao"] == pytest.approx((2 + 3 / 8) / 3)
    assert format_table(comparison).splitlines()[0] == "data: 3 sequences"


def test_attributes_are_means_over_their_sequences(results: Path) -> None:
    table = compare([results]).by_attribute
    assert table["size"]["Lost"].measures["ao"] == pytest.approx(1)  # c only
    assert table["motion"]["Lost"].measures["ao"] == pytest.approx((3 / 8 + 1) / 2)  # b and c


def test_sequences_without_a_result_are_left_out_for_all(results: Path) -> None:
    (results / "Off" / "b.txt").unlink()
    comparison = compare([results])
    assert list(comparison.sequences) == ["a", "c"]
    assert all(len(t.sequences) == 2 for t in comparison.trackers)
    assert any(problem.startswith("Off, b left out: no result") for problem in comparison.problems)


def test_results_of_others_stand_beside_ours(results: Path) -> None:
    (results / "Off" / "run.json").unlink()
    comparison = compare([results / "Exact", results / "Off"])
    assert {t.tracker for t in comparison.trackers} == {"Exact", "Off"}


def test_what_cannot_be_compared_is_told(results: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no result folder"):
        compare([tmp_path / "nothing"])
    (results / "Off" / "run.json").write_text(json.dumps({"benchmark": "otb100", "root": "/x"}))
    with pytest.raises(ValueError, match=r"differ in their benchmark .*give --dataset"):
        compare([results])
    (results / "Off" / "run.json").unlink()
    with pytest.raises(ValueError, match=r"no run\.json in .* names the benchmark"):
        compare([results / "Off"])
    for path in (results / "Exact").glob("*.txt"):
        path.unlink()
    with pytest.raises(ValueError, match="no sequence has results of every tracker"):
        compare([results / "Exact"])


def test_a_tracker_without_results_does_not_hide_the_others(results: Path) -> None:
    """A run.json alone, as an interrupted run leaves it, and results of other sequences."""
    for path in (results / "Exact").glob("*.txt"):
        path.unlink()
    (results / "Off" / "a.txt").unlink()
    comparison = compare([results])
    assert [t.tracker for t in comparison.trackers] == ["Lost", "Off"]
    assert list(comparison.sequences) == ["b", "c"]
    (told,) = [p for p in comparison.problems if p.startswith("Exact")]
    assert told.startswith("Exact left out: no result in ")


def test_report_is_one_page_that_needs_no_other_file(report: Path) -> None:
    page = (report / "report.html").read_text()
    sources = re.findall(r'src="([^"]*)"', page)
    # Five curves, the radar, the differences, and per strip its frames and its overlaps.
    assert len(sources) == 5 + 1 + 1 + 2 * (5 + 1)
    for source in sources:
        data = base64.b64decode(source.partition(",")[2])
        assert np.std(decoded(data)) > 0
    assert "http" not in page
    assert "<script" not in page
    assert "lost at frame 5 of 9 and not found again" in page
    assert page.count("openvino int8 on Chip 5000, 2 processes at a time") == 1
    assert decoded((report / "report.png").read_bytes()).shape[1] > 1000


def test_an_unknown_value_hides_no_best_one(results: Path, tmp_path: Path) -> None:
    times = TrackerResults(results / "Off", "otb").beside("a", "time")
    times.parent.mkdir()
    np.savetxt(times, np.full(8, 0.1))
    write_report(compare([results]), tmp_path / "out", worst=0)
    assert '<td class="best">10.0</td>' in (tmp_path / "out" / "report.html").read_text()


def decoded(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_json_holds_the_numbers(report: Path) -> None:
    off = json.loads((report / "report.json").read_text())["trackers"]["Off"]
    assert off["run"]["processor"] == "Chip 5000"
    assert off["measures"]["ao"] == pytest.approx(1 / 3, abs=1e-6)
    assert off["measures"]["fps"] is None  # no times: not a number has no place in JSON
    assert off["sequences"]["b"]["frames"] == 8
    assert off["success_curve"] == [1] * 34 + [0] * 67
    assert off["by_attribute"]["size"]["ao"] == pytest.approx(1 / 3, abs=1e-6)


def test_one_tracker_without_attributes_makes_a_report(results: Path, tmp_path: Path) -> None:
    for tag in (tmp_path / "data").rglob("*.tag"):
        tag.unlink()
    write_report(compare([results / "Off"]), tmp_path / "out")
    assert "by attribute" not in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(ValueError, match="no tracker 'Best' among Off"):
        write_report(compare([results / "Off"]), tmp_path / "out", focus="Best")


def test_strips_show_the_worst_sequence_first(results: Path) -> None:
    comparison = compare([results])
    lost = next(t for t in comparison.trackers if t.tracker == "Lost")
    first, second = worst_strips(comparison, lost, 2)
    assert first.sequence == "b"
    assert first.ao == pytest.approx(3 / 8)
    assert second.caption == "never lost"
    assert [tile.shape for tile in first.tiles] == [(270, 360, 3)] * 5


def test_lost_is_said_only_where_it_stays_lost() -> None:
    nan = float("nan")
    for overlaps, told in (
        ([nan, 0.9, 0.0, 0.0, nan, 0.9], "missed once and found again, 2 of 6 frames"),
        ([nan, 0.0, 0.9, 0.0, 0.9, 0.9], "missed 2 times and found again, 2 of 6 frames"),
        ([nan, 0.9, 0.0, 0.9, 0.0, nan], "lost at frame 5 of 6 and not found again"),
        ([nan, 0.9, 0.2, 0.9, 0.9, nan], "never lost"),
    ):
        assert describe_losses(np.array(overlaps)) == told


def test_the_number_in_the_legend_is_the_area_under_the_curve(results: Path) -> None:
    """The overlaps lie between the thresholds; AO, not their mean at thresholds, is named."""
    comparison = compare([results])
    for tracker in comparison.trackers:
        x = comparison.benchmark.protocol.thresholds
        area = float(np.sum((tracker.success[1:] + tracker.success[:-1]) / 2 * np.diff(x)))
        assert area == pytest.approx(tracker.measures["ao"], abs=0.006)


@pytest.mark.parametrize("kind", ["success", "precision", "normalized", "tracking"])
def test_legends_cover_no_curve(results: Path, kind: str) -> None:
    comparison = compare([results])
    figure = plots.figure(comparison, comparison.trackers[0], kind)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    assert box.y1 < axes.xaxis.label.get_window_extent().y0
    assert box.y0 >= 0


def test_two_runs_of_one_tracker_stand_beside_each_other(results: Path, tmp_path: Path) -> None:
    """On one page, named by where their paths part; what differs between the runs is listed."""
    again = tmp_path / "later" / "data" / "Off"
    shutil.copytree(results / "Off", again)
    facts = json.loads((again / "run.json").read_text())
    facts["tracker"]["settings"] = {"lr": 0.5}
    facts["tracker"]["precision"] = "fp32"
    (again / "run.json").write_text(json.dumps(facts))
    comparison = compare([results / "Off", again])
    assert [t.tracker for t in comparison.trackers] == ["results/data/Off", "later/data/Off"]
    differing = differing_settings(comparison)
    assert differing == {"precision": ["int8", "fp32"], "lr": ["–", "0.5"]}
    write_report(comparison, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What differs between the runs" in page
    with pytest.raises(ValueError, match="given twice"):
        compare([results / "Off", results / "Off"])


@pytest.mark.slow
def test_the_page_fits_a_phone(report: Path, tmp_path: Path) -> None:
    """In a frame 390 pixels wide nothing but the tables and timelines scrolls sideways."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    page = html.escape((report / "report.html").read_text())
    frame = f'<iframe width="390" srcdoc="{page}"></iframe>'
    measure = "document.title = document.querySelector('iframe').contentDocument.body.scrollWidth"
    (tmp_path / "frame.html").write_text(f"{frame}<script>onload = () => {measure}</script>")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    found = subprocess.run(
        [*command, f"--user-data-dir={tmp_path}/profile", f"file://{tmp_path}/frame.html"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    widths = re.findall(r"<title>(\d+)</title>", found.stdout)
    assert len(widths) == 1
    assert 300 < int(widths[0]) <= 390


def test_frames_of_a_strip() -> None:
    overlaps = np.array([np.nan, 0.9, 0.8, 0.7, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    frames = choose_frames(overlaps, 5)
    assert frames[:3] == [0, 3, 4]
    assert len(frames) == 5
    kept = np.array([np.nan, 0.9, 0.5, 0.9, 0.4, 0.9, 0.3, 0.9, 0.9, 0.2, 0.9])
    assert choose_frames(kept, 5) == [0, 2, 4, 6, 9]
    assert choose_frames(kept[:3], 5) == [0, 1, 2]
    assert choose_frames(np.full(40, np.nan), 5)[0] == 0
