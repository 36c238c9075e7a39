"""A replay as a sequence and a result in the toolkits' layouts, and its report page.

The images that were tracked become a folder in the sequence layout, and the boxes a result file for
it, so that the pages and plots of `siamcar report` serve a bag as they serve a benchmark, and other
trackers can be run on the same frames with `siamcar evaluate folder`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from siamcar_ros.bags.messages import jpeg_message
from siamcar_ros.bags.replay import NO_BOX, ReplayFrame
from siamcar_ros.evaluation.comparison import compare
from siamcar_ros.evaluation.one_pass import Run
from siamcar_ros.evaluation.report import write_report
from siamcar_ros.evaluation.results import TrackerResults
from siamcar_ros.geometry import Image


class SequenceExport:
    """Writes the frames that were tracked in the sequence layout.

    Attributes:
        folder: of the sequence; its name is the sequence's.
        frames: what was written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.frames: list[ReplayFrame] = []

    def add(self, frame: ReplayFrame, image: Image) -> None:
        """Take the next frame and its image."""
        self.frames.append(frame)
        path = self.folder / f"{len(self.frames):08d}.jpg"
        path.write_bytes(jpeg_message(image, 0, "").data.tobytes())

    def finish(self) -> None:
        """Write `groundtruth.txt`: the box of the start, then the true ones."""
        boxes = [frame.truth or NO_BOX for frame in self.frames]
        boxes[:1] = [frame.box or NO_BOX for frame in self.frames[:1]]
        np.savetxt(self.folder / "groundtruth.txt", boxes, fmt="%.4f", delimiter=",")

    def write_report(self, folder: Path, *, tracker: str, facts: dict[str, Any]) -> None:
        """Write results/, report.html and what belongs to it, after `finish`.

        Args:
            folder: where they go.
            tracker: the tracker's name in the tables.
            facts: how the results were made, for `run.json`; `root` is the sequence's final place.
        """
        results = TrackerResults(folder / "results" / tracker, "otb")
        boxes = np.array([frame.box or NO_BOX for frame in self.frames], np.float64)
        scores, times = np.array([[frame.score, frame.seconds] for frame in self.frames]).T
        states = tuple(frame.state for frame in self.frames)
        results.write(self.folder.name, Run(boxes, scores, times, states))
        results.write_run_file({"benchmark": "folder", **facts})
        write_report(compare([results.folder], benchmark="folder", root=self.folder), folder)
