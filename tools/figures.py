"""Write measured figures into README.md and docs/figures.md, between their marks.

    siamcar evaluate folder sequences --network mobile compact --baseline csrt kcf mil
    siamcar report results/sequences
    make demo && make demo SEQUENCE=sequences/boat1 ARGS="--output demo_output/boat1" ...
    python -m benchmarks tracker --json bench.json
    python tools/figures.py --tracking results/report/report.json --bench bench.json \
        --demo demo_output/summary.json demo_output/boat1/summary.json

Figures that are not given stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siamcar_ros.speed.tables import shown

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "figures.md"]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(shown(cell) for cell in line) + " |" for line in lines)


def tracking(report: dict[str, Any]) -> str:
    """Average overlap by tracker and sequence, from the report.json of `siamcar report`."""
    trackers: dict[str, Any] = report["trackers"]
    names = list(next(iter(trackers.values()))["sequences"])
    rows = [
        [name, f"**{scores['measures']['ao']:.3f}**"]
        + [f"{scores['sequences'][each]['ao']:.3f}" for each in names]
        for name, scores in trackers.items()
    ]
    rows.sort(key=lambda row: row[1], reverse=True)
    return table(["tracker", "mean", *names], rows)


def demo(summaries: Sequence[dict[str, Any]]) -> str:
    """A row per run, from the summary.json of `make demo`."""
    rows = []
    for each in summaries:
        row = [each["source"], f"{each['asked_rate']:g}", each["frames"], each["unanswered"]]
        row += [f"{each['latency_ms'][name]:.1f}" for name in ("median", "p99")]
        if each["overlap_in_hand"] is None:
            row += [None, None, None]
        else:
            lost = each["untouched_at_end"]
            row += [f"{each[name]:.3f}" for name in ("overlap_answered", "overlap_in_hand")]
            row.append(f"lost on the last {lost} frames" if lost > 5 else "to the end")
        rows.append(row)
    head = ["source", "Hz", "frames", "without detection", "publish to detection, median ms"]
    head += ["99th percentile ms", "mean overlap", "overlap in hand", "tracked"]
    return table(head, rows)


def bench(measured: dict[str, Any]) -> str:
    """Every table of `python -m benchmarks --json`, and the machine."""
    machine = ", ".join(f"{key}: {value}" for key, value in measured["machine"].items())
    parts = [f"Machine: {machine}."]
    for each in measured["tables"]:
        columns: dict[str, str] = each["columns"]
        rows = [[row.get(key) for key in columns] for row in each["rows"]]
        parts += [f"**{each['title']}**", table(list(columns.values()), rows)]
        parts += [" ".join(f"{note.rstrip('.')}." for note in each["notes"])]
    return "\n\n".join(parts)


def fill(pages: Sequence[Path], name: str, content: str) -> None:
    """Replace what stands between the marks of `name`, on the page that has them.

    Raises:
        ValueError: no page has such marks.
    """
    marks = re.compile(rf"(<!-- figures: {name} -->\n).*?(<!-- end of figures -->)", re.S)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if marks.search(text):
            filled = marks.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)
            page.write_text(filled, encoding="utf-8")
            return
    raise ValueError(f"no page has marks for the figures of {name!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the files that are given and rewrite their tables."""
    parser = argparse.ArgumentParser(description="write measured figures into the documentation")
    parser.add_argument("--tracking", type=Path, help="report.json of siamcar report")
    parser.add_argument(
        "--demo", type=Path, nargs="+", action="extend", help="summary.json of make demo"
    )
    parser.add_argument("--bench", type=Path, help="JSON of python -m benchmarks")
    parser.add_argument("--pages", type=Path, nargs="+", default=PAGES)
    given = parser.parse_args(arguments)
    if given.tracking:
        fill(given.pages, "tracking", tracking(json.loads(given.tracking.read_text())))
    if given.demo:
        fill(given.pages, "demo", demo([json.loads(path.read_text()) for path in given.demo]))
    if given.bench:
        fill(given.pages, "bench", bench(json.loads(given.bench.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
