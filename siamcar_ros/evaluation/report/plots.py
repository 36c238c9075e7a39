"""The report's plots, as matplotlib figures that need no display."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from siamcar_ros.evaluation import metrics
from siamcar_ros.evaluation.comparison import Comparison
from siamcar_ros.evaluation.protocols import MEASURES, TrackerScore

#: Told apart by people with any color vision, and in print by the line styles below.
COLORS = (
    "#0b66c3",
    "#e8710a",
    "#1e8e5a",
    "#a142b5",
    "#c5221f",
    "#00838f",
    "#795548",
    "#5f6368",
)
_STYLES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)))
TRUTH_COLOR = "#ffc400"
_LOSS, _GUIDE, _TEXT = "#c5221f", "#9aa0a6", "#3c4043"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": _GUIDE,
    "axes.labelcolor": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8eaed",
    "grid.linewidth": 0.8,
    "xtick.color": "#5f6368",
    "ytick.color": "#5f6368",
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def tracker_color(index: int) -> str:
    """The color of the tracker at a place in the ranking."""
    return COLORS[index % len(COLORS)]


def curve_figure(comparison: Comparison, kind: str) -> Figure:
    """The curves of all trackers: "success", "precision" or "normalized"."""
    return _figure((4.4, 3.6), lambda axes: _draw_curve(axes, comparison, kind))


def radar_figure(comparison: Comparison, measure: str) -> Figure:
    """A measure by attribute, one polygon a tracker."""
    return _figure((4.8, 4.4), lambda axes: _draw_radar(axes, comparison, measure), "polar")


def differences_figure(comparison: Comparison, focus: TrackerScore, most: int = 40) -> Figure:
    """Per sequence, how far one tracker is ahead of the best of the others, in AO.

    Args:
        comparison: at least two trackers.
        focus: the tracker.
        most: rows; where there are more sequences, those with the largest gains and losses.
    """
    rows = max(4, min(most, len(comparison.sequences)))
    return _figure(
        (6.0, 0.9 + 0.24 * rows), lambda axes: _draw_differences(axes, comparison, focus, most)
    )


def overlaps_figure(comparison: Comparison, sequence: str) -> Figure:
    """Each tracker's overlap over a sequence's frames."""
    return _figure((11, 1.1), lambda axes: _draw_overlaps(axes, comparison, sequence))


def overview_figure(comparison: Comparison, focus: TrackerScore) -> Figure:
    """All plots on one sheet, for the PNG."""
    several, radar = len(comparison.trackers) > 1, len(comparison.attributes) >= 3
    rows = 2 if several or radar else 1
    with rc_context(_STYLE):
        figure = Figure(figsize=(13.2, 8.0 if rows == 2 else 4.2), layout="constrained")
        title = f"{comparison.title} ({len(comparison.sequences)})"
        figure.suptitle(title, x=0.005, ha="left", fontsize=14, weight="bold")
        grid = figure.add_gridspec(rows, 6)
        for column, kind in enumerate(("success", "precision", "normalized")):
            place = grid[0, 2 * column : 2 * column + 2]
            _draw_curve(figure.add_subplot(place), comparison, kind)
        if radar:
            axes = figure.add_subplot(grid[1, :2], projection="polar")
            _draw_radar(axes, comparison, comparison.benchmark.protocol.headline[0])
        if several:
            axes = figure.add_subplot(grid[1, 2 if radar else 0 :])
            _draw_differences(axes, comparison, focus, 16)
    return figure


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _figure(
    size: tuple[float, float], draw: Callable[[Any], None], projection: str | None = None
) -> Figure:
    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot(projection=projection))
    return figure


def _draw_curve(axes: Axes, comparison: Comparison, kind: str) -> None:
    protocol = comparison.benchmark.protocol
    title, label, x, measure, guide = {
        "success": (
            "Success",
            "overlap threshold",
            protocol.thresholds,
            "ao" if protocol.headline[0] == "ao" else "success",
            None,
        ),
        "precision": (
            "Precision",
            "center error (pixels)",
            metrics.PIXEL_THRESHOLDS,
            "precision",
            20,
        ),
        "normalized": (
            "Normalized precision",
            "center error (target sizes)",
            metrics.NORMALIZED_THRESHOLDS,
            "normalized",
            protocol.normalized_at,
        ),
    }[kind]
    ranked = sorted(enumerate(comparison.trackers), key=lambda pair: -pair[1].measures[measure])
    for index, tracker in ranked:
        axes.plot(
            x,
            getattr(tracker, kind),
            color=tracker_color(index),
            linestyle=_STYLES[index // len(COLORS) % len(_STYLES)],
            linewidth=2.2 if index == 0 else 1.6,
            label=f"{tracker.measures[measure]:.3f}  {tracker.tracker}",
        )
    if guide is not None:
        axes.axvline(guide, color=_GUIDE, linewidth=0.8, linestyle=":")
    axes.set(title=title, xlabel=label, ylabel="share of frames", ylim=(0, 1.0))
    axes.set_xlim(float(x[0]), float(x[-1]))
    place: Any = "lower left" if kind == "success" else "lower right"
    axes.legend(loc=place, title=MEASURES[measure], alignment="left", title_fontsize=8.5)


def _draw_radar(axes: Axes, comparison: Comparison, measure: str) -> None:
    table: Mapping[str, Mapping[str, float]] = comparison.by_attribute(measure)
    angles = np.linspace(0, 2 * np.pi, len(table) + 1)
    for index, tracker in enumerate(comparison.trackers):
        values = [row[tracker.tracker] for row in table.values()]
        axes.plot(angles, [*values, values[0]], color=tracker_color(index), linewidth=1.7)
        if index == 0:
            axes.fill(angles, [*values, values[0]], color=tracker_color(0), alpha=0.10)
    axes.set_xticks(angles[:-1], list(table))
    axes.set_ylim(0, max(0.1, max(v for row in table.values() for v in row.values()) * 1.05))
    axes.tick_params(axis="x", pad=9)
    axes.tick_params(axis="y", labelsize=7, colors=_GUIDE)
    axes.spines["polar"].set_color("#dadce0")
    axes.set_title(f"{MEASURES[measure]} by attribute", pad=18)


def _draw_differences(axes: Axes, comparison: Comparison, focus: TrackerScore, most: int) -> None:
    others = [t for t in comparison.trackers if t.tracker != focus.tracker]
    own = _ao(focus)
    best = {name: max(_ao(t)[name] for t in others) for name in own}
    rows = sorted(((own[name] - best[name], name) for name in own), reverse=True)
    if len(rows) > most:
        rows = rows[: most // 2] + rows[-(most - most // 2) :]
    values = np.array([value for value, _ in rows])
    color = tracker_color(comparison.trackers.index(focus))
    colors = [color if value >= 0 else _LOSS for value in values]
    bars = axes.barh(np.arange(len(rows))[::-1], values, color=colors, height=0.68)
    axes.bar_label(bars, fmt="%+.2f", padding=3, fontsize=7.5, color=_TEXT)
    axes.set_yticks(np.arange(len(rows))[::-1], [name for _, name in rows])
    axes.axvline(0, color="#5f6368", linewidth=0.8)
    axes.use_sticky_edges = False
    axes.margins(x=0.15)
    axes.grid(axis="y", visible=False)
    rival = others[0].tracker if len(others) == 1 else "the best other"
    axes.set(title=f"{focus.tracker} against {rival}", xlabel="difference in AO")


def _draw_overlaps(axes: Axes, comparison: Comparison, sequence: str) -> None:
    for index, tracker in enumerate(comparison.trackers):
        overlaps = next(s.overlaps for s in tracker.sequences if s.name == sequence)
        frames = np.arange(1, len(overlaps) + 1)
        axes.plot(frames, overlaps, color=tracker_color(index), linewidth=1.1)
    axes.set(ylim=(0, 1), yticks=(0, 0.5, 1))
    axes.set_xlim(1, max(2, len(comparison.sequences[sequence])))
    axes.set_ylabel("overlap", fontsize=7.5)
    axes.tick_params(labelsize=7)


def _ao(tracker: TrackerScore) -> dict[str, float]:
    return {s.name: s.measures["ao"] for s in tracker.sequences}
