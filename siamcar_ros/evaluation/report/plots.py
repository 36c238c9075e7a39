"""The report's plots, as matplotlib figures that need no display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from numpy.typing import NDArray

from siamcar_ros.evaluation import metrics, presence
from siamcar_ros.evaluation.comparison import Comparison
from siamcar_ros.evaluation.protocols import MEASURES, TrackerScore

#: Told apart by people with any color vision, and in print by the line styles below.
COLORS = ("#0b66c3", "#e8710a", "#1e8e5a", "#a142b5", "#c5221f", "#00838f", "#795548", "#5f6368")
_STYLES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)))
TRUTH_COLOR = "#ffc400"
_LOSS, _GUIDE, _TEXT = "#c5221f", "#9aa0a6", "#3c4043"
#: Of the tracker's state; others are gray.
STATE_COLORS = {"tracking": "#1e8e5a", "uncertain": "#f9ab00", "lost": "#c5221f"}
_MOST_ROWS = 40  # of the differences
_STYLE: Any = [
    "seaborn-v0_8-whitegrid",
    {
        "font.size": 9,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": "#e8eaed",
    },
]


def tracker_color(index: int) -> str:
    """The color of the tracker at a place in the ranking."""
    return COLORS[index % len(COLORS)]


def figure(comparison: Comparison, focus: TrackerScore, kind: str) -> Figure:
    """One plot of all trackers.

    A curve: "success", "precision", "normalized", "tracking" (tracking precision over recall) or
    "reliability" (how often the score is right); "radar", the headline measure by attribute; or
    "differences", how far `focus` is ahead of the best of the others on each sequence, in AO.
    """
    rows = max(4, min(_MOST_ROWS, len(comparison.sequences)))
    curve = (4.4, 3.5 + 0.17 * len(comparison.trackers))
    sizes = {"radar": (4.8, 4.4), "differences": (6.0, 0.9 + 0.24 * rows)}
    with style.context(_STYLE):
        plot = Figure(figsize=sizes.get(kind, curve), layout="constrained")
        _draw(plot, comparison, focus, kind, _MOST_ROWS)
    return plot


def timeline_figure(comparison: Comparison, focus: TrackerScore, sequence: str) -> Figure:
    """Over a sequence's frames, each tracker's overlap, and one tracker's score and state."""
    run = comparison.runs[focus.tracker][sequence]
    scored = bool(np.isfinite(run.scores[1:]).any())
    with style.context(_STYLE):
        figure = Figure(figsize=(10.4, 2.8 if scored else 1.6), layout="constrained")
        rows: Any = figure.subplots(2 if scored else 1, sharex=True, squeeze=False)[:, 0]
        _draw_overlaps(rows[0], comparison, sequence)
        if scored:
            _draw_score(rows[1], run.scores, run.states)
        rows[-1].set_xlabel("frame")
    return figure


def overview_figure(comparison: Comparison, focus: TrackerScore) -> Figure:
    """All plots on one sheet, for the PNG."""
    kinds = ["success", "precision", "normalized", "tracking", "reliability"]
    kinds += ["radar"] if len(comparison.attributes) >= 3 else []
    kinds += ["differences"] if len(comparison.trackers) > 1 else []
    rows = -(-len(kinds) // 3)
    with style.context(_STYLE):
        sheet = Figure(figsize=(13.2, 0.4 + 4.4 * rows), layout="constrained")
        title = f"{comparison.title} ({len(comparison.sequences)})"
        sheet.suptitle(title, x=0.005, ha="left", fontsize=14, weight="bold")
        parts: Any = sheet.subfigures(rows, 3, squeeze=False)
        for part, kind in zip(parts.flat, kinds, strict=False):
            _draw(part, comparison, focus, kind, 16)
    return sheet


def to_png(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _draw(
    plot: FigureBase, comparison: Comparison, focus: TrackerScore, kind: str, most_rows: int
) -> None:
    axes: Any = plot.add_subplot(projection="polar" if kind == "radar" else None)
    if kind == "differences":
        _draw_differences(axes, comparison, focus, most_rows)
    elif kind == "tracking":
        _draw_tracking(axes, comparison)
    elif kind == "reliability":
        _draw_reliability(axes, comparison)
    elif kind == "radar":
        _draw_radar(axes, comparison, comparison.benchmark.protocol.headline[0])
    else:
        _draw_curve(axes, comparison, kind)


def _draw_curve(axes: Axes, comparison: Comparison, kind: str) -> None:
    protocol, measure, guide = comparison.benchmark.protocol, kind, None
    if kind == "success":
        title, label, x = "Success", "overlap threshold", protocol.thresholds
        measure = "ao" if protocol.headline[0] == "ao" else "success"
    elif kind == "precision":
        title, label, x = "Precision", "center error (pixels)", metrics.PIXEL_THRESHOLDS
        guide = 20.0
    else:
        title, label = "Normalized precision", "center error (target sizes)"
        x, guide = metrics.NORMALIZED_THRESHOLDS, protocol.normalized_at
    ranked = sorted(enumerate(comparison.trackers), key=lambda pair: -pair[1].measures[measure])
    for index, tracker in ranked:
        text = f"{tracker.measures[measure]:.3f}  {tracker.tracker}"
        axes.plot(x, getattr(tracker, kind), label=text, **_line(index))
    if guide is not None:
        axes.axvline(guide, color=_GUIDE, linewidth=0.8, linestyle=":")
    axes.set(title=title, xlabel=label, ylabel="share of frames", ylim=(0, 1.0))
    axes.set_xlim(float(x[0]), float(x[-1]))
    _legend_below(axes, MEASURES[measure])


def _line(index: int) -> dict[str, Any]:
    """The look of the line of the tracker at a place in the ranking."""
    dashes = _STYLES[index // len(COLORS) % len(_STYLES)]
    width = 2.2 if index == 0 else 1.6
    return {"color": tracker_color(index), "linestyle": dashes, "linewidth": width}


def _legend_below(axes: Axes, title: str) -> None:
    """A legend below the axis labels, so that it covers no curve."""
    place: Any = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.17)}
    axes.legend(title=title, alignment="left", title_fontsize=8.5, **place)


def _draw_tracking(axes: Axes, comparison: Comparison) -> None:
    for index, tracker in enumerate(comparison.trackers):
        curve = presence.tracking_curve([s.presence for s in tracker.sequences.values()])
        measures = tracker.measures
        axes.plot(
            curve[:, 2],
            curve[:, 1],
            label=f"{measures['f_score']:.3f}  {tracker.tracker}",
            **_line(index),
        )
        best = measures["tracking_recall"], measures["tracking_precision"]
        axes.plot(*best, "o", color=tracker_color(index), markersize=6)
    axes.set(title="Presence", xlabel="tracking recall", ylabel="tracking precision")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    _legend_below(axes, "F-score, at the dot")


def _draw_reliability(axes: Axes, comparison: Comparison) -> None:
    axes.plot((0, 1), (0, 1), color=_GUIDE, linewidth=0.8, linestyle=":")
    for index, tracker in enumerate(comparison.trackers):
        bins = presence.reliability([s.presence for s in tracker.sequences.values()])
        number, score, right = bins[bins[:, 0] > 0].T
        if not len(number):
            continue
        text = f"{tracker.measures['calibration_error']:.3f}  {tracker.tracker}"
        axes.plot(score, right, label=text, **_line(index))
        sizes = 6 + 120 * number / number.sum()
        axes.scatter(score, right, sizes, color=tracker_color(index), zorder=3)
    axes.set(title="Reliability", xlabel="score", ylabel="share with overlap above 0.5")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    if len(axes.lines) > 1:
        _legend_below(axes, "Calibration error; a dot's area is its share of frames")


def _draw_radar(axes: Axes, comparison: Comparison, measure: str) -> None:
    table = comparison.by_attribute
    angles = np.linspace(0, 2 * np.pi, len(table) + 1)
    for index, tracker in enumerate(comparison.trackers):
        values = [row[tracker.tracker].measures[measure] for row in table.values()]
        axes.plot(angles, [*values, values[0]], color=tracker_color(index), linewidth=1.7)
        if index == 0:
            axes.fill(angles, [*values, values[0]], color=tracker_color(0), alpha=0.10)
    axes.set_xticks(angles[:-1], list(table))
    highest = max(of.measures[measure] for row in table.values() for of in row.values())
    axes.set_ylim(0, max(0.1, 1.05 * highest))
    axes.tick_params(axis="x", pad=9)
    axes.tick_params(axis="y", labelsize=7, colors=_GUIDE)
    axes.spines["polar"].set_color("#dadce0")
    axes.set_title(f"{MEASURES[measure]} by attribute", pad=18)


def _draw_differences(axes: Axes, comparison: Comparison, focus: TrackerScore, most: int) -> None:
    others = [t for t in comparison.trackers if t.tracker != focus.tracker]
    rows = []
    for name, score in focus.sequences.items():
        best = max(t.sequences[name].measures["ao"] for t in others)
        rows.append((score.measures["ao"] - best, name))
    rows.sort(reverse=True)
    if len(rows) > most:
        rows = rows[: most // 2] + rows[-(most - most // 2) :]
    values = np.round([value for value, _ in rows], 6)
    color = tracker_color(comparison.trackers.index(focus))
    colors = [color if value >= 0 else _LOSS for value in values]
    bars = axes.barh(np.arange(len(rows))[::-1], values, color=colors, height=0.68)
    axes.bar_label(bars, fmt="%+.2f", padding=3, fontsize=7.5, color=_TEXT)
    axes.set_yticks(np.arange(len(rows))[::-1], [name for _, name in rows])
    axes.axvline(0, color="#5f6368", linewidth=0.8)
    axes.use_sticky_edges = False
    axes.margins(x=0.15)
    axes.update_datalim([(-0.02, 0), (0.02, 0)])
    axes.grid(axis="y", visible=False)
    rival = others[0].tracker if len(others) == 1 else "the best other"
    axes.set(title=f"{focus.tracker} against {rival}", xlabel="difference in AO")


def _draw_overlaps(axes: Axes, comparison: Comparison, sequence: str) -> None:
    for index, tracker in enumerate(comparison.trackers):
        overlaps = tracker.sequences[sequence].overlaps
        frames = np.arange(1, len(overlaps) + 1)
        axes.plot(frames, overlaps, color=tracker_color(index), linewidth=1.1)
    truth = comparison.sequences[sequence]
    absent = truth.annotated & metrics.not_finite(truth.boxes)
    _shade(axes, absent, "#dadce0")
    axes.set(ylim=(0, 1.02), yticks=(0, 0.5, 1), ylabel="overlap")
    axes.set_xlim(1, max(2, len(truth)))


def _draw_score(axes: Axes, scores: metrics.Floats, states: Sequence[str]) -> None:
    axes.plot(np.arange(1, len(scores) + 1), scores, color=_TEXT, linewidth=1.1)
    for state in dict.fromkeys(states):
        _shade(axes, np.array(states) == state, STATE_COLORS.get(state, _GUIDE), 0.3)
    axes.set(ylim=(0, 1.02), yticks=(0, 0.5, 1), ylabel="score")


def _shade(axes: Axes, where: NDArray[np.bool_], color: str, alpha: float = 1.0) -> None:
    """Color the background of some frames, (N,)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], where.astype(int), [0]))))
    for begin, end in edges.reshape(-1, 2) + 0.5:
        axes.axvspan(begin, end, color=color, alpha=alpha, linewidth=0, zorder=0)
