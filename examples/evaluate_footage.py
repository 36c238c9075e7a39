"""Score the tracker on footage of your own.

    python examples/evaluate_footage.py FOLDER [key=value ...]

FOLDER holds a folder for each sequence: numbered images and groundtruth.txt, a line x,y,w,h for
each image. Settings are the tracker's, such as decoder=paper. `siamcar evaluate folder FOLDER` does
the same with reports, other trackers to compare with, and several processes.
"""

import sys
from pathlib import Path

from siamcar_ros.commands.network_options import parse_settings
from siamcar_ros.data import read_sequence
from siamcar_ros.evaluation import run_sequence, score
from siamcar_ros.evaluation.protocols import FOLDER
from siamcar_ros.tracking import SiamCarTracker


def main(folder: str, *settings: str) -> None:
    """Print the mean overlap and the frames per second of each sequence."""
    knobs = parse_settings(list(settings))
    tracker = SiamCarTracker.from_config("compact", **knobs)
    for path in sorted(path for path in Path(folder).iterdir() if path.is_dir()):
        sequence = read_sequence(path)
        run = run_sequence(tracker, sequence)
        scored = score(run.boxes, sequence.boxes, FOLDER, times=run.times)
        if scored is None:
            print(f"{path.name}: no frame can be scored")
        else:
            ao, rate = scored.measures["ao"], scored.measures["fps"]
            print(f"{path.name}: AO {ao:.3f}, {rate:.0f} frames/s")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
