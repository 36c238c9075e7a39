"""Parts of the node, without processes: mailbox, ring, network, parameters, diagnostics."""

from __future__ import annotations

import ast
import gc
import sys
import threading
import weakref
from concurrent.futures import CancelledError
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from node_harness import BOX, camera_info, frame
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from vision_msgs.msg import BoundingBox2D

import siamcar_ros.ros
from siamcar_ros.resources import resource_path
from siamcar_ros.ros.diagnostics import Health
from siamcar_ros.ros.loading import evict, load_tracker
from siamcar_ros.ros.mailbox import Mailbox
from siamcar_ros.ros.messages import bbox_to_box, detection
from siamcar_ros.ros.parameters import NodeSettings, checked_name, markdown
from siamcar_ros.ros.ring import FrameRing, free_memory
from siamcar_ros.tracking import TrackerParams, TrackResult, TrackState


def test_mailbox_keeps_the_newest_and_counts_the_others() -> None:
    mailbox = Mailbox()
    assert [mailbox.put(frame(stamp)) for stamp in range(5)] == [False, True, True, True, True]
    future = mailbox.submit(lambda: 7)
    taken = mailbox.take(wait=True)
    assert taken is not None
    requests, newest = taken
    assert newest is not None
    assert newest.stamp == 4
    assert [(function(), asked) for function, asked in requests] == [(7, future)]
    assert mailbox.take(wait=False) == ([], None)


def test_closed_mailbox_wakes_the_waiting_and_refuses() -> None:
    mailbox = Mailbox()
    ended = threading.Event()

    def worker() -> None:
        if mailbox.take(wait=True) is None:
            ended.set()

    thread = threading.Thread(target=worker)
    thread.start()
    mailbox.close()
    assert ended.wait(10)
    thread.join()
    assert mailbox.submit(lambda: None).cancelled()


def test_requests_left_in_a_closed_mailbox_are_cancelled() -> None:
    mailbox = Mailbox()
    future = mailbox.submit(lambda: None)
    mailbox.close()
    with pytest.raises(CancelledError):
        future.result(timeout=1)


def stamps(ring: FrameRing) -> tuple[int, int]:
    """Of the oldest and the newest frame."""
    span = ring.span()
    assert span is not None
    return span[0].stamp, span[1].stamp


def test_ring_is_limited_in_age_and_in_bytes_and_says_what_it_holds() -> None:
    ring = FrameRing(seconds=4, memory=10**6)
    assert ring.newest() is None
    assert ring.span() is None
    for stamp in range(10):
        ring.push(frame(stamp))
    assert stamps(ring) == (5, 9)
    assert ring.at(4) is None
    found = ring.at(7)
    assert found is not None
    assert found.stamp == 7
    ring.resize(seconds=4, memory=650)  # two frames of 300 bytes
    assert stamps(ring) == (8, 9)
    said = "the memory for past images, 0.00065 MB, holds the last 1.0 s (2 images), not 4 s"
    assert [ring.push(frame(stamp)) for stamp in (10, 11)] == [said, ""]
    ring.resize(seconds=4, memory=1)
    assert len(ring) == 1  # the newest stays
    ring.clear()
    assert len(ring) == 0


@pytest.mark.parametrize(("limit", "free"), [("4000", 2500), ("99000", 8192)])
def test_a_container_s_page_cache_is_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, free: int
) -> None:
    for name, text in (
        ("meminfo", "MemTotal: 9 kB\nMemAvailable: 8 kB\n"),
        ("memory.max", limit),
        ("memory.current", "3800"),
        ("memory.stat", "anon 1000\nfile 2800\nactive_file 500\ninactive_file 2300\n"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("siamcar_ros.ros.ring.Path", lambda path: tmp_path / Path(path).name)
    (tmp_path / "cgroup").symlink_to(tmp_path)
    assert free_memory() == free


def test_ring_goes_forward_by_arrival_and_ends_at_the_newest() -> None:
    ring = FrameRing(seconds=1e9, memory=10**6)
    frames = [frame(stamp, received=0.1 * stamp) for stamp in range(10)]
    for each in frames:
        ring.push(each)
    assert ring.after(frames[0]) is frames[1]
    assert ring.after(frames[0], skip=0.35) is frames[4]
    assert ring.after(frames[0], skip=99.0) is frames[9]
    assert ring.after(frames[9]) is None
    forgotten = frame(0, received=-5.0)
    assert ring.after(forgotten) is frames[0]


def test_nodes_of_one_process_share_a_network_and_free_it(config: Path) -> None:
    settings = NodeSettings(config=str(config), backend="torch", max_targets=2)
    one, other = load_tracker(settings), load_tracker(settings.changed({"lr": 0.1}))
    assert one.network is other.network
    assert one is not other
    assert repr(one.network) == "<compact on cpu by torch, fp32>"
    network = weakref.ref(one.network)
    del one, other
    gc.collect()
    assert network() is None


def test_a_network_that_hangs_is_not_shared_with_the_next_tracker(config: Path) -> None:
    settings = NodeSettings(config=str(config), backend="torch")
    network: Any = load_tracker(settings).network
    evict(network)
    assert load_tracker(settings).network is not network


def test_settings_are_checked_together() -> None:
    with pytest.raises(ValueError, match="image_transport is one of raw, compressed"):
        NodeSettings(image_transport="theora")
    with pytest.raises(ValueError, match=r"backend is one of auto, .*torch.*, not 'tensorflow'"):
        NodeSettings(backend="tensorflow")
    with pytest.raises(ValueError, match=r"precision is one of auto, fp32, .*, not 'fp8'"):
        NodeSettings(precision="fp8")
    with pytest.raises(ValueError, match=r"lost_below 0\.8 .* uncertain_below 0\.2: set both"):
        NodeSettings(lost_below=0.8, uncertain_below=0.2)
    settings = NodeSettings().changed({"lr": 0.5, "use_sim_time": True})
    assert settings.tracker == TrackerParams(lr=0.5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 257, "257 bytes, more than the limit of 256"), ("a\nb", "cannot be printed")],
)
def test_names_are_short_and_printable(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        NodeSettings(class_id=name)
    assert len(str(error.value)) < 400
    assert checked_name("id", "é" * 128) == "é" * 128


def test_every_tracker_knob_is_a_parameter_and_every_parameter_is_documented() -> None:
    names = [each.name for each in fields(NodeSettings)]
    assert set(TrackerParams.names()) <= set(names)
    table = markdown()
    assert all(f"| `{name}` |" in table for name in names)


def test_shipped_parameter_file_holds_the_defaults() -> None:
    content = yaml.safe_load(resource_path("config/tracker.yaml").read_text())
    shipped = content["/**"]["ros__parameters"]
    knobs = set(TrackerParams.names())
    defaults = {each.name: each.default for each in fields(NodeSettings) if each.name not in knobs}
    assert shipped == defaults


def test_box_round_trip_and_lost_detection_claims_nothing() -> None:
    header = camera_info().header
    seen = detection(header, "a", TrackResult((1, 2, 3, 4), 0.5, TrackState.UNCERTAIN), "cat")
    assert bbox_to_box(seen.bbox) == (1.0, 2.0, 3.0, 4.0)
    assert seen.results[0].hypothesis.class_id == "cat"
    assert not detection(header, "a", TrackResult(BOX, 0.1, TrackState.LOST), "cat").results
    turned = BoundingBox2D()
    turned.center.theta = 0.3
    with pytest.raises(ValueError, match="upright"):
        bbox_to_box(turned)


def test_annotations_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foxglove_msgs", None)
    monkeypatch.setattr("siamcar_ros.ros.parameters.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="annotations needs foxglove_msgs, which is not installed"):
        NodeSettings(annotations=True)


def test_health_names_the_worst() -> None:
    known = SimpleNamespace(
        active=True,
        topic="/image",
        publishers=0,
        silence=0.1,
        silence_allowed=2.0,
        used=5,
        failed=0,
        trouble="",
        busy=0.1,
        twins=1,
    )
    assert Health(**vars(known)).summary()[1] == "running"
    known.silence = 3.0
    assert "no image on /image for 3.0 s (0 publishers)" in Health(**vars(known)).summary()[1]
    known.failed, known.trouble = 2, "corrupt"
    corrupt = "2 images not used: corrupt"
    assert Health(**vars(known)).summary() == (DiagnosticStatus.WARN, corrupt)
    known.used = 0
    assert Health(**vars(known)).summary() == (DiagnosticStatus.ERROR, corrupt)
    known.used, known.failed, known.silence, known.twins = 5, 0, 0.1, 2
    assert Health(**vars(known)).summary()[0] == DiagnosticStatus.WARN
    assert "2 nodes have this name" in Health(**vars(known)).summary()[1]
    known.busy = 7.0
    assert Health(**vars(known)).summary() == (
        DiagnosticStatus.ERROR,
        "the tracker is stuck: busy for 7.0 s",
    )
    known.active = False
    assert Health(**vars(known)).summary()[1] == "inactive"


def test_nodes_leave_rclpys_attributes_alone() -> None:
    context = Context()
    rclpy.init(context=context)
    try:
        node = LifecycleNode("empty", context=context)
        taken = {name for name in (*dir(node), *vars(node)) if not name.startswith("__")}
        node.destroy_node()
    finally:
        context.try_shutdown()
    files = Path(siamcar_ros.ros.__path__[0]).glob("*.py")
    classes = [each for file in files for each in ast.walk(ast.parse(file.read_text()))]
    nodes = 0
    for each in classes:
        bases = {getattr(base, "id", "") for base in getattr(each, "bases", ())}
        if bases & {"Node", "LifecycleNode"}:
            nodes += 1
            parts = [part for part in ast.walk(each) if isinstance(part, ast.Attribute)]
            stored = {part.attr for part in parts if isinstance(part.ctx, ast.Store)}
            assert not stored & taken, ast.unparse(each)[:80]
    assert nodes >= 7
