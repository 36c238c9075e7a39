"""tools/figures.py puts measured figures where they belong, and nowhere else."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "tools" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_figures_find_their_place(figures: ModuleType, tmp_path: Path) -> None:
    pages = [tmp_path / page.name for page in figures.PAGES]
    for page, original in zip(pages, figures.PAGES, strict=True):
        page.write_text(original.read_text(encoding="utf-8"), encoding="utf-8")
    trackers = {
        name: {"measures": {"ao": ao}, "sequences": {"one": {"ao": ao}, "two": {"ao": ao}}}
        for name, ao in (("CSRT", 0.4), ("ours", 0.71234))
    }
    (tmp_path / "report.json").write_text(json.dumps({"trackers": trackers}))
    summary = {
        "source": "clip",
        "asked_rate": 30.0,
        "frames": 239,
        "unanswered": 2,
        "latency_ms": {"median": 5.04, "p99": 9.96},
        "overlap_answered": None,
        "overlap_in_hand": None,
        "untouched_at_end": 0,
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    measured = {
        "machine": {"cpu": "a fast one"},
        "tables": [
            {
                "title": "tracker",
                "columns": {"name": "", "fps": "frames/s"},
                "rows": [{"name": "ours", "fps": 321.4}, {"name": "other", "fps": None}],
                "notes": ["measured once"],
            }
        ],
    }
    (tmp_path / "bench.json").write_text(json.dumps(measured))
    arguments = ["--pages", *map(str, pages), "--tracking", str(tmp_path / "report.json")]
    arguments += ["--demo", str(tmp_path / "summary.json"), "--bench", str(tmp_path / "bench.json")]
    for _ in range(2):  # filling again replaces
        assert figures.main(arguments) == 0
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    lines = text.splitlines()
    ours = lines.index("| ours | **0.712** | 0.712 | 0.712 |")
    assert lines[ours + 1] == "| CSRT | **0.400** | 0.400 | 0.400 |"
    assert "| clip | 30 | 239 | 2 | 5.0 | 10.0 |  |  |  |" in lines
    assert "| ours | 321 |" in lines
    assert text.count("Machine: cpu: a fast one.") == 1
    assert text.count("<!-- end of figures -->") == 3


def test_pages_without_marks_are_refused(figures: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a page")
    with pytest.raises(ValueError, match="no page has marks for the figures of 'demo'"):
        figures.fill([page], "demo", "text")
