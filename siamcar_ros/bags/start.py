"""Where tracking starts, as a person types it: `412,230,60,80@12.5`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from siamcar_ros.geometry import Box, parse_box


class StartError(ValueError):
    """The text does not say where to start."""


@dataclass(frozen=True)
class Start:
    """Where tracking starts.

    Attributes:
        box: (x, y, w, h) in pixels; None takes the ground truth's.
        seconds: since the bag's start; tracking starts on the first image at or after it. None
            takes the first image, or the first with a ground truth if `box` is None.
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
        return parse_start(Path(text).read_text(encoding="utf-8").split("\n")[0].strip())
    numbers, at, moment = text.partition("@")
    try:
        box = parse_box(numbers) if numbers or not at else None
        seconds = float(moment) if at else None
        if seconds is None or math.isfinite(seconds):
            return Start(box, seconds)
    except ValueError:
        pass
    raise StartError(
        f"cannot read {text!r} as a start: expected x,y,w,h (pixels), x,y,w,h@seconds since the"
        " bag's start, @seconds with a ground truth, or a file that holds one of these"
    )
