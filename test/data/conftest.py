"""Pictures with a plain target on a plain ground."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from siamcar_ros.data.frames import Frame

TARGET, GROUND = (40, 200, 250), (120, 60, 30)


def draw(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (160, 120)) -> Path:
    """Write an image of (width, height) whose target covers x1, y1, x2, y2 (edges)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((size[1], size[0], 3), GROUND, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = TARGET
    suffix = ".jpg" if path.suffix == ".JPEG" else path.suffix
    path.write_bytes(cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes())
    return path


def encloses(frame: Frame) -> None:
    """Assert that the frame's box is that of the drawn target, to within a pixel."""
    distance = np.abs(frame.image.astype(int) - TARGET).sum(2)
    rows, columns = np.nonzero(distance < 60)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(frame.box - found).max() <= 1.01, (frame.box, found)


@pytest.fixture
def picture() -> Callable[..., Path]:
    return draw


@pytest.fixture
def check() -> Callable[[Frame], None]:
    return encloses


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
