"""What a link to the operator's page is sent, in simulated time."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from siamcar_ros.ros.console.link import STEPS, Link, encode
from siamcar_ros.tracking.stored_image import StoredImage

TEXTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8), (0, 0), 2
)


def simulated(throughput: float, round_trip: float, seconds: float) -> tuple[Link, int, float]:
    """A link in simulated time: what it has settled on, pictures in the last second, their age."""
    link, now, number, shown, age = Link(30.0), 0.0, 0, 0, 0.0
    free_at = 0.0
    on_the_way: list[tuple[float, float, int, float]] = []
    sizes = {step: len(encode(StoredImage(TEXTURE, "bgr"), step, 4096)) for step in STEPS}
    while now < seconds:
        for arrival, transfer, sent_number, sent in [each for each in on_the_way if each[0] <= now]:
            link.acknowledged(sent_number, transfer)
            on_the_way.remove((arrival, transfer, sent_number, sent))
            shown += now > seconds - 1
            age = arrival - round_trip / 2 - sent
        if link.delay(now) <= 0:
            number += 1
            size = sizes[link.step]
            link.sent(number, size, now)
            transfer = size / throughput
            free_at = max(free_at, now) + transfer
            on_the_way.append((free_at + round_trip, transfer, number, now))
        now += 0.002
    return link, shown, age


@pytest.mark.parametrize(
    ("kilobits", "round_trip", "width", "rate"),
    [
        (200, 0.05, (160, 400), 4),
        (200, 0.6, (160, 400), 4),
        (2_000, 0.05, (400, 960), 8),
        (100_000, 0.01, (1280, 1280), 25),
        (100_000, 0.6, (1280, 1280), 5),  # a slow answer is not a narrow link
    ],
)
def test_rate_and_size_follow_the_link(
    kilobits: float, round_trip: float, width: tuple[int, int], rate: int
) -> None:
    link, shown, age = simulated(125 * kilobits, round_trip, 20.0)
    assert width[0] <= link.step.width <= width[1]
    assert shown >= rate
    assert age < 0.5 + round_trip  # nothing queues up on the way


def test_pictures_become_small_when_a_link_narrows() -> None:
    link = Link(30.0)
    for number in range(100):
        link.sent(number, 20_000, number / 10)
        link.acknowledged(number, 0.001)
    assert link.step == STEPS[-1]
    for number in range(100, 110):
        link.sent(number, 20_000, number / 10)
        link.acknowledged(number, 2.0)
    assert link.step == STEPS[0]
    link.acknowledged(7, math.pi)  # twice acknowledged: ignored
    assert link.step == STEPS[0]
    link.sent(110, 5_000, 11.0)
    link.acknowledged(110, 300.0)  # the link was down meanwhile
    assert link.delay(11.0) <= 1.0


@pytest.mark.parametrize("order", ["bgr", "rgb", "rgba", "gray"])
def test_pictures_keep_their_colors_and_are_never_enlarged(order: str) -> None:
    red = {"bgr": [0, 0, 255], "rgb": [255, 0, 0], "rgba": [255, 0, 0, 255], "gray": [76]}[order]
    array = np.full((48, 64, len(red)), red, np.uint8)
    array = array[..., 0] if order == "gray" else array
    for shown, size in ((4096, (48, 64, 3)), (32, (24, 32, 3))):
        picture = decoded(encode(StoredImage(array, order), STEPS[-1], shown))
        assert picture.shape == size
        wanted = (76, 76, 76) if order == "gray" else (0, 0, 255)
        assert np.abs(picture[10, 10].astype(int) - wanted).max() < 12


def decoded(jpeg: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
