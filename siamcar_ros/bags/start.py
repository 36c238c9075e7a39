"""Where tracking starts, as it is typed: `412,230,60,80@12.5`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from siamcar_ros.data.detections import Box


class StartError(ValueError):
    """A start that cannot be read."""


@dataclass(frozen=True)
class Start:
    """Where tracking starts.

    Attributes:
        box: (x, y, w, h) in pixels; None takes the ground truth's.
        seconds: since the bag's start; the first image at or after that moment is the one. None
            takes the first image, or the first with a ground truth where `box` is None.
    """

    box: Box | None = None
    seconds: float | None = None


def parse_start(text: str) -> Start:
    """Read `x,y,w,h`, `x,y,w,h@seconds`, `@seconds`, or the name of a file that holds one of them.

    Raises:
        StartError: it is none of these.
        OSError: the file cannot be read.
    """
    if Path(text).is_file():
        lines = Path(text).read_text(encoding="utf-8").split("\n")
        return parse_start(lines[0].strip())
    numbers, at, seconds = text.partition("@")
    try:
        moment = float(seconds) if at else None
        values = [float(v) for v in numbers.split(",")] if numbers else None
    except ValueError:
        values, moment = [], None
    if (moment is not None and not math.isfinite(moment)) or (values is None and moment is None):
        values = []
    if values is None:
        return Start(None, moment)
    if len(values) != 4:
        raise StartError(
            f"cannot read {text!r} as a start: expected x,y,w,h (pixels), x,y,w,h@seconds from the"
            " bag's start, @seconds with a ground truth, or a file that holds one of these"
        )
    x, y, width, height = values
    return Start((x, y, width, height), moment)
