"""Draw docs/demo.png and docs/report.png from the film that ships, with the networks' defaults.

    python tools/pictures.py [FOLDER]        # docs/

The first shows parts of eight frames with the true box and the tracker's, the second the film's
part of a report on three trackers.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow

from siamcar_ros.cli import main
from siamcar_ros.data.film import open_source
from siamcar_ros.evaluation.comparison import compare
from siamcar_ros.evaluation.report import plots
from siamcar_ros.evaluation.report.strips import worst_strips
from siamcar_ros.geometry import Image, box_center
from siamcar_ros.tracking import SiamCarTracker
from siamcar_ros.tracking.overlay import COLORS, WHITE, draw_overlay

DOCS = Path(__file__).resolve().parents[1] / "docs"
_FRAMES = (1, 55, 91, 131, 157, 215, 220, 233)  # 55, 215 and 220: behind a bush
_TILE = (320, 240)
_WIDTH = 960  # of the report's part


def demo() -> Image:
    """Eight parts of frames of the film, two rows, BGR."""
    source = open_source("clip")
    assert source.boxes is not None
    tracker = SiamCarTracker.from_config("compact")
    tiles = []
    for index, image in enumerate(source.images()):
        x, y, w, h = source.boxes[index].tolist()
        truth = (x, y, w, h)
        if index == 0:
            tracker.init(image, truth)
        else:
            tracker.update(image)
        if index + 1 not in _FRAMES:
            continue
        drawn = draw_overlay(image, {"car": tracker.result}, truth=truth)
        corner = np.array(box_center(truth)) - np.array(_TILE) / 2
        limit = np.array(drawn.shape[1::-1]) - _TILE
        left, top = np.clip(corner, 0, limit).round().astype(int)
        tiles.append(drawn[top : top + _TILE[1], left : left + _TILE[0]])
    return np.vstack([np.hstack(tiles[:4]), np.hstack(tiles[4:])])


def report() -> Image:
    """The strip and the timeline of the film in a report on three trackers, BGR."""
    source = open_source("clip")
    assert source.boxes is not None
    with tempfile.TemporaryDirectory() as folder:
        root, results = Path(folder, "film"), Path(folder, "results")
        (root / "car").mkdir(parents=True)
        for index, image in enumerate(source.images(), 1):
            cv2.imwrite(str(root / "car" / f"{index:08d}.png"), image)
        np.savetxt(root / "car" / "groundtruth.txt", source.boxes, fmt="%.3f", delimiter=",")
        trackers = ["--network", "compact", "mobile", "--baseline", "csrt"]
        if main(["evaluate", "folder", str(root), *trackers, "--results", str(results)]):
            raise SystemExit("the evaluation failed")
        comparison = compare([results / "film"])
        focus = next(t for t in comparison.trackers if t.tracker == "SiamCAR-compact")
        (strip,) = worst_strips(comparison, focus, 1)
        timeline = plots.to_png(plots.timeline_figure(comparison, focus, "car"))
    gap = np.full((strip.tiles[0].shape[0], 8, 3), 255, np.uint8)
    row = np.hstack([part for tile in strip.tiles for part in (tile, gap)][:-1])
    curves = cv2.imdecode(np.frombuffer(timeline, np.uint8), cv2.IMREAD_COLOR)
    assert curves is not None
    sizes = [(_WIDTH, round(_WIDTH * part.shape[0] / part.shape[1])) for part in (row, curves)]
    scaled = [
        cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        for part, size in zip((row, curves), sizes, strict=True)
    ]
    return np.asarray(np.vstack(scaled), np.uint8)


def save(image: Image, path: Path) -> None:
    """Write a PNG with a palette, a third as large; the colors of the overlay are in it."""
    picture = Pillow.fromarray(np.ascontiguousarray(image[..., ::-1]))
    kept = [channel for color in (*COLORS.values(), WHITE) for channel in color[::-1]]
    common = picture.quantize(256 - len(kept) // 3).getpalette() or []
    palette = Pillow.new("P", (1, 1))
    palette.putpalette(common[: 768 - len(kept)] + kept)
    picture.quantize(palette=palette, dither=Pillow.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    docs = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    save(demo(), docs / "demo.png")
    save(report(), docs / "report.png")
