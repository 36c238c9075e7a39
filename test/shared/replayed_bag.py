"""A bag with a bright square that moves, and a tracker that finds it exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from siamcar_ros.bags.messages import (
    compressed_message,
    detection_message,
    image_message,
)
from siamcar_ros.bags.writer import BagWriter
from siamcar_ros.geometry import Box
from siamcar_ros.tracking import TargetError, TrackerParams, TrackState

FRAMES, SIZE, PERIOD = 20, (96, 128), 50_000_000
START = 1_000_000_000_000
TOPIC, TRUTH = "/camera/image_raw", "/truth"


@dataclass
class Found:
    box: Box
    score: float = 0.9
    state: TrackState = TrackState.TRACKING


class BrightestSquare:
    """Finds the bright square exactly; counts its updates."""

    def __init__(self) -> None:
        self.params = TrackerParams()
        self.given: list[Box] = []
        self.updates = 0

    def init(self, image: np.ndarray, box: Box) -> None:
        if box[0] >= image.shape[1]:
            raise TargetError(f"box {box} lies wholly outside")
        self.given.append(box)

    def update(self, image: np.ndarray) -> Found:
        self.updates += 1
        y, x = np.nonzero(image.min(axis=-1) > 150)
        box = (float(x.min()), float(y.min()), float(np.ptp(x) + 1), float(np.ptp(y) + 1))
        return Found(box, state=TrackState.LOST if self.updates == 3 else TrackState.TRACKING)


def true_box(i: int) -> Box:
    return (10.0 + 3 * i, 20.0 + i, 14.0, 18.0)


def picture(i: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    image = np.random.default_rng(i).integers(0, 90, (*size, 3), np.uint8)
    x, y, w, h = map(int, true_box(i))
    image[y : y + h, x : x + w] = 250
    return image


def make_bag(
    folder: Path,
    *,
    compressed: bool = False,
    broken: tuple[int, ...] = (),
    truths: range = range(FRAMES),
    absent: tuple[int, ...] = (),
    truth_delay: int = 0,
    stamped: bool = True,
    pixels: tuple[int, int] = SIZE,
) -> Path:
    with BagWriter(folder) as writer:
        for i in range(FRAMES):
            time = START + i * PERIOD
            stamp = time if stamped else 0
            if i in truths:
                truth = detection_message(
                    None if i in absent else true_box(i),
                    stamp + truth_delay,
                    "cam",
                    id="t",
                    class_id="target",
                )
                writer.write(TRUTH, truth, time)
            if compressed:
                data = cv2.imencode(".png", picture(i))[1].tobytes()
                data = data[: len(data) // 2] if i in broken else data
                message = compressed_message(data, "png", stamp, "cam")
            else:
                message = image_message(picture(i, pixels), stamp, "cam")
                if i in broken:
                    message.encoding = "sepia8"
            writer.write(TOPIC, message, time)
    return folder
