"""TrackerClient, as a program without a node of its own uses it."""

from __future__ import annotations

import itertools

import pytest
from node_harness import BOX, Robot, wait_for

from siamcar_ros.ros.client import Detection, TargetRefused, TrackerClient, TrackerUnavailable

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def test_detections_arrive_from_the_start_on(robot: Robot) -> None:
    robot.start_camera()
    with TrackerClient(robot.client.tracker) as client:
        client.wait_until_active()
        wait_for("the node's name in the graph", lambda: client.twins == 1)
        client.init_target(BOX, target="car")
        heard = list(itertools.islice(client.detections(timeout=30.0), 5))
        assert [each.id for each in heard] == ["car"] * 5
        stamps = [each.stamp for each in heard]
        assert stamps == sorted(set(stamps))
        assert all(each.arrival > each.stamp for each in heard)
        sent = {each.stamp.sec * 10**9 + each.stamp.nanosec for each in robot.sent}
        assert set(stamps) <= sent
        with pytest.raises(TargetRefused, match="outside"):
            client.init_target((5000, 0, 10, 10))
        assert next(client.detections(timeout=30.0)).id == "car", "a refusal changes nothing"
        assert "car" in client.stop_tracking()


def test_who_listens_is_not_disturbed_by_others(
    robot: Robot, caplog: pytest.LogCaptureFixture
) -> None:
    robot.start_camera()

    failures = itertools.cycle((KeyError("car"), SystemExit(1)))
    refused: list[str] = []

    def fail(_: Detection) -> None:
        try:
            client.stop_tracking()
        except TrackerUnavailable as error:
            refused.append(str(error))
        raise next(failures)

    with TrackerClient(robot.client.tracker, on_detection=fail) as client:
        client.wait_until_active()
        client.init_target(BOX, target="car")
        first, second = (client.detections(timeout=30.0) for _ in range(2))
        assert next(first).id == next(second).id == "car"
        first.close()
        assert len(list(itertools.islice(second, 3))) == 3
        assert "car" in client.stop_tracking()
    assert "a callback of the tracker client failed" in caplog.text
    assert "cannot be called from one of the client's callbacks" in refused[0]
    with pytest.raises(TrackerUnavailable, match="is closed"):
        client.stop_tracking()


def test_a_node_that_is_not_there_is_told() -> None:
    with TrackerClient("/nobody") as client:
        with pytest.raises(TrackerUnavailable, match="/nobody has not been seen"):
            client.wait_until_active(timeout=0.5)
        with pytest.raises(TrackerUnavailable, match="no /nobody/init_target"):
            client.init_target(BOX, timeout=0.5)


def test_a_client_keeps_its_name_where_its_process_s_node_is_renamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["camera", "--ros-args", "-r", "__node:=left_camera"])
    with TrackerClient("/nobody") as client:
        assert client.node.get_name() == "tracker_client"
