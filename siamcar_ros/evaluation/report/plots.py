"""The report's plots, as matplotlib figures that need no display."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from siamcar_ros.evaluation import metrics
from siamcar_ros.evaluation.comparison import Comparison
from siamcar_ros.evaluation.protocols import MEASURES, TrackerScore

#: Told apart by people with any colour vision, and in print by the line styles below.
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
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#9aa0a6",
    "axes.labelcolor": "#3c4043",
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
    """The colour of the tracker at a place in the ranking."""
    return COLORS[index % len(COLORS)]


def style() -> Any:
    """A context in which figures are made in the report's style."""
    return rc_context(_STYLE)


def draw_curve(axes: Axes, comparison: Comparison, kind: str) -> None:
    """Draw a plot of all trackers.

    Args:
        axes: where.
        comparison: what.
        kind: "success", "precision" or "normalized".
    """
    protocol = comparison.benchmark.protocol
    title, label, x, measure = {
        "success": (
            "Success",
            "overlap threshold",
            protocol.thresholds,
            "ao" if protocol.headline[0] == "ao" else "success",
        ),
        "precision": ("Precision", "centre error (pixels)", metrics.PIXEL_THRESHOLDS, "precision"),
        "normalized": (
            "Normalised precision",
            "centre error (target sizes)",
            metrics.NORMALIZED_THRESHOLDS,
            "normalized",
        ),
    }[kind]
    order = sorted(
        enumerate(comparison.trackers), key=lambda numbered: -numbered[1].measures[measure]
    )
    for index, tracker in order:
        axes.plot(
            x,
            getattr(tracker, kind),
            color=tracker_color(index),
            linestyle=_STYLES[index // len(COLORS) % len(_STYLES)],
            linewidth=2.2 if index == 0 else 1.6,
            label=f"{tracker.measures[measure]:.3f}  {tracker.tracker}",
        )
    if kind == "precision":
        axes.axvline(20, color="#9aa0a6", linewidth=0.8, linestyle=":")
    elif kind == "normalized" and protocol.normalized_at is not None:
        axes.axvline(protocol.normalized_at, color="#9aa0a6", linewidth=0.8, linestyle=":")
    axes.set(title=title, xlabel=label, ylabel="share of frames", ylim=(0, 1.0))
    axes.set_xlim(float(x[0]), float(x[-1]))
    place: Any = "lower left" if kind == "success" else "lower right"
    axes.legend(loc=place, title=MEASURES[measure], alignment="left", title_fontsize=8.5)


def draw_radar(axes: Axes, table: Mapping[str, Mapping[str, float]], trackers: list[str]) -> None:
    """Draw a measure by attribute on polar axes, one polygon a tracker."""
    labels = list(table)
    angles = np.linspace(0, 2 * np.pi, len(labels), endpoint=False)
    for index, name in enumerate(trackers):
        values = np.array([table[label][name] for label in labels])
        closed = np.append(values, values[0])
        axes.plot(np.append(angles, angles[0]), closed, color=tracker_color(index), linewidth=1.7)
        if index == 0:
            axes.fill(np.append(angles, angles[0]), closed, color=tracker_color(0), alpha=0.10)
    axes.set_xticks(angles, labels)
    axes.set_ylim(0, max(0.1, max(v for row in table.values() for v in row.values()) * 1.05))
    axes.tick_params(axis="x", pad=9)
    axes.tick_params(axis="y", labelsize=7, colors="#9aa0a6")
    axes.spines["polar"].set_color("#dadce0")


def draw_differences(axes: Axes, comparison: Comparison, focus: TrackerScore, most: int) -> None:
    """Draw, per sequence, how far one tracker is ahead of the best of the others, in AO.

    Args:
        axes: where.
        comparison: at least two trackers.
        focus: the tracker.
        most: rows; where there are more sequences, those with the largest gains and losses.
    """
    others = [t for t in comparison.trackers if t.tracker != focus.tracker]
    own = _ao(focus)
    best = {name: max(_ao(t)[name] for t in others) for name in own}
    rows = sorted(((own[name] - best[name], name) for name in own), reverse=True)
    if len(rows) > most:
        rows = rows[: most // 2] + rows[-(most - most // 2) :]
    values = np.array([value for value, _ in rows])
    places = np.arange(len(rows))[::-1]
    colors = [
        tracker_color(comparison.trackers.index(focus)) if v >= 0 else "#c5221f" for v in values
    ]
    axes.barh(places, values, color=colors, height=0.68)
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            f"{value:+.2f}",
            (value, place),
            xytext=(3 if value >= 0 else -3, 0),
            textcoords="offset points",
            va="center",
            ha="left" if value >= 0 else "right",
            fontsize=7.5,
            color="#3c4043",
        )
    axes.set_yticks(places, [name for _, name in rows])
    axes.axvline(0, color="#5f6368", linewidth=0.8)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.15 * max(high - low, 0.1)
    axes.set_xlim(low - room, high + room)
    axes.grid(axis="y", visible=False)
    rival = others[0].tracker if len(others) == 1 else "the best other"
    axes.set(title=f"{focus.tracker} against {rival}", xlabel="difference in AO")


def draw_overlaps(axes: Axes, comparison: Comparison, sequence: str) -> None:
    """Draw each tracker's overlap over a sequence's frames."""
    for index, tracker in enumerate(comparison.trackers):
        overlaps = next(s.overlaps for s in tracker.sequences if s.name == sequence)
        axes.plot(
            np.arange(1, len(overlaps) + 1), overlaps, color=tracker_color(index), linewidth=1.1
        )
    axes.set(ylim=(0, 1), yticks=(0, 0.5, 1))
    axes.set_xlim(1, max(2, len(comparison.sequences[sequence])))
    axes.set_ylabel("overlap", fontsize=7.5)
    axes.tick_params(labelsize=7)


def curve_figure(comparison: Comparison, kind: str) -> Figure:
    """A figure of one plot."""
    with style():
        figure = Figure(figsize=(4.4, 3.6), layout="constrained")
        draw_curve(figure.add_subplot(), comparison, kind)
    return figure


def radar_figure(comparison: Comparison, measure: str) -> Figure:
    """A figure of a measure by attribute."""
    with style():
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        trackers = [t.tracker for t in comparison.trackers]
        axes = figure.add_subplot(projection="polar")
        draw_radar(axes, comparison.by_attribute(measure), trackers)
        axes.set_title(f"{MEASURES[measure]} by attribute", pad=18)
    return figure


def differences_figure(comparison: Comparison, focus: TrackerScore, most: int = 40) -> Figure:
    """A figure of the differences per sequence."""
    rows = min(most, len(comparison.sequences))
    with style():
        figure = Figure(figsize=(6.0, 0.9 + 0.24 * max(4, rows)), layout="constrained")
        draw_differences(figure.add_subplot(), comparison, focus, most)
    return figure


def overlaps_figure(comparison: Comparison, sequence: str) -> Figure:
    """A figure of the overlaps over a sequence."""
    with style():
        figure = Figure(figsize=(11, 1.1), layout="constrained")
        draw_overlaps(figure.add_subplot(), comparison, sequence)
    return figure


def overview_figure(comparison: Comparison, focus: TrackerScore) -> Figure:
    """All plots on one sheet, for the PNG."""
    several = len(comparison.trackers) > 1
    radar = len(comparison.attributes) >= 3
    with style():
        figure = Figure(figsize=(13.2, 8.0 if several or radar else 4.2), layout="constrained")
        title = f"{comparison.title} ({len(comparison.sequences)})"
        figure.suptitle(title, x=0.005, ha="left", fontsize=14, weight="bold")
        grid = figure.add_gridspec(2 if several or radar else 1, 6)
        for column, kind in enumerate(("success", "precision", "normalized")):
            draw_curve(figure.add_subplot(grid[0, 2 * column : 2 * column + 2]), comparison, kind)
        if radar:
            axes = figure.add_subplot(grid[1, :2], projection="polar")
            measure = comparison.benchmark.protocol.headline[0]
            draw_radar(
                axes, comparison.by_attribute(measure), [t.tracker for t in comparison.trackers]
            )
            axes.set_title(f"{MEASURES[measure]} by attribute", pad=18)
        if several:
            axes = figure.add_subplot(grid[1, 2 if radar else 0 :])
            draw_differences(axes, comparison, focus, 16)
    return figure


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _ao(tracker: TrackerScore) -> dict[str, float]:
    return {s.name: s.measures["ao"] for s in tracker.sequences}
