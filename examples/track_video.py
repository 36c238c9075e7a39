"""Track a target through a video and write an annotated copy.

    python examples/track_video.py film.mp4 412,230,60,80 tracked.mp4

Without arguments it tracks the car in the film that ships with the package.
"""

import sys

from siamcar_ros.data.film import open_source
from siamcar_ros.data.video import VideoWriter
from siamcar_ros.tracking import SiamCarTracker
from siamcar_ros.tracking.overlay import draw_overlay


def main(film: str = "clip", box: str = "", output: str = "tracked.mp4") -> None:
    """Print the box and score of each frame; write the frames with the box drawn on them."""
    source = open_source(film)
    if box:
        x, y, w, h = (float(number) for number in box.split(","))
    elif source.boxes is not None:
        x, y, w, h = source.boxes[0].tolist()
    else:
        raise SystemExit(f"{film} has no true boxes: give the target's box, X,Y,W,H")
    tracker = SiamCarTracker.from_config("compact")
    with VideoWriter(output, source.rate) as writer:
        for index, image in enumerate(source.images()):
            if index == 0:
                tracker.init(image, (x, y, w, h))
                result = tracker.result
            else:
                result = tracker.update(image)
            print(index, *(f"{value:.1f}" for value in result.box), f"{result.score:.2f}")
            writer.write(draw_overlay(image, {"target": result}))


if __name__ == "__main__":
    main(*sys.argv[1:])
