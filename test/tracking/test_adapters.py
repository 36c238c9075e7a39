"""The GOT-10k toolkit's contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from siamcar_ros.tracking import SiamCarTracker
from siamcar_ros.tracking.adapters import Got10kTracker


class PilImage:
    """What is asked of a PIL image."""

    def __init__(self, rgb: NDArray[np.uint8]) -> None:
        self.rgb = rgb

    def convert(self, mode: str) -> PilImage:
        assert mode == "RGB"
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.uint8]:
        return self.rgb


def test_rgb_becomes_bgr(network: Any, frame: NDArray[np.uint8]) -> None:
    network.show((50, 90), column=13)
    plain = SiamCarTracker(network)
    plain.init(frame, (300, 200, 40, 80))
    expected = plain.update(frame).box
    rgb = frame[..., ::-1].copy()
    for image in (rgb, PilImage(rgb)):
        adapted = Got10kTracker(SiamCarTracker(network))
        adapted.init(image, np.array([300, 200, 40, 80]))
        np.testing.assert_array_equal(adapted.update(image), expected)
    for seen in (network.templates, network.inputs):
        for other in seen[1:]:
            np.testing.assert_array_equal(other, seen[0])


def test_grey_arrays_are_not_mirrored(network: Any, frame: NDArray[np.uint8]) -> None:
    network.show((50, 90), column=13)
    grey = frame[..., 0].copy()
    plain = SiamCarTracker(network)
    plain.init(grey, (300, 200, 40, 80))
    Got10kTracker(SiamCarTracker(network)).init(grey, [300, 200, 40, 80])
    np.testing.assert_array_equal(*network.templates)


def test_files_are_followed(network: Any, frame: NDArray[np.uint8], tmp_path: Path) -> None:
    files = [str(tmp_path / f"{i:08d}.png") for i in range(4)]
    for file in files:
        cv2.imwrite(file, frame)
    network.show((50, 90))
    adapted = Got10kTracker(SiamCarTracker(network), name="Mine")
    boxes, times = adapted.track(files, np.array([300, 200, 40, 80]))
    assert (adapted.name, adapted.is_deterministic) == ("Mine", True)
    np.testing.assert_array_equal(boxes[0], [300, 200, 40, 80])
    assert boxes.shape == (4, 4)
    assert (times > 0).all()
    with pytest.raises(FileNotFoundError, match="missing"):
        adapted.track([files[0], tmp_path / "missing.png"], [300, 200, 40, 80])
