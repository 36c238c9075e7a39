"""Boxes and labels that Foxglove draws over an image, as foxglove_msgs/ImageAnnotations.

The field names are those of Foxglove's schemas. Their pixel coordinates also start at the image's
upper left corner, so boxes need no conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from siamcar_ros.geometry import Box
from siamcar_ros.tracking.interface import TrackResult
from siamcar_ros.tracking.overlay import COLORS, WHITE, Color, label

_LINE_LOOP = 2
_THICKNESS, _FONT_SIZE = 2.0, 14.0


def image_annotations(
    make: Callable[..., Any], stamp: Any, results: dict[str, TrackResult], truth: Box | None = None
) -> Any:
    """The boxes of one image, colored by state and labeled with id, score and state.

    Args:
        make: creates a message of foxglove_msgs from its name and fields.
        stamp: of the image, builtin_interfaces/Time.
        results: by target id.
        truth: the true box (x, y, w, h) in image pixels, drawn in white without a label.
    """

    def color(bgr: Color, alpha: float = 1.0) -> Any:
        blue, green, red = (channel / 255 for channel in bgr)
        return make("Color", r=red, g=green, b=blue, a=alpha)

    def outline(box: Box, bgr: Color) -> Any:
        x, y, w, h = map(float, box)
        corners = ((x, y), (x + w, y), (x + w, y + h), (x, y + h))
        return make(
            "PointsAnnotation",
            timestamp=stamp,
            type=_LINE_LOOP,
            points=[make("Point2", x=across, y=down) for across, down in corners],
            outline_color=color(bgr),
            thickness=_THICKNESS,
        )

    outlines = [] if truth is None else [outline(truth, WHITE)]
    texts = []
    for target, result in results.items():
        outlines.append(outline(result.box, COLORS[result.state]))
        x, y = map(float, result.box[:2])
        texts.append(
            make(
                "TextAnnotation",
                timestamp=stamp,
                position=make("Point2", x=x, y=y - _THICKNESS),
                text=label(target, result),
                font_size=_FONT_SIZE,
                text_color=color(COLORS[result.state]),
                background_color=color((0, 0, 0), 0.5),
            )
        )
    return make("ImageAnnotations", points=outlines, texts=texts)
