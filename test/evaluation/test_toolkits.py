"""Other people's tools: the GOT-10k toolkit scores ours alike, the VOT toolkit's protocol starts
ours.
"""

from __future__ import annotations

import configparser
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moving_square import SIZE, Oracle, square_boxes, write_boxes, write_frames, write_sequences

from siamcar_ros.cli import main
from siamcar_ros.data.annotations import SequenceError
from siamcar_ros.evaluation.comparison import compare
from siamcar_ros.evaluation.got10k_toolkit import ToolkitTracker
from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.evaluation.vot import write_trackers_ini


@pytest.fixture
def validation(tmp_path: Path) -> Path:
    """A GOT-10k validation split of two sequences of different length, one frame invisible."""
    for i, count in enumerate((6, 12), 1):
        folder = tmp_path / "GOT" / "val" / f"GOT-10k_Val_{i:06d}"
        boxes = write_frames(folder, count)
        boxes[-1, 2] = 2 * SIZE[0]  # beyond the image
        write_boxes(folder / "groundtruth.txt", boxes)
        (folder / "cover.label").write_text("8\n0\n" + "5\n" * (count - 2))
        (folder / "absence.label").write_text("0\n" * count)
        (folder / "cut_by_image.label").write_text("0\n" * count)
        (folder / "meta_info.ini").write_text(f"[METAINFO]\nresolution: {SIZE}\n")
    (tmp_path / "GOT" / "val" / "list.txt").write_text("GOT-10k_Val_000001\nGOT-10k_Val_000002\n")
    return tmp_path / "GOT"


def test_got10k_toolkit_reads_and_scores_our_results_alike(
    validation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = pytest.importorskip("got10k.experiments")
    monkeypatch.chdir(tmp_path)
    arguments = ["--tracker", "moving_square:Shaky", "--results", str(tmp_path / "results")]
    assert main(["evaluate", "got10k-val", str(validation), *arguments]) == 0
    (ours,) = compare([tmp_path / "results" / "GOT-10k" / "Shaky"]).trackers
    toolkit = experiments.ExperimentGOT10k(
        str(validation), "val", result_dir=str(tmp_path / "results")
    )
    theirs = toolkit.report(["Shaky"])["Shaky"]["overall"]
    assert ours.measures["ao"] == pytest.approx(theirs["ao"])
    assert ours.measures["sr50"] == pytest.approx(theirs["sr"])
    assert ours.success == pytest.approx(theirs["succ_curve"])
    assert ours.measures["fps"] == pytest.approx(theirs["speed_fps"])
    assert 0.2 < ours.measures["ao"] < 0.9


def test_our_tracker_runs_in_the_got10k_toolkit(validation: Path, tmp_path: Path) -> None:
    experiments = pytest.importorskip("got10k.experiments")
    seen: list[tuple[int, ...]] = []

    class Looks(Oracle):
        def init(self, image: Any, box: Any) -> None:
            seen.append(tuple(image[8 + 6, 10 + 8].tolist()))
            super().init(image, box)

    toolkit = experiments.ExperimentGOT10k(str(validation), "val", result_dir=str(tmp_path / "r"))
    toolkit.run(ToolkitTracker("Looks", Looks()))
    boxes = np.loadtxt(
        tmp_path / "r" / "GOT-10k" / "Looks" / "GOT-10k_Val_000001" / "GOT-10k_Val_000001_001.txt",
        delimiter=",",
    )
    assert boxes == pytest.approx(square_boxes(6))
    blue, _, red = seen[0]
    assert blue < red  # the square is written as BGR (200, 220, 240)


class Pil:
    """What is asked of a PIL image."""

    def __init__(self, rgb: Any) -> None:
        self.rgb = rgb

    def convert(self, mode: str) -> Pil:
        assert mode == "RGB"
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.rgb


class Shown(Oracle):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Any] = []

    def init(self, image: Any, box: Any) -> None:
        self.images.append(image)
        super().init(image, box)


def test_toolkit_images_come_as_bgr() -> None:
    rgb = np.zeros((20, 30, 3), np.uint8)
    rgb[..., 0] = 200
    for image, expected in (
        (rgb, [0, 0, 200]),
        (Pil(rgb), [0, 0, 200]),
        (rgb[..., 0], [200, 200, 200]),
    ):
        shown = Shown()
        ToolkitTracker("Shown", shown).init(image, np.array([1, 2, 3, 4]))
        assert shown.images[0][5, 5].tolist() == expected


def test_files_are_followed_as_the_toolkit_asks(tmp_path: Path) -> None:
    boxes = write_frames(tmp_path, 5)
    files = sorted(map(str, tmp_path.glob("*.jpg")))
    found, times = ToolkitTracker("Oracle", Oracle()).track(files, boxes[0])
    assert found == pytest.approx(square_boxes(5))
    assert (times > 0).all()
    with pytest.raises(SequenceError, match=r"missing\.png is missing"):
        ToolkitTracker("Oracle", Oracle()).track([files[0], "missing.png"], boxes[0])


def test_otb_measures_are_those_of_the_got10k_toolkit(tmp_path: Path) -> None:
    experiments = pytest.importorskip("got10k.experiments")
    for name in ("Bolt", "Boy"):
        boxes = write_frames(tmp_path / name / "img", 7, digits=4) + np.array([1, 1, 0, 0])
        write_boxes(tmp_path / name / "groundtruth_rect.txt", boxes)
    arguments = ["--tracker", "moving_square:Shaky", "--results", str(tmp_path / "results")]
    assert main(["evaluate", "otb100", str(tmp_path), *arguments]) == 1  # the others are missing
    (ours,) = compare([tmp_path / "results" / "OTB2015" / "Shaky"]).trackers

    # The toolkit's own reader wants all hundred sequences, so it is given these.
    data: list[Any] = [([], square_boxes(7) + np.array([1, 1, 0, 0]))] * 2
    toolkit = object.__new__(experiments.ExperimentOTB)
    toolkit.dataset = _Named(data, ["Bolt", "Boy"])
    toolkit.result_dir = str(tmp_path / "results" / "OTB2015")
    toolkit.report_dir = str(tmp_path / "reports")
    toolkit.nbins_iou, toolkit.nbins_ce = 21, 51
    toolkit.plot_curves = types.MethodType(lambda *_: None, toolkit)
    theirs = toolkit.report(["Shaky"])["Shaky"]["overall"]
    assert ours.measures["success"] == pytest.approx(theirs["success_score"])
    assert ours.measures["precision"] == pytest.approx(theirs["precision_score"])
    assert ours.success == pytest.approx(theirs["success_curve"])


class _Named(list):  # type: ignore[type-arg]
    def __init__(self, items: list[Any], names: list[str]) -> None:
        super().__init__(items)
        self.seq_names = names


SPEC = TrackerSpec("Square 100%", "moving_square:Oracle", weights="w.safetensors", files=("f",))


def test_trackers_ini_keeps_other_trackers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "trackers.ini").write_text("[Other]\nlabel = O\nprotocol = trax\ncommand = o 5%%\n")
    write_trackers_ini(tmp_path, SPEC)
    path = write_trackers_ini(tmp_path, SPEC)
    config = configparser.ConfigParser()  # as the toolkit reads it
    config.read(path)
    assert config.sections() == ["Other", "Square_100_"]
    assert config["Other"]["command"] == "o 5%"
    section = config["Square_100_"]
    assert (section["label"], section["protocol"]) == ("Square 100%", "trax")
    command = shlex.split(section["command"])
    assert command[:3] == [sys.executable, "-m", "siamcar_ros.evaluation.vot"]
    assert str(Path("w.safetensors").resolve()) in command[3]
    assert command[4:] == [str(Path.cwd())]  # where its module may lie
    arguments = ["vot", str(tmp_path), "--baseline", "mil", "--name", "My tracker.v2"]
    assert main(["evaluate", *arguments]) == 0
    assert "vot test My_tracker_v2\n" in capsys.readouterr().out
    (tmp_path / "data").mkdir()
    for folder in ("nowhere", "data"):
        with pytest.raises(FileNotFoundError, match=r"is no VOT workspace.*vot initialize"):
            write_trackers_ini(tmp_path / folder, SPEC)


def test_vot_toolkit_starts_our_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plays the toolkit's part of TraX: starts the command, gives a box and frames, reads boxes."""
    trax = pytest.importorskip("trax")
    from trax.client import Client

    root = write_sequences(tmp_path / "data")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(Path(__file__).parents[1] / "shared")
    (tmp_path / "config.yaml").touch()
    path = write_trackers_ini(tmp_path, TrackerSpec("Square", "moving_square:Oracle"))
    config = configparser.ConfigParser()
    config.read(path)
    process = subprocess.Popen(
        shlex.split(config["Square"]["command"]),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdin
        assert process.stdout
        pipes = (process.stdin.fileno(), process.stdout.fileno())
        client = Client(stream=pipes, timeout=60, log=lambda _: None)
        frames = sorted((root / "a").glob("*.jpg"))
        images = [{"color": trax.FileImage.create(str(frame))} for frame in frames]
        start = trax.Rectangle.create(*square_boxes(1)[0].tolist())
        replies = [client.initialize(images[0], [(start, {})], {})]
        replies += [client.frame(image, {}, []) for image in images[1:]]
        client.quit()
        assert process.wait(20) == 0
    finally:
        process.kill()
    boxes = [objects[0][0].bounds() for objects, _ in replies]
    assert boxes == pytest.approx(square_boxes(8), abs=1e-3)
