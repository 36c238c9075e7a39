"""Each benchmark's reader on a small tree in its owner's own layout."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from moving_square import square_boxes, write_boxes, write_frames

from siamcar_ros.cli import main
from siamcar_ros.data import (
    Sequence,
    SequenceError,
    SequenceSet,
    build_source,
    dataset_kinds,
    read_sequence,
    register_dataset,
)
from siamcar_ros.data.sequence_sets import benchmark_facts
from siamcar_ros.evaluation import Run
from siamcar_ros.evaluation.benchmarks import benchmarks, find_benchmark
from siamcar_ros.evaluation.protocols import GOT10K, score_sequence


def by_name(benchmark: str, root: Path) -> dict:
    return {s.name: s for s in find_benchmark(benchmark).read(root).sequences}


def test_names_are_found_however_they_are_written() -> None:
    assert find_benchmark("OTB-100").name == "otb100"
    assert find_benchmark("UAV123@10fps").name == "uav123-10fps"
    with pytest.raises(ValueError, match=r"there are: got10k-val.*, folder$"):
        find_benchmark("coco")


def test_documents_list_what_is_registered() -> None:
    """The tables of docs/evaluation.md and docs/training.md."""
    docs = Path(__file__).parents[2] / "docs"

    def first_column(text: str) -> set[str]:
        rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
        return {name for row in rows[2:] for name in re.findall(r"`([\w-]+)`", row)}

    evaluation = (docs / "evaluation.md").read_text().partition("## Benchmarks")[2]
    assert first_column(evaluation.partition("##")[0]) == {*benchmarks(), "vot"}
    training = (docs / "training.md").read_text().partition("## Data")[2].partition("##")[0]
    kinds = dataset_kinds().items()
    assert first_column(training) == {n for n, kind in kinds if getattr(kind, "trainable", True)}


def test_the_documented_data_set_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example of docs/evaluation.md, evaluated and drawn from."""
    monkeypatch.setattr("siamcar_ros.data.registry._KINDS", dict(dataset_kinds()))
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "mine.py", "exec"), {"__name__": "mine"})
    write_boxes(tmp_path / "one" / "boxes.txt", write_frames(tmp_path / "one", 4))
    (tmp_path / "train.txt").write_text("one\n")
    arguments = ["--tracker", "moving_square:Oracle", "--results", str(tmp_path / "results")]
    assert main(["evaluate", "mine", str(tmp_path), *arguments]) == 0
    assert "mine: 1 sequence" in capsys.readouterr().out
    source = build_source("mine", {"root": str(tmp_path), "split": "train", "max_gap": 2})
    frame, _ = source.pair(np.random.default_rng(0))
    assert (frame.box[2:] - frame.box[:2]).tolist() == [16, 12]


def test_tables_hold_what_the_benchmarks_do() -> None:
    otb, lasot, uav = (benchmark_facts(n) for n in ("otb", "lasot", "uav123"))
    assert len(otb["sequences"]) == 98  # 100 targets: Jogging and Skating2 have two each
    assert len(otb["versions"]["50"]) == 49
    assert len(otb["versions"]["2013"]) == 50  # 51 targets
    assert set(otb["versions"]["50"]) < set(otb["sequences"])
    assert all(set(a) <= set(otb["attributes"]) for a in otb["sequences"].values())
    assert sum(map(len, lasot["test"].values())) == 280
    assert len(lasot["flags"]) == 70
    assert all(len(str(flags).split()) == 20 for flags in lasot["flags"].values())
    assert len(uav["UAV123"]) == 123
    assert len(uav["UAV20L"]) == 20


@pytest.mark.parametrize("delimiter", [",", "\t", " "])
def test_otb_separators(tmp_path: Path, delimiter: str) -> None:
    boxes = write_frames(tmp_path / "Bolt" / "img", 5, digits=4)
    write_boxes(tmp_path / "Bolt" / "groundtruth_rect.txt", boxes + 1, delimiter)
    collection = find_benchmark("otb100").read(tmp_path)
    (bolt,) = collection.sequences
    assert bolt.boxes == pytest.approx(boxes + 1)
    assert bolt.origin == 1
    assert bolt.attributes == {"OCC", "DEF", "IPR", "OPR"}
    assert collection.attributes is not None
    assert collection.attributes["OCC"] == "Occlusion"
    assert any(problem.startswith("Walking left out: no folder") for problem in collection.problems)


def test_otb_targets_that_share_frames(tmp_path: Path) -> None:
    for name in ("Jogging", "Human4"):
        boxes = write_frames(tmp_path / name / "img", 4, digits=4)
        write_boxes(tmp_path / name / "groundtruth_rect.1.txt", boxes)
        write_boxes(tmp_path / name / "groundtruth_rect.2.txt", boxes + 5)
    (tmp_path / "Human4" / "groundtruth_rect.1.txt").write_text("")
    found = by_name("otb100", tmp_path)
    assert set(found) == {"Jogging.1", "Jogging.2", "Human4"}
    assert found["Jogging.2"].boxes[0, 0] == 15
    assert found["Human4"].boxes[0, 0] == 15
    assert "Jogging_1" in found["Jogging.1"].aliases
    assert "Human4-2" in found["Human4"].aliases


def test_otb_frame_ranges(tmp_path: Path) -> None:
    # David: 770 frames, annotated from the 300th; Tiger1: five frames are omitted.
    write_frames(tmp_path / "David" / "img", 770, digits=4)
    write_boxes(tmp_path / "David" / "groundtruth_rect.txt", np.tile([[5.0, 6, 7, 8]], (471, 1)))
    write_frames(tmp_path / "Football1" / "img", 81, digits=4)
    write_boxes(tmp_path / "Football1" / "groundtruth_rect.txt", square_boxes(74))
    write_boxes(
        tmp_path / "Tiger1" / "groundtruth_rect.txt",
        write_frames(tmp_path / "Tiger1" / "img", 9, digits=4),
    )
    # A copy that holds just the valid frames keeps their names.
    blur = write_frames(tmp_path / "BlurCar3" / "img", 6, first=3, digits=4)
    write_boxes(tmp_path / "BlurCar3" / "groundtruth_rect.txt", blur)
    found = by_name("otb100", tmp_path)
    assert [found["David"].frames[i].stem for i in (0, -1)] == ["0300", "0770"]
    assert len(found["Football1"]) == 74
    assert found["Tiger1"].frames[0].stem == "0006"
    assert found["Tiger1"].boxes == pytest.approx(square_boxes(9)[5:])
    assert found["Tiger1"].lead_in == 5
    assert found["BlurCar3"].frames[0].stem == "0003"
    assert all(s.annotated.all() for s in found.values())


@pytest.mark.parametrize(("first", "rows"), [(1, 9), (1, 4), (6, 4)])
def test_otb_tiger1_in_every_form(tmp_path: Path, first: int, rows: int) -> None:
    """Rows of all frames or of those that count, and a copy that holds these alone."""
    place, all_boxes = tmp_path / "Tiger1", square_boxes(9)
    write_frames(place / "img", 9 - (first - 1), first=first, digits=4)
    write_boxes(place / "groundtruth_rect.txt", all_boxes[-rows:])
    tiger = by_name("otb100", tmp_path)["Tiger1"]
    assert [frame.stem for frame in tiger.frames] == ["0006", "0007", "0008", "0009"]
    assert tiger.boxes == pytest.approx(all_boxes[5:])
    assert tiger.notes == ()


def test_lasot_flags_split_and_attributes(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / "airplane" / f"airplane-{number}"
        write_boxes(folder / "groundtruth.txt", write_frames(folder / "img", 4) + 1)
        (folder / "full_occlusion.txt").write_text("0,1,0,0")
        (folder / "out_of_view.txt").write_text("0,0,0,1")
    protocol_two = by_name("lasot", tmp_path)
    assert set(protocol_two) == {"airplane-1"}
    assert set(by_name("lasot-all", tmp_path)) == {"airplane-1", "airplane-2"}
    plane = protocol_two["airplane-1"]
    assert np.isnan(plane.boxes).any(axis=1).tolist() == [False, True, False, True]
    assert plane.annotated.all()
    assert plane.origin == 1
    assert plane.attributes == {"POC", "ROT", "SV", "LR"}


def test_lasot_flags_of_a_copy_with_a_missing_image(tmp_path: Path) -> None:
    folder = tmp_path / "airplane" / "airplane-1"
    boxes = write_frames(folder / "img", 5)
    write_boxes(folder / "groundtruth.txt", boxes)
    (folder / "full_occlusion.txt").write_text("0,0,0,1,0")
    (folder / "img" / "00000002.jpg").unlink()
    (plane,) = by_name("lasot", tmp_path).values()
    boxes[3] = np.nan
    assert plane.boxes == pytest.approx(boxes[[0, 2, 3, 4]], nan_ok=True)


@pytest.mark.parametrize("inner", ["airplane/airplane-1", "airplane-1"])
def test_lasot_with_and_without_class_folders(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / inner
    write_boxes(folder / "groundtruth.txt", write_frames(folder / "img", 3))
    assert set(by_name("lasot", tmp_path)) == {"airplane-1"}


def test_uav123_sub_sequences_and_absent_rows(tmp_path: Path) -> None:
    # bird1_2 is the frames 775 ... 1477 of bird1.
    write_frames(tmp_path / "data_seq" / "UAV123" / "bird1", 5, first=773, digits=6)
    annotation = tmp_path / "anno" / "UAV123" / "bird1_2.txt"
    annotation.parent.mkdir(parents=True)
    annotation.write_text("10,20,30,40\nNaN,NaN,NaN,NaN\n11,21,30,40\n")
    (annotation.parent / "att").mkdir()
    (annotation.parent / "att" / "bird1_2.txt").write_text("1,0,0,0,0,0,1,0,0,0,0,0\n")
    (bird,) = by_name("uav123", tmp_path).values()
    assert [frame.stem for frame in bird.frames] == ["000775", "000776", "000777"]
    assert np.isnan(bird.boxes).any(axis=1).tolist() == [False, True, False]
    assert bird.attributes == {"SV", "OV"}


def test_uav123_sub_sequence_without_its_first_image(tmp_path: Path) -> None:
    write_frames(tmp_path / "data_seq" / "UAV123" / "bird1", 3, first=776, digits=6)
    write_boxes(tmp_path / "anno" / "UAV123" / "bird1_2.txt", square_boxes(5))
    (bird,) = by_name("uav123", tmp_path).values()
    assert bird.boxes == pytest.approx(square_boxes(5)[1:4])


def test_uav123_at_ten_frames_a_second(tmp_path: Path) -> None:
    # The owners' list gives bird1_2 the frames 259 ... 493.
    write_frames(tmp_path / "data_seq" / "UAV123_10fps" / "bird1", 4, first=258, digits=6)
    write_boxes(tmp_path / "anno" / "UAV123_10fps" / "bird1_2.txt", square_boxes(3))
    (bird,) = by_name("uav123-10fps", tmp_path).values()
    assert bird.frames[0].stem == "000259"
    assert len(bird) == 3


def test_uav20l_uses_the_frames_of_uav123(tmp_path: Path) -> None:
    write_frames(tmp_path / "data_seq" / "UAV123" / "bike1", 3, digits=6)
    write_boxes(tmp_path / "anno" / "UAV20L" / "bike1.txt", square_boxes(3))
    assert set(by_name("uav20l", tmp_path)) == {"bike1"}


def got10k(root: Path, subset: str, count: int = 4) -> Path:
    folder = root / subset / "GOT-10k_Val_000001"
    boxes = write_frames(folder, count)
    write_boxes(folder / "groundtruth.txt", boxes if subset != "test" else boxes[:1])
    (root / subset / "list.txt").write_text("GOT-10k_Val_000001\n")
    return folder


def test_got10k_validation(tmp_path: Path) -> None:
    folder = got10k(tmp_path, "val")
    (folder / "cover.label").write_text("8\n0\n3\n8\n")
    (folder / "absence.label").write_text("0\n0\n0\n1\n")
    (folder / "meta_info.ini").write_text(
        "[METAINFO]\nurl: x\nmajor_class: land animal\nresolution: (96, 64)\n"
    )
    (sequence,) = by_name("got10k-val", tmp_path).values()
    # What is not covered by the image counts, absence does not.
    assert np.isnan(sequence.boxes).any(axis=1).tolist() == [False, True, False, False]
    assert sequence.size == (96, 64)
    assert sequence.attributes == {"land animal"}


def test_got10k_covers_of_a_copy_with_a_missing_image(tmp_path: Path) -> None:
    folder = got10k(tmp_path, "val")
    (folder / "cover.label").write_text("8\n8\n0\n8\n")
    (folder / "00000002.jpg").unlink()
    (sequence,) = by_name("got10k-val", tmp_path).values()
    assert np.isnan(sequence.boxes).any(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("meta", [None, "[METAINFO]\nurl: x\n"])
def test_got10k_clips_without_a_resolution(tmp_path: Path, meta: str | None) -> None:
    """The size is the first image's: a box that reaches beyond it is scored by what is inside."""
    folder = got10k(tmp_path, "val")
    if meta is not None:
        (folder / "meta_info.ini").write_text(meta)
    boxes = square_boxes(4)
    boxes[1:] = (86, 10, 20, 10)  # the images are 96 wide
    write_boxes(folder / "groundtruth.txt", boxes)
    (sequence,) = by_name("got10k-val", tmp_path).values()
    assert sequence.size == (96, 64)
    inside = np.array([boxes[0], *[(86, 10, 10, 10)] * 3], float)
    run = Run(inside, np.ones(4), np.ones(4))
    found = score_sequence(sequence, [run], GOT10K)
    assert found is not None
    assert found.measures["ao"] == 1


def test_a_folder_that_is_not_got10k_is_refused(tmp_path: Path) -> None:
    write_boxes(tmp_path / "mine" / "groundtruth.txt", write_frames(tmp_path / "mine", 3))
    with pytest.raises(SequenceError, match=r"it is not GOT-10k .*`folder` to evaluate"):
        find_benchmark("got10k-val").read(tmp_path)


def test_a_registered_data_set_can_be_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siamcar_ros.data.registry._KINDS", dict(dataset_kinds()))

    @register_dataset("mirrored")
    class Mirrored(SequenceSet):
        def __init__(self, root: Path) -> None:
            super().__init__("mirrored", root, ["only"])

        def read(self, name: str) -> Sequence:
            return read_sequence(self.root / name)

    assert "mirrored" in dataset_kinds()
    write_boxes(tmp_path / "only" / "groundtruth.txt", write_frames(tmp_path / "only", 3))
    assert set(by_name("mirrored", tmp_path)) == {"only"}
    with pytest.raises(ValueError, match="two data set kinds are called 'mirrored'"):
        register_dataset("mirrored")(Mirrored)


def test_got10k_test_split_has_one_box(tmp_path: Path) -> None:
    got10k(tmp_path, "test")
    collection = find_benchmark("got10k-test").read(tmp_path)
    (sequence,) = collection.sequences
    assert sequence.withheld
    assert len(sequence) == 4
    assert collection.problems == ()


def test_trackingnet(tmp_path: Path) -> None:
    for chunk, rows in (("TEST", 1), ("TRAIN_0", 11), ("TRAIN_7", 11)):
        name = f"video_{chunk}"
        boxes = write_frames(tmp_path / chunk / "frames" / name, 11, first=0, digits=1)
        write_boxes(tmp_path / chunk / "anno" / f"{name}.txt", boxes[:rows])
    (test,) = by_name("trackingnet", tmp_path).values()
    assert test.withheld
    assert [frame.stem for frame in test.frames] == [str(i) for i in range(11)]
    assert set(by_name("trackingnet-train", tmp_path)) == {"video_TRAIN_0", "video_TRAIN_7"}


def test_nfs_keeps_every_eighth_row_at_thirty_frames_a_second(tmp_path: Path) -> None:
    folder = tmp_path / "ball" / "30"
    write_frames(folder / "ball", 4, digits=5)
    lines = [f'0 {i} {2 * i} {i + 10} {2 * i + 20} {i} 0 0 0 "ball"' for i in range(32)]
    (folder / "ball.txt").write_text("\n".join(lines))
    (ball,) = by_name("nfs30", tmp_path).values()
    assert ball.boxes[1].tolist() == [8, 16, 10, 20]
    assert len(ball) == 4


def test_dtb70(tmp_path: Path) -> None:
    boxes = write_frames(tmp_path / "Animal1" / "img", 3, digits=5)
    write_boxes(tmp_path / "Animal1" / "groundtruth_rect.txt", boxes)
    assert set(by_name("dtb70", tmp_path)) == {"Animal1"}


def test_vot_folder_with_polygons_and_a_list(tmp_path: Path) -> None:
    for name in ("ants", "bag"):
        write_frames(tmp_path / name / "color", 2)
        (tmp_path / name / "groundtruth.txt").write_text("1,2,5,2,5,8,1,8\n1,2,5,2,5,8,1,9\n")
    (tmp_path / "list.txt").write_text("bag\n")
    (bag,) = by_name("folder", tmp_path).values()
    assert bag.boxes.tolist() == [[1, 2, 4, 6], [1, 2, 4, 7]]


def test_folder_may_be_one_sequence(tmp_path: Path) -> None:
    write_boxes(tmp_path / "only" / "groundtruth.txt", write_frames(tmp_path / "only", 3))
    assert set(by_name("folder", tmp_path / "only")) == {"only"}


def test_a_broken_sequence_is_left_out_and_the_rest_read(tmp_path: Path) -> None:
    for name in "ab":
        write_boxes(tmp_path / name / "groundtruth.txt", write_frames(tmp_path / name, 3))
    (tmp_path / "a" / "groundtruth.txt").write_text("1,2,three,4\n")
    write_boxes(tmp_path / "b" / "groundtruth.txt", square_boxes(2))
    collection = find_benchmark("folder").read(tmp_path)
    assert [s.name for s in collection.sequences] == ["b"]
    assert "a left out" in collection.problems[0]
    assert "line 1: not a box" in collection.problems[0]
    assert "2 rows for 3 frames" in collection.problems[1]


@pytest.mark.parametrize("name", benchmarks())
def test_an_empty_root_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(SequenceError, match="nothing to read in"):
        find_benchmark(name).read(tmp_path)
