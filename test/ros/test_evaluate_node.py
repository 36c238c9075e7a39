"""evaluate_node beside a tracker, each in a process of its own, over the real middleware."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from node_harness import BOX, PATIENCE, NodeProcess, Robot, raw_image, scene, wait_for
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose

from siamcar_ros.msg import TrackStatus
from siamcar_ros.ros.client import TargetRefused, TrackerClient, TrackerUnavailable
from siamcar_ros.ros.evaluate_node import _typed_box
from siamcar_ros.srv import InitTarget

pytestmark = [pytest.mark.ros, pytest.mark.slow]
SECOND = 10**9


class Evaluator(NodeProcess):
    """`evaluate_node` as a user starts it, with a report file."""

    def __init__(self, folder: Path, namespace: str, **parameters: object) -> None:
        self.report_file = folder / "out" / "report.json"
        given = {"report": self.report_file} | parameters
        super().__init__(folder / "evaluate.log", namespace, given, executable="evaluate_node")

    def report(self) -> dict[str, Any]:
        """End the node and read what it wrote."""
        assert self.end() == 0, self.log
        result: dict[str, Any] = json.loads(self.report_file.read_text())
        return result


@pytest.fixture
def start_evaluator(tmp_path: Path) -> Iterator[Callable[..., Evaluator]]:
    started: list[Evaluator] = []

    def start(namespace: str = "/alone", **parameters: object) -> Evaluator:
        started.append(Evaluator(tmp_path, namespace, **parameters))
        return started[-1]

    yield start
    for evaluator in started:
        evaluator.end(signal.SIGKILL)


def detection(
    box: tuple[float, float, float, float], stamp: int, score: float | None = 0.8
) -> Detection2D:
    x, y, w, h = box
    message = Detection2D(header=Header(frame_id="camera"), id="target")
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
    message.bbox.center.position.x, message.bbox.center.position.y = x + w / 2, y + h / 2
    message.bbox.size_x, message.bbox.size_y = w, h
    if score is not None:
        message.results.append(ObjectHypothesisWithPose())
        message.results[0].hypothesis.score = score
    return message


class Film:
    """Shows images and their truth, 25 a second."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.truth = robot.publisher("ground_truth", Detection2D)

    def play(self, first: int, enough: Callable[[], object]) -> int:
        """Play from the stamp `first` on: two seconds, and until `enough`; the number of frames."""
        for index in range(2000):
            if index >= 50 and enough():
                return index
            stamp = first + index * SECOND // 25
            self.truth.publish(detection(true_box(index), stamp))
            self.robot.show(raw_image(scene(index)), stamp=stamp)
            time.sleep(1 / 25)
        raise AssertionError("not within 2000 frames")


def true_box(index: int) -> tuple[float, float, float, float]:
    import numpy as np

    return (140.0 + round(30 * np.sin(index / 20)), 100.0, 40.0, 30.0)


@pytest.mark.parametrize("init", ["ground_truth", ",".join(map(str, BOX))])
def test_a_live_tracker_is_started_scored_and_started_again_when_time_goes_back(
    robot: Robot, start_evaluator: Callable[..., Evaluator], init: str
) -> None:
    evaluator = start_evaluator(robot.process.namespace, init=init, period=0.5)
    film = Film(robot)
    wait_for("evaluate_node", film.truth.get_subscription_count)
    heard = robot.collect(Detection2D, "detection")
    shown = [film.play(1000 * SECOND, lambda: len(heard) > 10)]
    wait_for("the first pass's last answers", lambda: evaluator.log.count("answered") > 1)
    heard.clear()
    shown.append(film.play(1000 * SECOND, lambda: len(heard) > 60))
    time.sleep(0.5)
    report = evaluator.report()
    assert len(report["passes"]) == 2
    for one, most in zip(report["passes"], shown, strict=True):
        assert 5 < one["answered"] <= one["frames"] <= most
        assert one["unanswered"] == one["frames"] - one["answered"]
        assert 0 <= one["overlap_answered"] <= 1
        assert 0 <= one["overlap_in_hand"] <= 1
        assert 0 < one["latency_ms"]["median"] <= one["latency_ms"]["p99"]
    tracker = report["tracker"]
    assert tracker["network"] == "compact"
    # Images by which a target catches up are tracked again, so more may be tracked than received.
    answered = sum(one["answered"] for one in report["passes"])
    assert answered <= min(tracker["frames_tracked"], tracker["frames_received"])
    assert tracker["latency_ms"]["median"] > 0
    assert report["replay"] is None
    assert "time went back" in evaluator.log
    assert evaluator.log.count("is tracked") >= 2
    assert "on answered frames" in evaluator.log


def test_wait_until_active_tells_by_its_exit_status(robot: Robot) -> None:
    def wait(tracker: str, timeout: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "siamcar_ros.ros.wait_until_active", tracker]
        done = subprocess.run([*command, "--timeout", timeout], capture_output=True, text=True)
        return done.returncode, done.stderr.strip()

    assert wait(robot.name, "60") == (0, "")
    assert wait("/nobody", "0.5") == (1, "wait_until_active: /nobody has not been seen after 0.5 s")
    status, said = wait("bad name", "0.5")
    assert status == 1
    assert said.startswith("wait_until_active: Invalid service name: topic name must not contain")


@pytest.fixture
def played() -> Iterator[Robot]:
    """For a tracker that the test plays itself."""
    robot = Robot(SimpleNamespace(namespace="/played"))  # type: ignore[arg-type]
    yield robot
    robot.close()


def test_a_start_is_retried_until_it_succeeds_is_refused_or_is_withdrawn(played: Robot) -> None:
    answers = iter([False, False, True])

    def answer(request: InitTarget.Request, response: InitTarget.Response) -> InitTarget.Response:
        response.success = next(answers, False)
        response.message, response.id = "no image with the stamp", "target-1"
        return response

    played.node.create_service(InitTarget, "/played/tracker/init_target", answer)
    with TrackerClient("/played/tracker") as client:
        assert client.start_target(BOX, Header(), patience=60.0) == "target-1"
        assert next(answers, None) is None
        with pytest.raises(TargetRefused, match="no image with the stamp"):
            client.start_target(BOX, Header(), patience=0.1)
        wanted = iter([True, True, False])
        with pytest.raises(TrackerUnavailable, match="withdrawn"):
            client.start_target(BOX, Header(), patience=60.0, wanted=lambda: next(wanted))


def test_a_request_that_is_never_answered_times_out(played: Robot) -> None:
    async def answer(
        request: InitTarget.Request, response: InitTarget.Response
    ) -> InitTarget.Response:
        await Future()  # like a tracker that died
        return response

    played.node.create_service(
        InitTarget,
        "/played/tracker/init_target",
        answer,
        callback_group=ReentrantCallbackGroup(),
    )
    with (
        TrackerClient("/played/tracker") as client,
        pytest.raises(TrackerUnavailable, match=r"did not answer within 0\.3 s"),
    ):
        client.init_target(BOX, timeout=0.3)


@pytest.fixture
def asked(played: Robot) -> list[int]:
    """The seconds of the images that the tracker was started on, which it always is."""
    seconds: list[int] = []

    def answer(request: InitTarget.Request, response: InitTarget.Response) -> InitTarget.Response:
        seconds.append(request.header.stamp.sec)
        response.success, response.id = True, "target-1"
        return response

    played.node.create_service(InitTarget, "/played/tracker/init_target", answer)
    return seconds


def test_an_idle_tracker_is_started_on_the_next_true_box(
    played: Robot, asked: list[int], start_evaluator: Callable[..., Evaluator]
) -> None:
    truth = played.publisher("ground_truth", Detection2D)
    status = played.publisher("tracker/status", TrackStatus)
    evaluator = start_evaluator("/played", init="ground_truth")

    def shown(stamp: int) -> bool:
        truth.publish(detection(BOX, stamp * SECOND))
        time.sleep(0.1)
        return bool(asked)

    wait_for("the start", lambda: shown(5))
    wait_for("its log", lambda: "target-1 is tracked" in evaluator.log)
    shown(6)
    assert asked == [5]
    time.sleep(0.5)  # later than what may have crossed the start
    status.publish(TrackStatus(state=TrackStatus.IDLE))
    wait_for("the second start", lambda: shown(7) and len(asked) == 2)
    assert asked == [5, 7]


def test_a_given_box_starts_no_target_that_was_stopped(
    played: Robot, asked: list[int], start_evaluator: Callable[..., Evaluator]
) -> None:
    found = played.publisher("tracker/detection", Detection2D)
    status = played.publisher("tracker/status", TrackStatus)
    images = played.publisher("image", Image)
    evaluator = start_evaluator("/played", init=",".join(map(str, BOX)))

    def idle(stamp: int) -> None:
        message = TrackStatus(state=TrackStatus.IDLE)
        message.header.stamp.sec = stamp
        time.sleep(0.5)  # later than what may have crossed the start
        status.publish(message)

    def shown(stamp: int) -> bool:
        image = raw_image(scene(0))
        image.header.stamp.sec = stamp
        images.publish(image)
        time.sleep(0.1)
        return bool(asked)

    wait_for("the start", lambda: shown(5))
    wait_for("its log", lambda: "target-1 is tracked" in evaluator.log)
    idle(5)  # no answer came: the start itself was lost
    wait_for("the second start", lambda: len(asked) == 2)
    wait_for("its log", lambda: evaluator.log.count("target-1 is tracked") == 2)
    found.publish(detection(BOX, 6 * SECOND))
    idle(7)
    wait_for("the warning", lambda: "is not started again before time goes back" in evaluator.log)
    for stamp in range(8, 18):
        shown(stamp)
    assert asked == [5, 5]


def test_scores_are_those_of_the_boxes(
    played: Robot, start_evaluator: Callable[..., Evaluator], tmp_path: Path
) -> None:
    """The tracker is played by the test, so every figure is known."""
    replayed = {"bag": "b", "topic": "/t", "images": 9, "tracked": 8}
    replayed |= {"score": {"average_overlap": 0.9}}
    (tmp_path / "replay.json").write_text(json.dumps(replayed | {"more": 1}))
    evaluator = start_evaluator("/played", replay_report=tmp_path / "replay.json")
    truth = played.publisher("ground_truth", Detection2D)
    found = played.publisher("tracker/detection", Detection2D)
    status = played.publisher("tracker/status", TrackStatus)
    for publisher in (truth, found, status):
        wait_for("evaluate_node", publisher.get_subscription_count)

    def tell(publisher: Any, message: Any) -> None:
        publisher.publish(message)
        time.sleep(0.6)  # the order of arrival over two topics is not given

    box, half = (10.0, 10.0, 20.0, 20.0), (10.0, 10.0, 10.0, 20.0)
    tell(truth, detection(box, 0 * SECOND))  # before the first answer: not counted
    tell(truth, detection(box, 1 * SECOND))
    tell(found, detection(box, 1 * SECOND))
    tell(truth, detection(half, 2 * SECOND))  # in hand: box, overlap 0.5
    tell(truth, detection(box, 3 * SECOND))  # in hand: box, overlap 1; 2 s is never answered
    tell(found, detection(half, 3 * SECOND, score=None))  # 0.5, lost
    tell(truth, detection((0.0, 0.0, 0.0, 0.0), 4 * SECOND, score=None))  # absent
    tell(found, detection(box, 4 * SECOND))
    message = TrackStatus(state=TrackStatus.TRACKING, network="compact", total_latency=0.025)
    message.frames_received, message.frames_tracked, message.frames_dropped = 5, 3, 2
    tell(status, message)
    report = evaluator.report()
    (one,) = report["passes"]
    assert (one["frames"], one["answered"], one["unanswered"]) == (4, 3, 1)
    assert one["detections"] == 3
    assert one["overlap_answered"] == pytest.approx(0.75)
    assert one["overlap_in_hand"] == pytest.approx(0.75)
    assert one["latency_ms"]["median"] > 100
    assert report["tracker"]["frames_dropped"] == 2
    assert report["tracker"]["latency_ms"]["median"] == pytest.approx(25.0)
    assert report["replay"] == replayed
    assert "replayed without drops: overlap 0.900" in evaluator.log


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        # the bag's video is for the tracker alone, with this init
        ({"init": "ground_truth", "image_transport": "ffmpeg"}, ""),
        ({"init": "'1,2,3,4'"}, ", no image on /alone/image"),
    ],
)
def test_without_anyone_to_score_it_says_so(
    start_evaluator: Callable[..., Evaluator],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    lacking: str,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    evaluator = start_evaluator(report="~/out/report.json", **given)
    wait_for(
        "start",
        lambda: "scoring /alone/tracker/detection against /alone/ground_truth" in evaluator.log,
    )
    report = evaluator.report()
    assert report["passes"][0]["detections"] == 0
    assert report["tracker"] is None
    assert "no detection yet" in evaluator.log
    told = "nothing was tracked: no detection came from /alone/tracker, no true box on"
    assert f"{told} /alone/ground_truth{lacking}\n" in evaluator.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_with_a_report(
    start_evaluator: Callable[..., Evaluator], number: signal.Signals
) -> None:
    evaluator = start_evaluator()
    wait_for("start", lambda: "scoring" in evaluator.log)
    assert evaluator.end(number) == 0
    assert evaluator.report_file.is_file()
    assert "Traceback" not in evaluator.log


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"init": "'1,2,3'"}, "init is x,y,w,h, 'ground_truth' or empty, not '1,2,3'"),
        ({"image_transport": "smoke"}, "one of raw, compressed, ffmpeg, foxglove, not 'smoke'"),
        ({"tracker": "'bad name'"}, "topic name must not contain"),
        ({"replay_report": "/nowhere.json"}, "/nowhere.json"),
        ({"time_jump": -1.0}, "time_jump"),
        ({"report": "/dev/null/live.json"}, "/dev/null"),
    ],
)
def test_bad_parameters_are_refused(
    start_evaluator: Callable[..., Evaluator], parameters: dict[str, object], message: str
) -> None:
    evaluator = start_evaluator(**parameters)
    assert evaluator.process.wait(PATIENCE) == 1
    assert message in evaluator.log
    assert "Traceback" not in evaluator.log


@pytest.mark.parametrize("text", ["truth", "1,2,3", "1,2,3,4@5", "1,2,nan,4", "1,2,0,4", "@3"])
def test_a_box_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"init is x,y,w,h, 'ground_truth' or empty, not"):
        _typed_box(text)
