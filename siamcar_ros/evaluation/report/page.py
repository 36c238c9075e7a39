"""The report's files: one HTML page that needs no other file, a PNG sheet, JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siamcar_ros import __version__
from siamcar_ros.evaluation.comparison import Comparison, format_measure, measure_order
from siamcar_ros.evaluation.protocols import MEASURES, TrackerScore
from siamcar_ros.evaluation.report import plots
from siamcar_ros.evaluation.report.strips import worst_strips
from siamcar_ros.geometry import Image

_CSS = """
:root { --ink: #202124; --soft: #5f6368; --line: #e3e6ea; --tint: #f6f8fa; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1160px; padding: 32px 24px 64px; color: var(--ink);
  background: #fff; font: 15px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, sans-serif; }
h1 { margin: 0; font-size: 27px; letter-spacing: -.01em; }
h2 { margin: 44px 0 12px; font-size: 18px; }
p { margin: 4px 0 10px; color: var(--soft); max-width: 80ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 6px 12px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
td.best { font-weight: 700; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 8px; }
.row { display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start; }
.row img { flex: 1 1 340px; min-width: 300px; max-width: min(100%, 480px); }
.wide { flex: 1 1 640px; min-width: 0; }
img { max-width: 100%; height: auto; }
figure { margin: 0 0 26px; }
figcaption { margin: 0 0 6px; }
figcaption b { margin-right: 8px; }
figcaption span { color: var(--soft); }
details { margin-top: 10px; }
summary { cursor: pointer; color: var(--soft); }
li { color: var(--soft); overflow-wrap: anywhere; }
footer { margin-top: 48px; color: var(--soft); font-size: 13px; }
"""


def write_report(
    comparison: Comparison, folder: Path, *, focus: str | None = None, worst: int = 5
) -> list[Path]:
    """Write report.html, report.png and report.json.

    Args:
        comparison: the trackers.
        folder: where; made if need be.
        focus: the tracker whose differences and worst sequences are shown; the best when None.
        worst: how many of its worst sequences get a strip of pictures.

    Returns:
        The files written.

    Raises:
        ValueError: no tracker is called `focus`.
        OSError: the files cannot be written.
    """
    names = [t.tracker for t in comparison.trackers]
    if focus is not None and focus not in names:
        raise ValueError(f"no tracker {focus!r} among {', '.join(names)}")
    shown = comparison.trackers[names.index(focus) if focus else 0]
    folder.mkdir(parents=True, exist_ok=True)
    page, sheet, data = (folder / f"report.{suffix}" for suffix in ("html", "png", "json"))
    page.write_text(_page(comparison, shown, worst), encoding="utf-8")
    sheet.write_bytes(plots.to_png(plots.overview_figure(comparison, shown)))
    data.write_text(json.dumps(as_json(comparison), indent=1) + "\n", encoding="utf-8")
    return [page, sheet, data]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything that the report shows as numbers; not-a-number becomes null."""
    protocol = comparison.benchmark.protocol
    attributes = {m: comparison.by_attribute(m) for m in protocol.headline}
    return {
        "benchmark": comparison.benchmark.name,
        "title": comparison.title,
        "overlap_thresholds": _numbers(protocol.thresholds),
        "trackers": {
            t.tracker: {
                "measures": _measures(t.measures),
                "success_curve": _numbers(t.success),
                "precision_curve": _numbers(t.precision),
                "normalized_precision_curve": _numbers(t.normalized),
                "by_attribute": {
                    a: {m: round(attributes[m][a][t.tracker], 6) for m in protocol.headline}
                    for a in comparison.attributes
                },
                "sequences": {
                    s.name: {"frames": s.frames, **_measures(s.measures)} for s in t.sequences
                },
            }
            for t in comparison.trackers
        },
        "problems": comparison.problems,
    }


def _page(comparison: Comparison, focus: TrackerScore, worst: int) -> str:
    frames = sum(map(len, comparison.sequences.values()))
    title = escape(comparison.title)
    sections = [
        f"<h1>{title}</h1>",
        f"<p>{_count(len(comparison.trackers), 'tracker')} on "
        f"{_count(len(comparison.sequences), 'sequence')}, {frames:,} frames. One pass: each "
        "tracker is started on the first frame and never corrected.</p>",
        _scroll(_ranking(comparison)),
        "<h2>Curves</h2>",
        '<div class="row">'
        + "".join(
            _figure(plots.curve_figure(comparison, kind), f"{kind} plot")
            for kind in ("success", "precision", "normalized")
        )
        + "</div>",
        *_attributes(comparison),
        *_sequences(comparison, focus),
        *_worst(comparison, focus, worst),
        *_problems(comparison),
        f"<footer>siamcar_ros {__version__}, "
        f"{datetime.now(timezone.utc):%d %B %Y}. Rules: {escape(_rules(comparison))}</footer>",
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_CSS}</style></head><body>{''.join(sections)}</body></html>\n"
    )


def _ranking(comparison: Comparison) -> str:
    columns = measure_order(comparison)
    best = {m: max(t.measures[m] for t in comparison.trackers) for m in columns}
    rows = [
        [_key(comparison, t.tracker)]
        + [(format_measure(m, t.measures[m]), t.measures[m] == best[m]) for m in columns]
        for t in comparison.trackers
    ]
    return _table(["Tracker", *(MEASURES[m] for m in columns)], rows)


def _attributes(comparison: Comparison) -> list[str]:
    if not comparison.attributes:
        return []
    measure = comparison.benchmark.protocol.headline[0]
    by_attribute = comparison.by_attribute(measure)
    rows: list[list[Any]] = []
    for attribute, values in by_attribute.items():
        of = sum(attribute in s.attributes for s in comparison.sequences.values())
        best = max(values.values())
        long_name = comparison.attributes[attribute]
        label = attribute if long_name == attribute else f"{attribute} · {long_name}"
        cells = [
            (f"{values[t.tracker]:.3f}", values[t.tracker] == best) for t in comparison.trackers
        ]
        rows.append([escape(label), (str(of), False), *cells])
    table = _table(
        ["Attribute", "Sequences", *(_key(comparison, t.tracker) for t in comparison.trackers)],
        rows,
    )
    parts = [f"<h2>{MEASURES[measure]} by attribute</h2>", '<div class="row">']
    if len(by_attribute) >= 3:
        parts.append(_figure(plots.radar_figure(comparison, measure), "radar of the attributes"))
    return [*parts, f'<div class="wide">{_scroll(table)}</div></div>']


def _sequences(comparison: Comparison, focus: TrackerScore) -> list[str]:
    values = {
        t.tracker: {s.name: s.measures["ao"] for s in t.sequences} for t in comparison.trackers
    }
    rows: list[list[Any]] = []
    for name, sequence in sorted(comparison.sequences.items(), key=lambda item: item[0].lower()):
        best = max(of[name] for of in values.values())
        cells = [(f"{of[name]:.3f}", of[name] == best) for of in values.values()]
        rows.append([escape(name), (str(len(sequence)), False), *cells])
    table = _scroll(
        _table(["Sequence", "Frames", *(_key(comparison, name) for name in values)], rows)
    )
    parts = ["<h2>Sequence by sequence</h2>", "<p>Average overlap (AO) on each.</p>"]
    if len(comparison.trackers) > 1:
        figure = _figure(plots.differences_figure(comparison, focus), "differences per sequence")
        parts.append(f'<div style="max-width: 760px">{figure}</div>')
    if len(rows) > 15:
        return [*parts, f"<details><summary>All {len(rows)} sequences</summary>{table}</details>"]
    return [*parts, table]


def _worst(comparison: Comparison, focus: TrackerScore, count: int) -> list[str]:
    strips = worst_strips(comparison, focus, count=count)
    if not strips:
        return []
    keys = " &nbsp; ".join(_key(comparison, t.tracker) for t in comparison.trackers)
    truth = f'<span class="key" style="background:{plots.TRUTH_COLOR}"></span>ground truth'
    parts = [
        f"<h2>Where {escape(focus.tracker)} fares worst</h2>",
        f"<p>{truth} &nbsp; {keys}. Numbers in a picture: the frame, and each tracker's overlap."
        "</p>",
    ]
    for strip in strips:
        overlaps = _figure(plots.overlaps_figure(comparison, strip.sequence), "overlap over time")
        parts.append(
            f"<figure><figcaption><b>{escape(strip.sequence)}</b><span>AO {strip.ao:.3f}, "
            f"{escape(strip.told)}</span></figcaption>{_picture(strip.picture)}{overlaps}</figure>"
        )
    return parts


def _problems(comparison: Comparison) -> list[str]:
    if not comparison.problems:
        return []
    items = "".join(f"<li>{escape(problem)}</li>" for problem in comparison.problems)
    number = _count(len(comparison.problems), "note")
    return [
        f"<h2>Left out, or odd</h2><details><summary>{number}</summary><ul>{items}</ul></details>"
    ]


def _rules(comparison: Comparison) -> str:
    protocol = comparison.benchmark.protocol
    return (
        f"mean over {'all frames' if protocol.pooled else 'sequences'}; "
        f"first frame {'counted' if protocol.first_frame else 'not counted'}; "
        f"frames without the target: {protocol.absent.value}; "
        f"{len(protocol.thresholds)} overlap thresholds"
        f"{'; boxes cut to the image' if protocol.clipped else ''}."
    )


def _table(head: list[str], rows: Iterable[list[Any]]) -> str:
    """A table; a cell is a string of HTML, or (text, whether it is the best of its group)."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _cell(cell: str | tuple[str, bool]) -> str:
    if isinstance(cell, str):
        return f"<td>{cell}</td>"
    text, best = cell
    return f'<td class="best">{text}</td>' if best else f"<td>{text}</td>"


def _key(comparison: Comparison, tracker: str) -> str:
    index = [t.tracker for t in comparison.trackers].index(tracker)
    return (
        f'<span class="key" style="background:{plots.tracker_color(index)}"></span>'
        f"{escape(tracker)}"
    )


def _scroll(html: str) -> str:
    return f'<div class="scroll">{html}</div>'


def _figure(figure: Any, alt: str) -> str:
    return _inline(plots.to_png(figure), "png", alt)


def _picture(image: Image) -> str:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return _inline(data.tobytes(), "jpeg", "frames of the sequence")


def _inline(data: bytes, kind: str, alt: str) -> str:
    text = base64.b64encode(data).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{text}">'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _numbers(values: Any) -> list[float]:
    return [round(float(v), 6) for v in np.asarray(values)]


def _measures(values: dict[str, float]) -> dict[str, float | None]:
    return {k: round(v, 6) if np.isfinite(v) else None for k, v in values.items()}
