"""`siamcar replay`: what it refuses, what it replaces, and what an interrupted run leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from recorded_bags import contents
from replayed_bag import FRAMES, TRUTH, BrightestSquare, Found, make_bag

from siamcar_ros.bags import replay_output
from siamcar_ros.bags.reader import Bag
from siamcar_ros.cli import main
from siamcar_ros.evaluation.trackers import TrackerSpec


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
    before = contents(tmp_path / "out")
    if failure == "tracker":
        monkeypatch.setattr(TrackerSpec, "build", lambda self: Failing())
    else:

        def full(*arguments: object, **options: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(replay_output, "write_page", full)
    assert main([*arguments, "--overwrite"]) == 2
    assert contents(tmp_path / "out") == before
    monkeypatch.undo()
    assert main([*arguments, "--overwrite", "--baseline", "mil", "--no-video"]) == 0
    after = contents(tmp_path / "out")
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


@pytest.mark.slow
def test_a_run_that_is_ended_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    run.send_signal(signal.SIGTERM)
    run.wait()
    assert run.returncode == 128 + signal.SIGTERM
    assert not out.exists()
    assert list(temporary.iterdir()) == []


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
