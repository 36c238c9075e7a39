"""The first frames of the film that ships, as a sequence folder."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2

from siamcar_ros.data.film import open_source


def write_sequence(folder: Path, frames: int) -> Path:
    source = open_source("clip")
    assert source.boxes is not None
    folder.mkdir(parents=True)
    for index, image in enumerate(islice(source.images(), frames), 1):
        assert cv2.imwrite(str(folder / f"{index:08d}.jpg"), image)
    lines = [",".join(f"{value:.2f}" for value in box) for box in source.boxes[:frames]]
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return folder
