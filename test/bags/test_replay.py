"""Replay: every image once, scored, the same bytes twice, and what is wrong named."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from siamcar_ros.bags import replay_report
from siamcar_ros.bags.messages import (
    COMPRESSED_IMAGE,
    DETECTION,
    IMAGE,
    compressed_message,
    detection_message,
    image_message,
)
from siamcar_ros.bags.reader import Bag, BagError
from siamcar_ros.bags.replay import (
    GroundTruth,
    ReplayFrame,
    replay,
    replay_score,
)
from siamcar_ros.bags.start import Start, StartError, parse_start
from siamcar_ros.bags.writer import BagWriter
from siamcar_ros.cli import main
from siamcar_ros.commands import replay as command
from siamcar_ros.data.annotations import read_boxes
from siamcar_ros.data.detections import Box, detection_box, stamp_of
from siamcar_ros.data.sequences import read_sequence
from siamcar_ros.evaluation.trackers import TrackerSpec
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
    """Finds the bright square exactly; counts what it is asked."""

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
    images: range = range(FRAMES),
    pixels: tuple[int, int] = SIZE,
) -> Path:
    with BagWriter(folder) as writer:
        writer.add_topic(TOPIC, COMPRESSED_IMAGE if compressed else IMAGE)
        writer.add_topic(TRUTH, DETECTION)
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
            if i not in images:
                continue
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


def run(bag_path: Path, start: Start, truth: str | Path | None = TRUTH) -> tuple[list, list[str]]:
    with Bag(bag_path) as bag:
        known = None
        if isinstance(truth, Path):
            known = GroundTruth.from_file(truth)
        elif truth is not None:
            known = GroundTruth.from_topic(bag, truth, TOPIC)
        frames = [f for f, _ in replay(bag, BrightestSquare(), TOPIC, start, known)]
        return frames, bag.notes + ([] if known is None else known.notes)


def overlaps(frames: list[ReplayFrame]) -> np.ndarray:
    """Of each frame, NaN where it is not scored."""
    scored = replay_score(frames)
    return np.full(len(frames), np.nan) if scored is None else scored.overlaps


@pytest.fixture
def fixed_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TrackerSpec("Brightest", f"{__name__}:BrightestSquare")
    monkeypatch.setattr(TrackerSpec, "build", lambda self: BrightestSquare())
    monkeypatch.setattr(command, "_tracker_spec", lambda args: spec)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("412,230,60,80@12.5", Start((412, 230, 60, 80), 12.5)),
        ("1.5,2,3,4", Start((1.5, 2, 3, 4), None)),
        ("@3", Start(None, 3.0)),
    ],
)
def test_starts_as_they_are_typed(text: str, expected: Start, tmp_path: Path) -> None:
    assert parse_start(text) == expected
    (tmp_path / "init.txt").write_text(text + "\n")
    assert parse_start(str(tmp_path / "init.txt")) == expected


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,3,4@", "@", "@nan", "@inf"]
)
def test_what_is_no_start_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="cannot read"):
        parse_start(text)


@pytest.mark.parametrize("compressed", [False, True])
def test_every_image_is_tracked_once_and_scored(tmp_path: Path, compressed: bool) -> None:
    frames, notes = run(make_bag(tmp_path / "bag", compressed=compressed), Start())
    assert [f.index for f in frames] == list(range(FRAMES))
    assert [f.stamp for f in frames] == [START + i * PERIOD for i in range(FRAMES)]
    assert [f.state for f in frames] == [
        "started",
        *["tracking"] * 2,
        "lost",
        *["tracking"] * (FRAMES - 4),
    ]
    assert [f.box for f in frames] == [true_box(i) for i in range(FRAMES)]
    overlap = overlaps(frames)
    assert math.isnan(overlap[0])
    assert (overlap[1:] == 1).all()
    assert notes == []


@pytest.mark.parametrize(("depth", "note"), [("auto", "12 significant bits"), ("bits:12", "")])
def test_images_of_twelve_bits_are_tracked_and_their_scaling_is_noted(
    tmp_path: Path, depth: str, note: str
) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic(TOPIC, IMAGE)
        for i in range(3):
            message = image_message(picture(i), START + i, "cam")
            message.encoding, message.step = "mono16", 2 * SIZE[1]
            deep = picture(i)[..., 0].astype("<u2") * 16 + 15
            message.data = deep.reshape(-1).view(np.uint8)
            writer.write(TOPIC, message, START + i)
    with Bag(tmp_path / "bag") as bag:
        start = Start(true_box(0))
        pairs = list(replay(bag, BrightestSquare(), TOPIC, start, depth=depth))
        assert [frame.box for frame, _ in pairs] == [true_box(i) for i in range(3)]
        assert len(bag.notes) == 1
        assert note in bag.notes[0]


@pytest.mark.slow
def test_the_start_is_the_first_image_at_or_after_the_moment(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag")
    for seconds, expected in ((0.0, 0), (0.25, 5), (0.2500001, 6), (0.26, 6), (0.95, 19)):
        frames, _ = run(bag, Start((1, 2, 3, 4), seconds))
        assert next(f.index for f in frames if f.state == "started") == expected
        assert frames[expected].box == (1, 2, 3, 4)
        assert all(f.state == "before" and f.box is None for f in frames[:expected])
        truthful, _ = run(bag, Start(None, seconds))
        assert truthful[expected].box == true_box(expected)


def test_without_ground_truth_there_are_boxes_but_no_scores(tmp_path: Path) -> None:
    frames, _ = run(make_bag(tmp_path / "bag"), Start(true_box(0)), truth=None)
    assert frames[-1].box == true_box(FRAMES - 1)
    assert np.isnan(overlaps(frames)).all()


def test_images_that_do_not_decode_are_named_skipped_and_the_rest_scored(tmp_path: Path) -> None:
    for compressed, reason in ((True, "cannot be decoded"), (False, "'sepia8' is not supported")):
        bag = make_bag(tmp_path / f"bag{compressed}", compressed=compressed, broken=(0, 7))
        frames, _ = run(bag, Start())
        assert [f.index for f in frames if f.state == "skipped"] == [0, 7]
        assert reason in frames[7].error
        assert frames[1].state == "started"
        assert np.flatnonzero(np.isnan(overlaps(frames))).tolist() == [0, 1, 7]


def test_a_message_that_does_not_deserialise_is_skipped(tmp_path: Path) -> None:
    folder = make_bag(tmp_path / "bag")
    with BagWriter(tmp_path / "torn") as writer:
        writer.add_topic(TOPIC, IMAGE)
        with Bag(folder) as bag:
            for i, recorded in enumerate(bag.messages(TOPIC)):
                writer.write(TOPIC, recorded.message, recorded.time)
                if i == 3:
                    connection = writer._connections[TOPIC]
                    writer._writer.write(connection, recorded.time + 1, b"\0\1\0\0torn")
    frames, _ = run(tmp_path / "torn", Start(true_box(0)), truth=None)
    assert [f.index for f in frames if f.state == "skipped"] == [4]
    assert "sensor_msgs/msg/Image" in frames[4].error
    assert len(frames) == FRAMES + 1


def test_absent_and_missing_truths_are_not_scored(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag", truths=range(2, 15), absent=(5, 6))
    frames, notes = run(bag, Start())
    assert frames[2].state == "started"
    scored = np.flatnonzero(~np.isnan(overlaps(frames))).tolist()
    assert scored == [3, 4, *range(7, 15)]
    assert notes == [
        "/truth: 7 of 20 images have no ground truth of the same stamp and are not scored"
    ]


def test_truths_of_other_stamps_are_not_taken(tmp_path: Path) -> None:
    bag = make_bag(tmp_path / "bag", truth_delay=1)
    with pytest.raises(BagError, match="no image decodes and has a ground truth"):
        run(bag, Start())


@pytest.mark.parametrize(
    ("rows", "note"), [(12, "no image from 13 on is scored"), (25, "the rest is unused")]
)
def test_a_truth_file_of_another_length_is_used_as_far_as_it_goes(
    tmp_path: Path, rows: int, note: str
) -> None:
    lines = ["nan,nan,nan,nan" if i == 4 else ",".join(map(str, true_box(i))) for i in range(rows)]
    (tmp_path / "truth.txt").write_text("\n".join(lines))
    frames, notes = run(make_bag(tmp_path / "bag"), Start(), tmp_path / "truth.txt")
    scored = np.flatnonzero(~np.isnan(overlaps(frames))).tolist()
    assert scored == [i for i in range(1, min(rows, FRAMES)) if i != 4]
    assert len(notes) == 1
    assert note in notes[0]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (Start((1, 2, 3, 4), 12.5), r"12\.5 s lies outside .* 0\.950 s long"),
        (Start((1, 2, 3, 4), -0.1), r"-0\.1 s lies outside"),
        (Start((1000, 2, 3, 4)), "wholly outside"),
    ],
)
def test_starts_that_cannot_be_are_refused(tmp_path: Path, start: Start, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(make_bag(tmp_path / "bag"), start)


def test_no_start_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="nothing says where the target is"):
        run(make_bag(tmp_path / "bag"), Start(), truth=None)
    with pytest.raises(BagError, match=r"at or after 0\.5 s decodes and has a ground truth"):
        run(make_bag(tmp_path / "early", truths=range(5)), Start(None, 0.5))


@pytest.mark.usefixtures("fixed_tracker")
@pytest.mark.parametrize(
    ("storage", "has_av"), [("mcap", True), ("sqlite3", True), ("mcap", False)]
)
@pytest.mark.slow
def test_the_same_bag_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, has_av: bool
) -> None:
    if has_av:
        pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    bag = make_bag(tmp_path / "bag", broken=(7,))
    made = []
    for name in ("a", "b"):
        out = tmp_path / name
        arguments = ["replay", str(bag), "--ground-truth-topic", TRUTH, "--storage", storage]
        assert main([*arguments, "--output", str(out)]) == 0
        files = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
        assert set(files) >= {"bag/metadata.yaml", "replay.mp4", "boxes.txt", "frames.csv"}
        assert "report/report.html" in files
        timed = [k for k in files if k == "timing.json" or k.startswith("report/")]
        made.append({k: p.read_bytes() for k, p in files.items() if k not in timed})
    assert made[0] == made[1]
    assert (b"replay.mp4 is MPEG-4 Part 2" in made[0]["report.json"]) is not has_av


def check_tracks(tracks: list[Any]) -> None:
    """One target a message, which moves by (3, 1) pixels in each twentieth of a second."""
    assert [stamp_of(m) for m in tracks] == [START + i * PERIOD for i in range(4, FRAMES)]
    assert {(m.image_width, m.image_height, len(m.tracks)) for m in tracks} == {(128, 96, 1)}
    first, third, lost, last = (tracks[i].tracks[0] for i in (0, 2, 3, -1))
    assert (first.id, first.state, first.score) == ("red car", 1, 1.0)
    assert math.isnan(first.velocity.x)
    assert (third.velocity.x, third.velocity.y) == pytest.approx((60, 20))
    assert (lost.state, lost.seconds_lost) == (3, pytest.approx(0.05))
    assert (last.state, last.seconds_lost) == (1, 0)


def check_drawings(drawings: list[Any]) -> None:
    """The true box in white and the tracker's box, labeled, in the color of its state."""
    counts = [(len(m.points), len(m.texts)) for m in drawings]
    assert counts == [(1 if i == 9 else 2, 1) for i in range(4, FRAMES)]
    truth, found = drawings[3].points
    x, y, w, h = true_box(7)
    corners = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
    assert [(p.x, p.y) for p in found.points] == corners == [(p.x, p.y) for p in truth.points]
    assert (truth.outline_color.g, truth.outline_color.b) == (1, 1)
    assert found.outline_color.r > 2 * found.outline_color.g
    assert [drawings[i].texts[0].text for i in (3, 4)] == ["red car 0.90 lost", "red car 0.90"]


@pytest.mark.usefixtures("fixed_tracker")
@pytest.mark.parametrize("overlay", ["compressed", "raw", "none"])
def test_the_new_bag_holds_detections_truth_and_overlay(tmp_path: Path, overlay: str) -> None:
    bag_path, out = make_bag(tmp_path / "bag", absent=(9,)), tmp_path / "out"
    arguments = ["replay", str(bag_path), "--init", "22,24,14,18@0.2", "--track-id", "red car"]
    arguments += ["--ground-truth-topic", TRUTH, "--output", str(out), "--overlay", overlay]
    arguments += ["--no-report"]
    assert main(arguments) == 0
    with Bag(out / "bag") as bag:
        detections = [m.message for m in bag.messages("/siamcar/detection")]
        truths = [m.message for m in bag.messages("/siamcar/ground_truth")]
        times = [m.time for m in bag.messages("/siamcar/detection")]
        images = list(bag.messages(bag.image_topic("/siamcar/image/compressed")))
        topic = "/siamcar/overlay" + ("" if overlay == "raw" else "/compressed")
        overlays = [] if overlay == "none" else list(bag.messages(bag.image_topic(topic)))
        tracks = [m.message for m in bag.messages("/siamcar/tracks")]
        drawings = [m.message for m in bag.messages("/siamcar/annotations")]
    tracked = range(4, FRAMES)
    assert times == [START + i * PERIOD for i in tracked]
    assert [stamp_of(m) for m in detections] == times
    assert [detection_box(m) for m in detections] == [true_box(i) for i in tracked]
    assert [detection_box(m) for m in truths] == [true_box(i) for i in tracked if i != 9]
    assert {(m.id, m.header.frame_id) for m in detections if m} == {("red car", "cam")}
    # A lost target keeps its last box, and nothing is seen in it.
    assert [len(m.results) for m in detections if m][:5] == [1, 1, 1, 0, 1]
    assert detections[4] is not None
    assert detections[4].results[0].hypothesis.score == 0.9
    assert len(overlays) == (0 if overlay == "none" else len(tracked))
    assert [stamp_of(each.message) for each in images] == times
    check_tracks(tracks)
    check_drawings(drawings)
    link = yaml.safe_load((out / "bag" / "metadata.yaml").read_text())
    assert link["rosbag2_bagfile_information"]["custom_data"] == {
        "source_bag": str(bag_path),
        "source_topic": TOPIC,
    }
    capture = cv2.VideoCapture(str(out / "replay.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(tracked)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(20.0)


@pytest.mark.usefixtures("fixed_tracker")
def test_the_text_results_and_the_report_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag_path, out = make_bag(tmp_path / "bag", broken=(7,)), tmp_path / "out"
    arguments = ["replay", str(bag_path), "--topic", TOPIC, "--ground-truth-topic", TRUTH]
    assert main([*arguments, "--output", str(out), "--no-video"]) == 0
    printed = capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert (report["images"], report["tracked"], report["scored"]) == (20, 18, 18)
    assert report["score"] == {
        "average_overlap": 1.0,
        "success_50": 1.0,
        "success_75": 1.0,
        "precision_20": 1.0,
    }
    assert [(s["image"], s["seconds"]) for s in report["skipped"]] == [(7, 0.35)]
    assert "sepia8" in report["skipped"][0]["error"]
    assert "skipped image 7 at 0.350 s" in printed
    boxes = read_boxes(out / "boxes.txt")
    assert np.flatnonzero(np.isnan(boxes[:, 0])).tolist() == [7]
    assert boxes[12].tolist() == list(true_box(12))
    assert len((out / "frames.csv").read_text().splitlines()) == FRAMES + 1
    assert not (out / "replay.mp4").exists()
    page = json.loads((out / "report" / "report.json").read_text())
    assert page["trackers"]["Brightest"]["measures"]["ao"] == 1.0
    assert not (out / "sequence").exists()
    assert json.loads((out / "timing.json").read_text())["frames_per_second"] > 0


@pytest.mark.usefixtures("fixed_tracker")
def test_the_tracked_images_are_kept_as_a_sequence_on_request(tmp_path: Path) -> None:
    bag_path, out = make_bag(tmp_path / "bag", broken=(7,), absent=(9,)), tmp_path / "out"
    arguments = ["replay", str(bag_path), "--init", "@0.2", "--ground-truth-topic", TRUTH]
    assert main([*arguments, "--output", str(out), "--keep-sequence", "--no-report"]) == 0
    sequence = read_sequence(out / "sequence" / "bag")
    tracked = [i for i in range(4, FRAMES) if i != 7]
    assert len(sequence) == len(tracked)
    for path, row, i in zip(sequence.frames, sequence.boxes, tracked, strict=True):
        expected = (np.nan,) * 4 if i == 9 else true_box(i)
        np.testing.assert_allclose(row, expected)
        image = cv2.imread(str(path))
        assert image is not None
        assert BrightestSquare().update(image).box == true_box(i)
    assert not (out / "report").exists()


@pytest.mark.usefixtures("fixed_tracker")
def test_what_is_read_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    bag = make_bag(tmp_path / "run" / "bag")
    before = {file.name: file.read_bytes() for file in bag.iterdir()}
    arguments = ["replay", str(bag), "--ground-truth-topic", TRUTH, "--no-video", "--overwrite"]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in bag.iterdir()} == before


@pytest.mark.usefixtures("fixed_tracker")
def test_a_bag_may_be_the_folder_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_bag(tmp_path / "drive"))
    assert main(["replay", ".", "--ground-truth-topic", TRUTH.strip("/"), "--no-video"]) == 0
    report = json.loads((tmp_path / "drive/drive_replay/report.json").read_text())
    assert report["bag"] == "drive"


@pytest.mark.usefixtures("fixed_tracker")
def test_results_are_replaced_only_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["replay", str(make_bag(tmp_path / "bag")), "--ground-truth-topic", TRUTH]
    arguments += ["--output", str(tmp_path / "out"), "--no-video", "--no-report"]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "boxes.txt").write_text("my own")
    assert main([*arguments, "--output", str(tmp_path / "mine")]) == 2
    assert "boxes.txt" in capsys.readouterr().err
    assert (tmp_path / "mine" / "boxes.txt").read_text() == "my own"
    assert main([*arguments, "--overwrite", "--images", "none"]) == 0
    with Bag(tmp_path / "out" / "bag") as bag:
        names = ("detection", "ground_truth", "tracks", "annotations")
        assert set(bag.topics) == {f"/siamcar/{name}" for name in names}


@pytest.mark.usefixtures("fixed_tracker")
def test_a_truncated_bag_is_scored_as_far_as_it_is_readable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag_path = make_bag(tmp_path / "bag", pixels=(360, 480))
    file = bag_path / "bag.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    out = tmp_path / "out"
    arguments = ["replay", str(bag_path), "--ground-truth-topic", TRUTH, "--output", str(out)]
    assert main([*arguments, "--no-report"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert 5 <= report["scored"] <= 10
    assert report["score"]["average_overlap"] == 1.0
    assert "is cut off; it is read up to there" in report["notes"][0]
    assert "note: bag.mcap is cut off" in capsys.readouterr().out


def test_truths_whose_stamps_repeat_are_taken_in_order(tmp_path: Path) -> None:
    frames, notes = run(make_bag(tmp_path / "bag", stamped=False, absent=(5,)), Start())
    assert frames[0].box == true_box(0)
    overlap = overlaps(frames)
    assert np.flatnonzero(np.isnan(overlap)).tolist() == [0, 5]
    assert np.nanmin(overlap) == 1.0
    assert notes == ["/truth: stamps repeat; the boxes are taken in the images' order"]


def test_truths_whose_stamps_repeat_are_refused_where_their_order_says_nothing(
    tmp_path: Path,
) -> None:
    bag = make_bag(tmp_path / "bag", stamped=False, images=range(3, FRAMES))
    with pytest.raises(BagError, match=r"same stamp, and there are 20 of them for 17 images"):
        run(bag, Start())


def results_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Failing(BrightestSquare):
    """Raises on its eighth image."""

    def update(self, image: np.ndarray) -> Found:
        if self.updates == 7:
            raise ValueError("no more")
        return super().update(image)


@pytest.mark.usefixtures("fixed_tracker")
@pytest.mark.parametrize("failure", ["tracker", "page"])
@pytest.mark.slow
def test_a_run_that_fails_keeps_the_results_that_it_was_to_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    arguments = ["replay", str(make_bag(tmp_path / "bag")), "--ground-truth-topic", TRUTH]
    arguments += ["--output", str(tmp_path / "out"), "--keep-sequence"]
    assert main(arguments) == 0
    (tmp_path / "out" / "mine.txt").write_text("my own")
    before = results_of(tmp_path / "out")
    if failure == "tracker":
        monkeypatch.setattr(TrackerSpec, "build", lambda self: Failing())
    else:

        def full(*arguments: object, **options: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(replay_report.SequenceExport, "write_report", full)
    assert main([*arguments, "--overwrite"]) == 2
    assert results_of(tmp_path / "out") == before
    monkeypatch.undo()
    assert main([*arguments, "--overwrite", "--baseline", "mil", "--no-video"]) == 0
    after = results_of(tmp_path / "out")
    assert after["mine.txt"] == b"my own"
    assert "replay.mp4" not in after, "nothing is left of the earlier run"
    assert after["boxes.txt"] != before["boxes.txt"]


@pytest.mark.usefixtures("fixed_tracker")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """The limit on a file's size fails as a full disk does, in a process of its own."""
    bag = make_bag(tmp_path / "bag")
    out = tmp_path / "out"
    arguments = ["replay", str(bag), "--ground-truth-topic", TRUTH, "--output", str(out)]
    ran = in_a_process(
        [*arguments, "--baseline", "mil"],
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, -1))",
    )
    assert ran.wait() == 2
    assert ran.stderr is not None
    assert "siamcar: error:" in ran.stderr.read()
    assert not out.exists()


def in_a_process(arguments: list[str], before: str = "") -> subprocess.Popen[str]:
    code = f"import sys\n{before}\nfrom siamcar_ros.cli import main\nsys.exit(main({arguments!r}))"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.slow
def test_a_run_that_is_ended_leaves_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals
) -> None:
    temporary, out = tmp_path / "tmp", tmp_path / "out"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    bag = make_bag(tmp_path / "bag")
    slow = (
        "import time\nimport siamcar_ros.bags.replay_output as r\nadd = r.ReplayOutput._add\n"
        "def slowly(*arguments):\n    time.sleep(0.5)\n    add(*arguments)\n"
        "r.ReplayOutput._add = slowly"
    )
    arguments = ["replay", str(bag), "--ground-truth-topic", TRUTH, "--baseline", "mil"]
    arguments += ["--output", str(out), "--no-video"]
    run = in_a_process(arguments, slow)
    while run.poll() is None and not list(out.glob(".replay-*/sequence/bag/*.jpg")):
        time.sleep(0.05)
    run.send_signal(ending)
    run.wait()
    if ending == signal.SIGTERM:
        assert run.returncode == 128 + signal.SIGTERM
        assert not out.exists()
        assert list(temporary.iterdir()) == []
    assert main(arguments) == 0
    assert [path.name for path in out.glob(".*")] == []
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with Bag(bag):
        assert len(list(temporary.iterdir())) == 1, "what the killed one left is gone"


@pytest.mark.usefixtures("fixed_tracker")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Detection2D topics in the bag: /truth"),
        (["--topic", "/nose"], "its image topics are: /camera/image_raw"),
        (["--init", "1,2,3"], "cannot read '1,2,3'"),
        (["--init", "1,2,3,4@99"], "lies outside"),
        (["--ground-truth-topic", "/nose"], "its Detection2D topics are: /truth"),
        (["--ground-truth", "a", "--ground-truth-topic", "b"], "not both"),
        (["--ground-truth-topic", TRUTH, "--image-depth", "12"], "expected auto, bits:N"),
    ],
)
def test_mistakes_on_the_command_line_are_told_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["replay", str(make_bag(tmp_path / "bag")), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "bag_replay").exists()


def test_a_baseline_is_replayed_by_the_same_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["replay", str(make_bag(tmp_path / "bag")), "--ground-truth-topic", TRUTH]
    assert main([*arguments, "--baseline", "mil", "--no-video", "--output", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["tracker"]["title"] == "MIL"
    assert report["scored"] == FRAMES - 1
