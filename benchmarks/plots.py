"""Plots of how the cost grows with targets, batch, frame size and rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from siamcar_ros.speed.tables import Table

_SIZE = (6.4, 3.8)
_WIDE = 30  # times: a wider range of values gets a logarithmic axis


def plot_growth(table: Table, by: str, label: str, group: str, path: Path) -> None:
    """Plot milliseconds against a number, with quartiles.

    Args:
        table: its rows have `by`, `group`, "ms", "low" and "high".
        by: the column of the horizontal axis.
        label: of that axis.
        group: the column whose values name the lines.
        path: the PNG to write.
    """
    figure, axes = _axes()
    for name in dict.fromkeys(row[group] for row in table.rows):
        rows = [row for row in table.rows if row[group] == name]
        across = [row[by] for row in rows]
        (line,) = axes.plot(across, [row["ms"] for row in rows], marker="o", label=name)
        low, high = ([row[key] for row in rows] for key in ("low", "high"))
        axes.fill_between(across, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set_xlabel(label)
    axes.set_ylabel("ms a frame")
    values = [row["ms"] for row in table.rows]
    if max(values) > _WIDE * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.set_title(table.title, fontsize=10)
    _save(figure, path)


def latency_by_rate(table: Table) -> Table:
    """The node's latency for :func:`plot_growth`: the median, shaded up to the 99th percentile."""
    rows = [
        {
            "rate": row["rate"],
            "line": "publish to detection, up to the 99th percentile",
            "ms": row["latency"],
            "low": row["latency"],
            "high": row["p99"],
        }
        for row in table.rows
        if "latency" in row
    ]
    return Table(table.title, table.columns, rows)


def plot_backbones(tables: list[Table], path: Path) -> None:
    """Milliseconds of each backbone on each backend, on a logarithmic axis."""
    figure, axes = _axes(height=0.32 * sum(len(table.rows) for table in tables) + 1.2)
    names, values = [], []
    for table in tables:
        backbone = table.title.split(",")[0].removeprefix("network: ")
        for row in table.rows:
            names.append(f"{backbone}, {row['name']}")
            values.append(row["ms"])
    places = range(len(names))
    axes.barh(places, values, color=["#b0b0b0" if "published" in n else "#3b78b5" for n in names])
    for place, value in zip(places, values, strict=True):
        text = f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
        axes.text(value * 1.05, place, text, va="center", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=max(values) * 2)
    axes.set_xlabel("ms, one search region")
    _save(figure, path)


def _axes(height: float = _SIZE[1]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
