"""The report: one self-contained HTML page, a PNG sheet, JSON."""

from __future__ import annotations

import base64
import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from siamcar_ros import __version__
from siamcar_ros.evaluation.comparison import Comparison, format_measure, measured_on
from siamcar_ros.evaluation.presence import MEASURES as PRESENCE
from siamcar_ros.evaluation.presence import reliability
from siamcar_ros.evaluation.protocols import MEASURES, TrackerScore
from siamcar_ros.evaluation.report import plots
from siamcar_ros.evaluation.report.strips import worst_strips
from siamcar_ros.files import replacing
from siamcar_ros.geometry import Image

#: Measures of which the smallest value is the best.
LOWER_IS_BETTER = ("inflated", "false_alarms", "frames_to_find", "calibration_error")


def write_report(
    comparison: Comparison, folder: Path, *, focus: str | None = None, worst: int = 5
) -> list[Path]:
    """Write report.html, report.png and report.json to a folder; return their paths.

    `focus` is the tracker whose differences are shown, and of whose worst sequences (`worst` many)
    there are strips of frames; the best tracker when None.

    Raises:
        ValueError: no tracker is called `focus`.
        OSError: the files cannot be written.
    """
    names = [t.tracker for t in comparison.trackers]
    if focus is not None and focus not in names:
        raise ValueError(f"no tracker {focus!r} among {', '.join(names)}")
    shown = comparison.trackers[names.index(focus) if focus else 0]
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        folder / "report.html": _page(comparison, shown, worst).encode(),
        folder / "report.png": plots.to_png(plots.overview_figure(comparison, shown)),
        folder / "report.json": (json.dumps(as_json(comparison), indent=1) + "\n").encode(),
    }
    for path, content in contents.items():
        with replacing(path) as partial:
            partial.write_bytes(content)
    return list(contents)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All numbers of the report; NaN becomes null."""
    protocol = comparison.benchmark.protocol
    return {
        "benchmark": comparison.benchmark.name,
        "title": comparison.title,
        "overlap_thresholds": _numbers(protocol.thresholds),
        "trackers": {
            t.tracker: {
                "measures": _numbers(t.measures),
                "success_curve": _numbers(t.success),
                "precision_curve": _numbers(t.precision),
                "normalized_precision_curve": _numbers(t.normalized),
                "reliability": _numbers(reliability([s.presence for s in t.sequences.values()])),
                "run": comparison.facts[t.tracker],
                "by_attribute": {
                    attribute: _numbers({m: of[t.tracker].measures[m] for m in protocol.headline})
                    for attribute, of in comparison.by_attribute.items()
                },
                "sequences": {
                    name: {"frames": s.frames, **_numbers(s.measures)}
                    for name, s in t.sequences.items()
                },
            }
            for t in comparison.trackers
        },
        "problems": comparison.problems,
    }


def _page(comparison: Comparison, focus: TrackerScore, worst: int) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "png": lambda figure: _data_uri(plots.to_png(figure), "png"),
        "jpeg": _jpeg,
        "measure": lambda values, measure: format_measure(measure, values),
        "best": _best,
    }
    sequences = comparison.sequences
    absent = sum((s.annotated & ~np.isfinite(s.boxes).all(1)).sum() for s in sequences.values())
    return environment.get_template("report.html.jinja").render(
        comparison=comparison,
        trackers=comparison.trackers,
        protocol=comparison.benchmark.protocol,
        focus=focus,
        version=__version__,
        date=datetime.now(timezone.utc),
        frames=sum(map(len, sequences.values())),
        absent=int(absent),
        names=MEASURES,
        presence=list(PRESENCE),
        lower=LOWER_IS_BETTER,
        headline=comparison.benchmark.protocol.headline[0],
        overlaps={
            name: [t.sequences[name].measures["ao"] for t in comparison.trackers]
            for name in sequences
        },
        measured={name: measured_on(facts) for name, facts in comparison.facts.items()},
        differences=differing_settings(comparison),
        states={s for run in comparison.runs[focus.tracker].values() for s in run.states},
        colors={t.tracker: plots.tracker_color(i) for i, t in enumerate(comparison.trackers)},
        strips=worst_strips(comparison, focus, worst),
        plots=plots,
    )


def differing_settings(comparison: Comparison) -> dict[str, list[str]]:
    """Facts of the SiamCAR trackers that differ: name -> the value of each tracker, as text."""
    facts = []
    for tracker in comparison.trackers:
        run = comparison.facts[tracker.tracker]
        of_tracker = run.get("tracker", {})
        if of_tracker.get("kind") != "siamcar":
            return {}
        versions = {f"{name} version": text for name, text in run.get("versions", {}).items()}
        known = {**of_tracker, **of_tracker.get("settings", {}), **versions}
        facts.append({key: known[key] for key in known if key not in ("title", "settings")})
    keys = dict.fromkeys(key for one in facts for key in one)
    table = {key: [str(one.get(key, "–")) for one in facts] for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def _best(values: list[float], lowest: bool = False) -> float | None:
    """The largest or lowest of the values that are known; None if none is."""
    known = (value for value in values if not math.isnan(value))
    return min(known, default=None) if lowest else max(known, default=None)


def _jpeg(image: Image) -> str:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return _data_uri(data.tobytes(), "jpeg")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _numbers(values: Any) -> Any:
    """Numbers, arrays and dictionaries of them for JSON: rounded, null for what is not finite."""
    if isinstance(values, dict):
        return {key: _numbers(value) for key, value in values.items()}
    if np.ndim(values):
        return [_numbers(value) for value in values]
    return round(float(values), 6) if np.isfinite(values) else None
