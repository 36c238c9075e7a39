"""The worker and the services it answers, without a running node."""

from __future__ import annotations

import math
import threading
import time
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
from node_harness import BOX, PATIENCE, Log, Robot, frame, wait_for
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2D, Detection2DArray

from siamcar_ros.geometry import Box
from siamcar_ros.ros.detections import Detections
from siamcar_ros.ros.diagnostics import Counters
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.messages import box_to_bbox, hypothesis
from siamcar_ros.ros.parameters import NodeSettings
from siamcar_ros.ros.ring import FrameRing
from siamcar_ros.ros.services import TargetServices
from siamcar_ros.ros.targets import Tracked
from siamcar_ros.ros.worker import TrackWorker
from siamcar_ros.srv import InitTarget
from siamcar_ros.tracking import MultiTracker, TargetError, TrackerParams, TrackResult, TrackState


class Tracker:
    """Takes the place of a MultiTracker; fails where told to."""

    def __init__(self) -> None:
        self.params = TrackerParams()
        self.network = None
        self.timings = {"crop": 0.0, "network": 0.0, "decode": 0.0}
        self.failing = False
        self.seen: list[tuple[str, int]] = []
        self.candidates: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()

    def add(self, image: Any, box: Any, id: str) -> None:
        self.gate.wait(10)
        if box[2] <= 0:
            raise TargetError("no area")

    def remove(self, id: str) -> None:
        pass

    def stop(self) -> None:
        pass

    def update(
        self, image: Any, ids: list[str], candidates: Any = (), motion: Any = None
    ) -> dict[str, TrackResult]:
        self.gate.wait(10)
        self.candidates.append(candidates)
        if self.failing:
            raise RuntimeError("maps are not finite")
        self.seen += [(target, int(image.array[0, 0, 0])) for target in ids]
        return {target: TrackResult(BOX, 0.9, TrackState.TRACKING) for target in ids}


def worker_for(
    tracker: Tracker, ring: FrameRing, max_targets: int = 1
) -> tuple[TrackWorker, list[Tracked], Log]:
    handed: list[Tracked] = []
    log = Log()
    node, stand_in = node_of(ring, log, max_targets), cast(MultiTracker, tracker)
    worker = TrackWorker(node, lambda: stand_in, handed.append)
    return worker, handed, log


def node_of(ring: FrameRing, log: Log, max_targets: int = 1) -> Any:
    """What a worker needs of a node."""
    return SimpleNamespace(
        settings=NodeSettings(max_targets=max_targets, max_failures=3),
        ring=ring,
        counters=Counters(),
        camera_motion=None,
        get_logger=lambda: log,
    )


def filled_ring(count: int) -> tuple[FrameRing, list[Frame]]:
    """A ring with its frames: so far apart in arrival that no machine is too slow for any."""
    ring = FrameRing(seconds=1e9, memory=10**6)
    frames = [frame(stamp, received=1000.0 * stamp) for stamp in range(count)]
    for each in frames:
        ring.push(each)
    return ring, frames


def test_worker_catches_up_through_the_ring_in_order_and_hands_out_the_present() -> None:
    (ring, frames), tracker = filled_ring(8), Tracker()
    worker, handed, _ = worker_for(tracker, ring)
    assert "catching up" in worker.init(frames[2], BOX, "a").result(10).message
    wait_for("the present", lambda: [each for each in handed if each.results])
    assert tracker.seen == [("a", stamp) for stamp in range(3, 8)]
    assert [each.frame for each in handed if each.results] == [frames[7]]
    worker.mailbox.put(frames[7])  # has had its turn
    later = frame(8, received=9000.0)
    ring.push(later)
    worker.mailbox.put(later)
    wait_for("the next", lambda: handed[-1].frame is later)
    assert tracker.seen[-2:] == [("a", 7), ("a", 8)]
    assert worker.close(10)


def test_a_tracker_slower_than_the_camera_catches_up_too() -> None:
    """An image comes in during each that is tracked: the newest is never the one just done."""
    ring, tracker = FrameRing(seconds=1e9, memory=10**6), Tracker()
    worker, handed, _ = worker_for(tracker, ring)
    frames = [frame(stamp, received=1000.0 * stamp) for stamp in range(60)]
    waiting = iter(frames[3:])
    update = tracker.update

    def slow(image: Any, ids: list[str], *_: Any, **__: Any) -> dict[str, TrackResult]:
        arriving = next(waiting)
        ring.push(arriving)
        worker.mailbox.put(arriving)
        return update(image, ids)

    tracker.update = slow  # type: ignore[method-assign]
    for each in frames[:3]:
        ring.push(each)
    worker.init(frames[1], BOX, "a").result(10)
    wait_for("results", lambda: len([each for each in handed if each.results]) > 20)
    given = [each.frame.stamp for each in handed if each.results]
    assert given == sorted(set(given))
    assert worker.close(10)


def test_worker_hands_out_all_targets_of_an_image_or_none() -> None:
    (ring, frames), tracker = filled_ring(5), Tracker()
    worker, handed, log = worker_for(tracker, ring, max_targets=3)
    for target, start in (("a", frames[4]), ("b", frames[4]), ("c", frames[2])):
        worker.init(start, BOX, target).result(10)
    wait_for("the present", lambda: any("'c' has caught up" in line for line in log.lines))
    worker.mailbox.put(frame(5, received=9000.0))
    wait_for("the next", lambda: handed)
    assert [list(each.results) for each in handed] == [["a", "b", "c"]]
    assert worker.close(10)


def test_detections_are_looked_at_in_one_image() -> None:
    ring, tracker = FrameRing(seconds=1e9, memory=10**6), Tracker()
    worker, handed, _ = worker_for(tracker, ring)
    worker.init(frame(0), BOX, "a").result(10)
    worker.look_at([BOX])
    for stamp in (1, 2):
        worker.mailbox.put(frame(stamp))
        wait_for("the image", lambda: len(handed) == stamp)  # noqa: B023
    assert tracker.candidates == [(BOX,), ()]
    assert worker.close(10)


def test_detections_are_not_looked_at_in_the_images_of_the_past() -> None:
    (ring, frames), tracker = filled_ring(5), Tracker()
    worker, handed, log = worker_for(tracker, ring, max_targets=2)
    worker.init(frames[4], BOX, "a").result(10)
    worker.look_at([BOX])
    worker.init(frames[2], BOX, "b").result(10)
    wait_for("the present", lambda: any("'b' has caught up" in line for line in log.lines))
    worker.mailbox.put(frame(5, received=9000.0))
    wait_for("the next", lambda: handed)
    assert tracker.candidates == [(), (), (BOX,)]
    assert worker.close(10)


def test_a_detection_is_compared_with_where_the_targets_were_in_its_image() -> None:
    """A detector is slower than the tracker, and the target has moved on meanwhile."""
    (ring, frames), tracker = filled_ring(9), Tracker()
    worker, handed, _ = worker_for(tracker, ring, max_targets=2)
    x, y, w, h = BOX

    def moving(image: Any, ids: list[str], *_: Any, **__: Any) -> dict[str, TrackResult]:
        box = (x + 30.0 * int(image.array[0, 0, 0]), y, w, h)
        return {target: TrackResult(box, 0.9, TrackState.TRACKING) for target in ids}

    tracker.update = moving  # type: ignore[method-assign]
    worker.init(frames[0], BOX, "a").result(10)
    wait_for("the present", lambda: handed)
    node: Any = worker._node
    node.settings = NodeSettings(max_targets=2, use_detections=True, start_class="car")
    node.subscribe = lambda *_: None
    detections = Detections(node, worker)

    def detect(box: Box) -> Any:
        message = Detection2DArray(header=frames[2].header)
        each = Detection2D(bbox=box_to_bbox(box), results=[hypothesis("car", 0.9)])
        message.detections = [each]
        detections._on_message(message)
        return detections._starting

    assert detect((x + 60.0, y, w, h)) is None
    assert detect((x + 240.0, y, w, h)).result(10).id == "target-1"
    assert worker.close(10)


def test_worker_stops_targets_whose_images_change_size() -> None:
    ring, tracker = FrameRing(seconds=1e9, memory=10**6), Tracker()
    worker, handed, log = worker_for(tracker, ring, max_targets=3)
    worker.init(frame(0), BOX, "a").result(10)
    worker.mailbox.put(frame(1, height=12))
    wait_for("the other size", lambda: handed)
    assert handed[0].results == {}
    assert log.lines[-1] == "images are 10x12 now, were 10x10: stopped 'a'"
    worker.init(frame(2, height=12), BOX, "b").result(10)
    with pytest.raises(TargetError, match="no area"):
        worker.init(frame(3), (0.0, 0.0, 0.0, 1.0), "c").result(10)
    assert worker.targets == ("b",)
    assert worker.init(frame(3), BOX, "c").result(10).message.endswith("started in place of 'b'")
    assert worker.targets == ("c",)
    assert worker.close(10)


def test_worker_outlives_a_fault_and_tells_how_long_it_is_busy() -> None:
    ring, tracker = FrameRing(seconds=1e9, memory=10**6), Tracker()
    worker, handed, _ = worker_for(tracker, ring)
    worker.mailbox.put(Frame(SimpleNamespace(header=None)))  # has no format
    wait_for_failures(worker, 1)
    assert "AttributeError" in worker._counters.trouble
    worker.init(frame(0), BOX, "a").result(10)
    tracker.gate.clear()
    worker.mailbox.put(frame(1))
    wait_for("work", lambda: worker.busy > 0.05)
    tracker.gate.set()
    wait_for("rest", lambda: worker.busy == 0.0)
    assert handed[-1].results
    assert worker.close(10)
    assert worker.busy == math.inf


class Services:
    """The node's services as plain functions, on a worker with a stub tracker."""

    def __init__(self, max_targets: int = 1) -> None:
        ring = FrameRing(seconds=1e9, memory=10**6)
        ring.push(frame(1))
        self.tracker = Tracker()
        self.worker, _, log = worker_for(self.tracker, ring, max_targets)
        ready = (self.worker, SimpleNamespace(topic="/image", publishers=1))
        offered: dict[str, Any] = {}
        node: Any = SimpleNamespace(
            settings=SimpleNamespace(image_timeout=math.inf, events_executor=True),
            ring=ring,
            ready=lambda: ready,
            detections=None,
            create_service=lambda kind, name, callback, **_: offered.update({name: callback}),
            get_logger=lambda: log,
            executor=SimpleNamespace(wake=lambda: None),
        )
        TargetServices(node)
        self._offered = offered

    def init(self, name: str, size: float = 4.0) -> InitTarget.Response:
        request = InitTarget.Request(id=name)
        request.bbox.size_x = request.bbox.size_y = size
        return self._offered["~/init_target"](request, InitTarget.Response())

    def stop(self) -> Trigger.Response:
        return self._offered["~/stop_tracking"](Trigger.Request(), Trigger.Response())


def test_names_that_the_node_chooses_are_free() -> None:
    services = Services(max_targets=3)
    assert services.init("target-2").success
    assert [services.init("").id for _ in range(2)] == ["target-1", "target-3"]
    assert services.worker.targets == ("target-2", "target-1", "target-3")
    assert services.worker.close(10)


def test_services_answer_while_the_tracker_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services()
    assert services.init("a").success
    monkeypatch.setattr("siamcar_ros.ros.services.STUCK_AFTER", 0.1)
    services.tracker.gate.clear()
    services.worker.mailbox.put(frame(2))
    wait_for("the hang", lambda: services.worker.busy)
    answer = services.stop()
    assert (answer.success, "the tracker is stuck" in answer.message) == (False, True)
    services.tracker.gate.set()
    wait_for("its end", lambda: not services.worker.busy)
    assert services.worker.targets == ("a",)  # the request was withdrawn
    assert services.worker.close(10)


def test_a_start_that_was_answered_as_stuck_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services(max_targets=2)
    assert services.init("a").success
    monkeypatch.setattr("siamcar_ros.ros.services.STUCK_AFTER", 0.1)
    services.tracker.gate.clear()
    answer = services.init("b")
    assert (answer.success, "the tracker is stuck" in answer.message) == (False, True)
    then = services.worker.mailbox.submit(lambda: services.worker.targets)
    services.tracker.gate.set()
    assert then.result(10) == ("a", "b")
    wait_for("its end", lambda: services.worker.targets == ("a",))
    assert services.worker.close(10)


def test_a_start_on_a_point_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> Any:
        time.sleep(0.3)
        return BOX

    services = Services()
    monkeypatch.setattr("siamcar_ros.ros.services.STUCK_AFTER", 0.1)
    monkeypatch.setattr("siamcar_ros.ros.worker.box_about", slow)
    answer = services.init("a", size=0.0)
    assert answer.success, answer.message
    assert services.worker.close(10)


def test_a_request_that_waits_holds_up_no_other_callback() -> None:
    robot = Robot(SimpleNamespace(namespace="/held"))  # type: ignore[arg-type]
    ring, tracker = FrameRing(seconds=0, memory=1), Tracker()
    worker, _, _ = worker_for(tracker, ring)
    worker.init(frame(0), BOX, "a").result(10)
    node: Any = robot.node
    node.settings = SimpleNamespace(events_executor=False)
    node.ready = lambda: (worker, None)
    TargetServices(node)
    ticks: list[None] = []
    robot.node.create_timer(0.01, lambda: ticks.append(None))
    client = robot.node.create_client(Trigger, "~/stop_tracking")
    tracker.gate.clear()
    worker.mailbox.put(frame(1))
    wait_for("work", lambda: worker.busy)
    assert client.wait_for_service(PATIENCE)
    future = client.call_async(Trigger.Request())
    wait_for("the request", lambda: worker.mailbox._requests)
    ticks.clear()
    wait_for("other callbacks", lambda: len(ticks) > 3)
    assert not future.done()
    tracker.gate.set()
    wait_for("answer", future.done)
    assert future.result().message == "stopped 'a'"
    assert worker.close(10)
    robot.close()


def test_images_without_an_encoding_are_named_and_stop_nothing() -> None:
    ring, tracker = FrameRing(seconds=1e9, memory=10**6), Tracker()
    worker, _, log = worker_for(tracker, ring)
    for stamp in range(8):
        nameless = frame(stamp)
        nameless.message.encoding = ""
        worker.mailbox.put(nameless)
        wait_for_failures(worker, stamp + 1)
    assert "encoding '' is not supported" in worker._counters.trouble
    assert not [line for line in log.lines if "in a row" in line]
    assert worker.close(10)


def wait_for_failures(worker: TrackWorker, count: int) -> None:
    wait_for(f"failure {count}", lambda: worker._counters.failed == count)


def test_worker_logs_failures_and_gives_up_only_after_many() -> None:
    ring, tracker = FrameRing(seconds=1e9, memory=10**6), Tracker()
    worker, handed, log = worker_for(tracker, ring)
    first = frame(0)
    ring.push(first)
    worker.init(first, BOX, "a").result(10)
    with pytest.raises(TargetError, match="no area"):
        worker.init(first, (0.0, 0.0, 0.0, 1.0), "b").result(10)
    assert worker.targets == ("a",)
    tracker.failing = True
    for stamp in (1, 2):
        worker.mailbox.put(frame(stamp))
        wait_for_failures(worker, stamp)
    tracker.failing = False
    worker.mailbox.put(frame(3))
    wait_for("recovery", lambda: handed and handed[-1].results)
    tracker.failing = True
    for stamp in (4, 5, 6):
        worker.mailbox.put(frame(stamp))
        wait_for_failures(worker, stamp - 1)
    wait_for("end of the track", lambda: worker.targets == ())
    assert "maps are not finite" in worker._counters.trouble
    assert any("3 times in a row; stopped 'a'" in line for line in log.lines)
    assert worker.close(10)


def test_worker_that_cannot_load_says_why() -> None:
    def load() -> NoReturn:
        raise FileNotFoundError("no weights")

    worker = TrackWorker(node_of(FrameRing(seconds=0, memory=1), Log()), load, lambda _: None)
    with pytest.raises(FileNotFoundError, match="no weights"):
        worker.loaded.result(10)
    assert worker.stop().cancelled()
    assert worker.close(10)
