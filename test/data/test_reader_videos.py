"""The video sets in their owners' layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from siamcar_ros.data import DataError, PairSet, build_source
from siamcar_ros.data.frames import Frame
from siamcar_ros.data.readers.imagenet import ImageNetVid
from siamcar_ros.data.readers.masked import Davis, YouTubeVos
from siamcar_ros.data.readers.youtube_bb import YouTubeBB

Picture = Callable[..., Path]
Check = Callable[[Frame], None]


def box(i: int) -> tuple[int, int, int, int]:
    """Where the target is in frame i of every tree: it moves 2 pixels a frame to the right."""
    return 10 + 2 * i, 20, 40 + 2 * i, 70


def position(frame: Frame) -> int:
    return round((float(frame.box[0]) - 10) / 2)


def pairs(kind: str, root: Path, **options: Any) -> PairSet:
    return build_source("mine", {"kind": kind, "root": str(root), **options})


def check_pairs(source: PairSet, check: Check, gap: int, frames: set[int]) -> None:
    """Pairs stay within the gap, show every frame that they may, and have the right boxes."""
    rng = np.random.default_rng(0)
    seen, widest = set(), 0
    for _ in range(120):
        pair = source.pair(rng)
        for frame in pair:
            check(frame)
        assert pair[0].scene == pair[1].scene != ""
        one, other = map(position, pair)
        seen |= {one, other}
        widest = max(widest, abs(one - other))
    assert seen == frames
    assert widest == gap
    assert not source.take_faults().messages


def got_tree(root: Path, picture: Picture, name: str = "GOT-10k_Train_000001") -> Path:
    folder = root / "train" / name
    for i in range(6):
        picture(folder / f"{i + 1:08d}.jpg", box(i))
    rows = [f"{x1}.0000,{y1}.0000,{x2 - x1}.0,{y2 - y1}.0" for x1, y1, x2, y2 in map(box, range(6))]
    (folder / "groundtruth.txt").write_text("\n".join(rows) + "\n")
    (folder / "absence.label").write_text("0\n0\n1\n0\n0\n0\n")
    (root / "train/list.txt").write_text(f"{name}\n")
    return root


@pytest.mark.parametrize("listed", [True, False])
def test_got10k(tmp_path: Path, picture: Picture, check: Check, listed: bool) -> None:
    root = got_tree(tmp_path, picture)
    if not listed:
        (root / "train/list.txt").unlink()
    check_pairs(pairs("got10k", root, max_gap=3), check, 3, {0, 1, 3, 4, 5})


def test_got10k_names_missing_and_broken_files(
    tmp_path: Path,
    picture: Picture,
    check: Check,
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    got_tree(tmp_path, picture)
    for name in ("GOT-10k_Train_000002", "GOT-10k_Train_000003", "GOT-10k_Train_000004"):
        got_tree(tmp_path, picture, name)
    base = tmp_path / "train"
    (base / "GOT-10k_Train_000002/groundtruth.txt").write_text("1,2,3\n")
    (base / "GOT-10k_Train_000003/00000004.jpg").unlink()
    (base / "GOT-10k_Train_000004/absence.label").write_text("0\n")
    (base / "list.txt").write_text("".join(f"GOT-10k_Train_00000{i}\n" for i in range(1, 5)))
    source = pairs("got10k", tmp_path)
    for _ in range(60):
        check(source.pair(rng)[1])
    messages = "\n".join(source.take_faults().messages)
    assert "000002/groundtruth.txt, line 1: 3 values" in messages
    assert "000003: 6 rows" not in messages
    assert "000003/groundtruth.txt: 6 rows for 5 frames; 1 image is missing" in caplog.text
    assert "000004/absence.label: 1 flags for 6 frames" in caplog.text


def lasot_tree(root: Path, picture: Picture) -> Path:
    for name in ("airplane-1", "airplane-2"):
        folder = root / "airplane" / name
        for i in range(6):
            picture(folder / f"img/{i + 1:08d}.jpg", box(i))
        rows = [f"{x + 1},{y + 1},{a - x},{b - y}" for x, y, a, b in map(box, range(6))]
        (folder / "groundtruth.txt").write_text("\n".join(rows))
        (folder / "out_of_view.txt").write_text("0,0,0,0,0,1\n")
        (folder / "full_occlusion.txt").write_text("1,0,0,0,0,0\n")
    return root


def test_lasot_leaves_the_test_sequences_out(
    tmp_path: Path, picture: Picture, check: Check
) -> None:
    """airplane-1 is one of the four test sequences of its class; armadillo is the extension's."""
    root = lasot_tree(tmp_path, picture)
    (root / "armadillo").mkdir()
    (root / "airplane/airplane-2").rename(root / "armadillo/armadillo-2")
    with pytest.raises(DataError, match="no training sequence"):
        pairs("lasot", root)
    (root / "armadillo/armadillo-2").rename(root / "airplane/airplane-2")
    source = pairs("lasot", root, max_gap=3)
    assert list(source.items()) == ["airplane-2"]
    check_pairs(source, check, 3, {1, 2, 3, 4})


def test_trackingnet(tmp_path: Path, picture: Picture, check: Check) -> None:
    for i in range(4):
        picture(tmp_path / f"TRAIN_0/frames/abc_1/{i}.jpg", box(i))
    (tmp_path / "TRAIN_0/anno").mkdir()
    rows = [f"{x}.0,{y}.0,{a - x}.0,{b - y}.0" for x, y, a, b in map(box, range(4))]
    (tmp_path / "TRAIN_0/anno/abc_1.txt").write_text("\n".join(rows))
    check_pairs(pairs("trackingnet", tmp_path, max_gap=2), check, 2, {0, 1, 2, 3})
    with pytest.raises(DataError, match="TRAIN_5/anno"):
        pairs("trackingnet", tmp_path, chunks=[5])


def test_sequence_folder(tmp_path: Path, picture: Picture, check: Check) -> None:
    for i in range(4):
        picture(tmp_path / f"boat/{i + 1:04d}.png", box(i))
    rows = [f"{x} {y} {a - x} {b - y}" for x, y, a, b in map(box, range(4))]
    rows[2] = "nan nan nan nan"
    (tmp_path / "boat/groundtruth.txt").write_text("\n".join(rows))
    check_pairs(pairs("sequences", tmp_path, max_gap=3), check, 3, {0, 1, 3})


def test_sequences_may_begin_without_the_target(
    tmp_path: Path, picture: Picture, check: Check
) -> None:
    for i in range(4):
        picture(tmp_path / f"boat/{i + 1:04d}.png", box(i))
    rows = [f"{x} {y} {a - x} {b - y}" for x, y, a, b in map(box, range(4))]
    rows[0] = "nan nan nan nan"
    (tmp_path / "boat/groundtruth.txt").write_text("\n".join(rows))
    source = pairs("sequences", tmp_path, max_gap=2)
    check_pairs(source, check, 2, {1, 2, 3})
    assert not source.take_faults().messages


def vid_tree(root: Path, picture: Picture) -> Path:
    base = root / "ILSVRC2015"
    snippet = "ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"
    for i in range(6):
        picture(base / f"Data/VID/train/{snippet}/{i:06d}.JPEG", box(i))
        x1, y1, x2, y2 = box(i)
        target = (
            f"<object><trackid>1</trackid><bndbox><xmax>{x2 - 1}</xmax><xmin>{x1}</xmin>"
            f"<ymax>{y2 - 1}</ymax><ymin>{y1}</ymin></bndbox><occluded>0</occluded></object>"
        )
        annotation = base / f"Annotations/VID/train/{snippet}/{i:06d}.xml"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        annotation.write_text(f"<annotation>{target if i != 2 else ''}</annotation>")
    return root


def test_vid(tmp_path: Path, picture: Picture, check: Check) -> None:
    root = vid_tree(tmp_path, picture)
    check_pairs(ImageNetVid(root, max_gap=2), check, 2, {0, 1, 3, 4, 5})


def test_youtube_bb(
    tmp_path: Path, picture: Picture, check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    rows = []
    for i in range(6):
        x1, y1, x2, y2 = box(i)
        sides = f"{x1 / 160},{x2 / 160},{y1 / 120},{y2 / 120}"
        rows.append(f"AbC_-1,{1000 * i},3,boat,0,present,{sides}")
        if i != 4:
            name = f"3/AbC_-1_{1000 * i}_3_0.jpg"
            picture(tmp_path / "yt_bb_detection_train" / name, box(i))
    rows.insert(3, "AbC_-1,2500,3,boat,0,absent,-1.0,-1.0,-1.0,-1.0")
    rows.append("gone,1000,3,boat,0,present,0.1,0.2,0.1,0.2")
    (tmp_path / "yt_bb_detection_train.csv").write_text("\n".join(rows) + "\n")
    with caplog.at_level("INFO"):
        source = YouTubeBB(tmp_path, max_gap=3)
    assert "2 of 7 frames were not extracted" in caplog.text
    assert len(source) == 1
    check_pairs(source, check, 3, {0, 1, 2, 3, 5})


def test_youtube_bb_keeps_the_objects_apart_in_any_order(
    tmp_path: Path, picture: Picture, rng: np.random.Generator
) -> None:
    """Object 1 lies where object 0 does, 60 pixels lower."""
    rows = []
    for i in range(6):
        for number in (0, 1):
            x1, y1, x2, y2 = box(i)
            y1, y2 = 10 + 60 * number, 40 + 60 * number
            rows.append(
                f"AbC,{1000 * i},3,boat,{number},present,"
                f"{x1 / 160},{x2 / 160},{y1 / 120},{y2 / 120}"
            )
            name = f"3/AbC_{1000 * i}_3_{number}.jpg"
            picture(tmp_path / "yt_bb_detection_train" / name, (x1, y1, x2, y2))
    for order in (np.arange(12), rng.permutation(12)):
        text = "\n".join(rows[i] for i in order)
        (tmp_path / "yt_bb_detection_train.csv").write_text(text)
        source = YouTubeBB(tmp_path, max_gap=2)
        assert len(source) == 2
        pairs = [source.pair(rng) for _ in range(60)]
        assert all(one.box[1] == other.box[1] for one, other in pairs)
        assert {round(float(one.box[1])) for one, _ in pairs} == {10, 70}
        assert len({one.scene for one, _ in pairs}) == 1, "both objects are in it"
        gaps = [abs(position(one) - position(other)) for one, other in pairs]
        assert max(gaps) == 2


def test_youtube_bb_refuses_another_csv(tmp_path: Path) -> None:
    (tmp_path / "yt_bb_detection_train").mkdir()
    (tmp_path / "yt_bb_detection_train.csv").write_text("a,b,c\n")
    with pytest.raises(DataError, match="line 1: 3 columns"):
        YouTubeBB(tmp_path)


def write_mask(path: Path, boxes: list[tuple[int, int, int, int]]) -> None:
    """An annotation with an object of its own color for each box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colors = [(0, 0, 128), (0, 128, 0)]
    mask = np.zeros((120, 160, 3), np.uint8)
    for (x1, y1, x2, y2), color in zip(boxes, colors, strict=False):
        mask[y1:y2, x1:x2] = color
    cv2.imwrite(str(path), mask)


def test_davis(tmp_path: Path, picture: Picture, check: Check) -> None:
    for i in range(4):
        picture(tmp_path / f"JPEGImages/480p/bear/{i:05d}.jpg", box(i))
        write_mask(tmp_path / f"Annotations/480p/bear/{i:05d}.png", [box(i)])
    lists = tmp_path / "ImageSets/2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("bear\n")
    source = Davis(tmp_path, max_gap=2)
    assert len(source) == 1
    check_pairs(source, check, 2, {0, 1, 2, 3})
    assert source.pair(np.random.default_rng(0))[0].mask is not None


def test_youtube_vos_keeps_the_objects_apart(
    tmp_path: Path, picture: Picture, rng: np.random.Generator
) -> None:
    small = (120, 80, 150, 110)
    for i in (0, 5):
        picture(tmp_path / f"train/JPEGImages/0a1b/{i:05d}.jpg", box(i))
        write_mask(tmp_path / f"train/Annotations/0a1b/{i:05d}.png", [box(i), small])
    source = YouTubeVos(tmp_path)
    areas = set()
    for _ in range(30):
        sizes = [tuple((f.box[2:] - f.box[:2]).astype(int).tolist()) for f in source.pair(rng)]
        assert sizes[0] == sizes[1]
        areas.add(sizes[0])
    assert areas == {(30, 50), (30, 30)}


def test_masks_of_another_size_are_named(
    tmp_path: Path, picture: Picture, rng: np.random.Generator
) -> None:
    picture(tmp_path / "train/JPEGImages/a/00000.jpg", box(0), (320, 240))
    write_mask(tmp_path / "train/Annotations/a/00000.png", [box(0)])
    with pytest.raises(DataError, match="320x240 pixels, its mask"):
        YouTubeVos(tmp_path).pair(rng)
