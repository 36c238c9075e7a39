"""A decoder of your own: one registered function, compared with one that ships.

Run it without arguments: python examples/own_decoder.py
"""

import numpy as np

from siamcar_ros.data.film import open_source
from siamcar_ros.evaluation.metrics import iou
from siamcar_ros.runtime import Maps
from siamcar_ros.tracking import Decoded, Grid, SiamCarTracker, TrackerParams, register_decoder
from siamcar_ros.tracking.decode import Array, foreground


@register_decoder("best_cell")
def best_cell(grid: Grid, maps: Maps, size: Array, scale: Array, params: TrackerParams) -> Decoded:
    """Take the box regressed at the cell of the highest windowed probability, unsmoothed."""
    targets = np.arange(len(maps.cls))
    score = foreground(maps.cls)
    windowed = grid.windowed(score, params.window_influence).reshape(len(score), -1)
    row, column = np.divmod(windowed.argmax(1), grid.score_size)
    left, top, right, bottom = maps.reg[targets, :, row, column].astype(float).T
    middle = (grid.score_size - 1) / 2  # this cell lies on the last center
    x = grid.stride * (column - middle) + (right - left) / 2
    y = grid.stride * (row - middle) + (bottom - top) / 2
    to_image = 1 / scale[:, None]  # from search pixels
    shift, new_size = np.stack((x, y), 1), np.stack((left + right, top + bottom), 1)
    return Decoded(shift * to_image, new_size * to_image, score[targets, row, column])


def main() -> None:
    """Track the film that ships with both decoders; print each one's mean overlap."""
    source = open_source("clip")
    assert source.boxes is not None
    for decoder in ("regressed", "best_cell"):
        tracker = SiamCarTracker.from_config("compact", decoder=decoder)
        images = source.images()
        tracker.init(next(images), tuple(source.boxes[0].tolist()))
        boxes = [tracker.update(image).box for image in images]
        overlap = np.nanmean(iou(boxes, source.boxes[1:]))
        print(f"{decoder:10} mean overlap {overlap:.3f}")


if __name__ == "__main__":
    main()
