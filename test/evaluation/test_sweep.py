from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from moving_square import write_sequences

from siamcar_ros.cli import main

optuna = pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from siamcar_ros.model import build_model, save_weights

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    save_weights(build_model("compact"), path, {})
    return path


def test_study_is_kept_and_gone_on_with(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, study_file = write_sequences(tmp_path / "data"), tmp_path / "studies" / "sweep.db"
    best = tmp_path / "best.yaml"
    arguments = ["sweep", "folder", str(root), "--weights", str(weights), "--sequences", "a"]
    arguments += ["--study", str(study_file), "--backend", "torch", "--precision", "fp32"]
    arguments += ["--range", "lr=0.2:0.6", "--set", "penalty_k=0.11", "--out", str(best)]
    assert main([*arguments, "--trials", "2"]) == 0
    assert main([*arguments, "--trials", "1"]) == 0
    (name,) = optuna.get_all_study_names(f"sqlite:///{study_file}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{study_file}")
    assert len(study.trials) == 3
    assert all(trial.state.name == "COMPLETE" for trial in study.trials)
    # The search starts from the tracker's own knobs, and does so once.
    assert study.trials[0].params["penalty_k"] == 0.11
    assert study.trials[2].params != study.trials[0].params
    assert all(0.2 <= trial.params["lr"] <= 0.6 for trial in study.trials)
    found = yaml.safe_load(best.read_text())["tracker"]
    assert found == {k: round(v, 4) for k, v in study.best_params.items()}
    assert "best of 3 trials" in capsys.readouterr().out.replace("Best", "best")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--range", "lr=0.2"], "KNOB=LOW:HIGH"),
        (["--range", "speed=0:1"], "knobs: penalty_k, window_influence, lr"),
        (["--range", "lr=0.6:0.2"], "no range lr"),
        (["--trials", "0"], "--trials"),
        (["--network", "compact", "resnet50"], "one --network"),
    ],
)
def test_what_was_wrong_is_told(
    tmp_path: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_sequences(tmp_path / "data")
    study = ["--study", str(tmp_path / "sweep.db")]
    assert main(["sweep", "folder", str(root), *study, *arguments]) == 2
    assert reason in capsys.readouterr().err
