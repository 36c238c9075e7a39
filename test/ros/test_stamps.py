"""The order of images: single wrong stamps are dropped, jumps are believed after three images."""

from __future__ import annotations

import pytest
from node_harness import frame

from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.stamps import StampFilter

SECOND = 10**9


def at(seconds: float, received: float | None = None) -> Frame:
    return frame(round(seconds * SECOND), received=seconds if received is None else received)


def stamps(filter: StampFilter, *frames: Frame) -> list[list[float]]:
    return [[each.stamp / SECOND for each in filter.accept(frame)[0]] for frame in frames]


def test_images_in_order_pass() -> None:
    frames = [at(100 + index / 30) for index in range(10)]
    assert all(len(each) == 1 for each in stamps(StampFilter(1.0), *frames))
    same = [at(0.0, received=index / 30) for index in range(5)]  # a driver that sets no stamps
    assert all(len(each) == 1 for each in stamps(StampFilter(1.0), *same))


@pytest.mark.parametrize("wrong", [0.0, 99.5, 100 + 86_400.0])
def test_a_single_wrong_stamp_is_dropped_and_nothing_else(wrong: float) -> None:
    found = stamps(StampFilter(1.0), at(100.0), at(wrong, 100.1), at(100.2), at(100.3))
    assert found == [[100.0], [], [100.2], [100.3]]


def test_two_cameras_on_one_topic_cost_the_images_of_one() -> None:
    frames = []
    for index in range(30):
        now = 100 + index / 15
        frames += [at(now, now), at(now - 1.5, now + 0.03)]
    found = stamps(StampFilter(1.0), *frames)
    assert all(len(each) == 1 for each in found[::2])
    assert all(each == [] for each in found[1::2])


@pytest.mark.parametrize(("base", "jump"), [(40.0, -60.0), (99.0, -1.0), (4000.0, 3900.0)])
def test_three_images_in_a_row_are_a_jump_and_none_of_them_is_lost(
    base: float, jump: float
) -> None:
    filter = StampFilter(1.0)
    assert filter.accept(at(100.0))[1] == 0
    later = [frame(round((base + 0.1 * i) * SECOND), received=100.1 + 0.1 * i) for i in range(4)]
    results = [filter.accept(each) for each in later]
    assert [len(frames) for frames, _ in results] == [0, 0, 3, 1]
    assert results[2][0] == later[:3]
    assert results[2][1] == pytest.approx(jump)
    assert results[3][1] == 0


def test_wrong_stamps_that_disagree_are_no_jump() -> None:
    filter = StampFilter(1.0)
    filter.accept(at(100.0))
    for index, wrong in enumerate((50.0, 40.0, 30.0, 20.0, 10.0)):
        assert filter.accept(at(wrong, 100.1 + index / 30)) == ([], 0.0)


def test_a_camera_that_was_silent_and_a_bag_that_plays_fast_are_no_jump() -> None:
    silent = StampFilter(1.0)
    silent.accept(at(100.0))
    assert silent.accept(at(130.0))[1] == 0
    fast = StampFilter(1.0)
    found = [fast.accept(at(10.0 * index, received=index)) for index in range(5)]
    assert [jump for _, jump in found] == [0.0] * 5
    assert all(frames for frames, _ in found)
