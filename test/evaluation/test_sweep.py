from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from moving_square import write_sequences

from siamcar_ros.cli import main
from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.tracking import TrackerParams

optuna = pytest.importorskip("optuna")


class Guess:
    """A network that finds something a little larger than the target, wherever it looks."""

    score_size, offset = 25, 32

    def template(self, z: Any) -> None:
        return None

    def __call__(self, x: Any, template: Any) -> tuple[Any, Any, Any]:
        size = self.score_size
        cls, reg = np.zeros((1, 2, size, size)), np.full((1, 4, size, size), 40.0)
        cls[0, 1, 13, 13] = 5
        cen = np.linspace(-1, 1, size * size).reshape(1, 1, size, size)
        return cls.astype(np.float32), reg.astype(np.float32), cen.astype(np.float32)


@pytest.fixture
def _guessing(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_network(spec: TrackerSpec, *_: object) -> tuple[Guess, TrackerParams]:
        return Guess(), TrackerParams(**spec.settings)

    monkeypatch.setattr(TrackerSpec, "load_network", load_network)


@pytest.mark.usefixtures("_guessing")
def test_study_is_kept_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, study_file = write_sequences(tmp_path / "data"), tmp_path / "studies" / "sweep.db"
    (root / "c" / "groundtruth.txt").unlink()
    best = tmp_path / "best.yaml"
    arguments = ["sweep", "folder", str(root), "--network", "resnet50", "--sequences", "a"]
    arguments += ["--study", str(study_file), "--range", "lr=0.2:0.6", "--set", "penalty_k=0.11"]
    arguments += ["--output", str(best)]
    assert main([*arguments, "--trials", "2"]) == 0
    assert main([*arguments, "--trials", "1"]) == 0
    printed, problems = capsys.readouterr()
    assert "c left out: " in problems
    (name,) = optuna.get_all_study_names(f"sqlite:///{study_file}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{study_file}")
    assert len(study.trials) == 3
    assert all(trial.state.name == "COMPLETE" for trial in study.trials)
    # The search starts from the tracker's own knobs, and does so once.
    assert study.trials[0].params["penalty_k"] == 0.11
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 3
    assert all(0.2 <= trial.params["lr"] <= 0.6 for trial in study.trials)
    found = yaml.safe_load(best.read_text())["tracker"]
    assert found == {k: round(v, 4) for k, v in study.best_params.items()}
    assert study.best_value > 0.05
    assert "Best of 3 trials" in printed
    assert main([*arguments, "--trials", "1", "--range", "lr=0.5:0.6"]) == 0
    assert 0.5 <= yaml.safe_load(best.read_text())["tracker"]["lr"] <= 0.6
    outside = ["--trials", "1", "--set", "lr=0.9"]
    assert main([*arguments, *outside]) == 0
    assert "; not measured before" in capsys.readouterr().out


@pytest.mark.usefixtures("_guessing")
def test_a_first_trial_that_was_broken_off_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, study_file = write_sequences(tmp_path / "data"), tmp_path / "sweep.db"
    arguments = ["sweep", "folder", str(root), "--network", "resnet50", "--sequences", "a"]
    arguments += [
        "--study",
        str(study_file),
        "--trials",
        "1",
        "--output",
        str(tmp_path / "best.yaml"),
    ]

    def broken_off(*_: object) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("siamcar_ros.evaluation.sweep._evaluate", broken_off)
        assert main(arguments) == 130
    assert main(arguments) == 0
    (name,) = optuna.get_all_study_names(f"sqlite:///{study_file}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{study_file}")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert study.trials[1].params == study.trials[0].params
    assert "0.0000 before" not in (tmp_path / "best.yaml").read_text()


@pytest.mark.usefixtures("_guessing")
def test_another_tracker_or_other_data_is_another_study(tmp_path: Path) -> None:
    root, study_file = write_sequences(tmp_path / "data"), tmp_path / "sweep.db"
    arguments = ["sweep", "folder", str(root), "--network", "resnet50", "--trials", "1"]
    arguments += ["--study", str(study_file)]
    for differing in (["--sequences", "a"], ["--sequences", "b"], ["--set", "decoder=paper"]):
        assert main([*arguments, *differing]) == 0
    names = optuna.get_all_study_names(f"sqlite:///{study_file}")
    assert len(names) == 3
    assert all(name.startswith("SiamCAR-resnet50 data ") for name in names)


def test_a_tracker_that_cannot_be_built_is_told_with_workers_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_sequences(tmp_path / "data")
    arguments = ["--study", str(tmp_path / "sweep.db"), "--backend", "abacus", "--workers", "2"]
    assert main(["sweep", "folder", str(root), *arguments]) == 2
    told = capsys.readouterr().err
    assert "abacus" in told
    assert "worker process" not in told


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--range", "lr=0.2"], "KNOB=LOW:HIGH"),
        (["--range", "speed=0:1"], "knobs: penalty_k, window_influence, lr"),
        (["--range", "lr=0.6:0.2"], "no range lr"),
        (["--range", "lr=0.2:inf"], "lr must be from 0 to 1, not inf"),
        (["--range", "lr=-1:5", "--range", "penalty_k=0:1"], "lr must be from 0 to 1, not -1"),
        (["--study", "data/a/groundtruth.txt"], "cannot hold the studies: file is not a database"),
        (["--trials", "0"], "--trials"),
        (["--output", "nowhere/best.yaml"], "there is no folder"),
        (["--network", "compact", "resnet50"], "unrecognized arguments: resnet50"),
    ],
)
def test_what_was_wrong_is_told(
    tmp_path: Path,
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = write_sequences(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    study = ["--study", str(tmp_path / "sweep.db")]
    assert main(["sweep", "folder", str(root), *study, *arguments]) == 2
    assert reason in capsys.readouterr().err
