"""Replay: every image once, in order, from the start that was given, compared with the truth."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from replayed_bag import (
    FRAMES,
    PERIOD,
    SIZE,
    START,
    TOPIC,
    TRUTH,
    BrightestSquare,
    make_bag,
    picture,
    true_box,
)

from siamcar_ros.bags.messages import image_message
from siamcar_ros.bags.reader import Bag
from siamcar_ros.bags.replay import (
    GroundTruth,
    ReplayFrame,
    Start,
    parse_start,
    replay,
    replay_score,
)
from siamcar_ros.bags.writer import BagWriter


def run(bag_path: Path, start: Start, truth: str | Path | None = TRUTH) -> tuple[list, list[str]]:
    with Bag(bag_path) as bag:
        known = None
        if isinstance(truth, Path):
            known = GroundTruth.from_file(truth)
        elif truth is not None:
            known = GroundTruth.from_topic(bag, truth)
        frames = [f for f, _ in replay(bag, BrightestSquare(), TOPIC, start, known)]
        return frames, bag.notes + ([] if known is None else known.notes)


def overlaps(frames: list[ReplayFrame]) -> np.ndarray:
    """Of each frame, NaN where it is not scored."""
    scored = replay_score(frames)
    return np.full(len(frames), np.nan) if scored is None else scored.overlaps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("412,230,60,80@12.5", Start((412, 230, 60, 80), 12.5)),
        ("1.5,2,3,4", Start((1.5, 2, 3, 4), None)),
        ("@3", Start(None, 3.0)),
    ],
)
def test_starts_as_they_are_typed(text: str, expected: Start) -> None:
    assert parse_start(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,3,4@", "@", "@nan", "@inf"]
)
def test_what_is_no_start_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
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


def test_a_message_that_does_not_deserialize_is_skipped(tmp_path: Path) -> None:
    folder = make_bag(tmp_path / "bag")
    with BagWriter(tmp_path / "torn") as writer, Bag(folder) as bag:
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
    with pytest.raises(ValueError, match="no image decodes and has a ground truth"):
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
    with pytest.raises(ValueError, match="nothing says where the target is"):
        run(make_bag(tmp_path / "bag"), Start(), truth=None)
    with pytest.raises(ValueError, match=r"at or after 0\.5 s decodes and has a ground truth"):
        run(make_bag(tmp_path / "early", truths=range(5)), Start(None, 0.5))


def test_truths_whose_stamps_repeat_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"same stamp, .* a row per image with --ground-truth"):
        run(make_bag(tmp_path / "bag", stamped=False), Start())
