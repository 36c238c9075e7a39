"""Bags recorded from the `sequence` of test/bags/conftest.py."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from siamcar_ros.bags.recording import RecordOptions, record_sequence

FRAMES, SIZE, RATE = 24, (96, 128), 20.0
TOPIC = "/camera/image_raw"


def frame(sequence: Path, index: int) -> np.ndarray:
    image = cv2.imread(str(sequence / f"{index + 1:08d}.png"))
    assert image is not None
    return image


def record(sequence: Path, bag: Path, storage: str = "mcap", compression: str = "none") -> Path:
    options = RecordOptions(rate=RATE, storage=storage, compression=compression)
    record_sequence(sequence, bag, options)
    return bag


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def storage_file(bag: Path) -> Path:
    return next(p for p in bag.iterdir() if p.name != "metadata.yaml")
