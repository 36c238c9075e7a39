"""What a run shows, validation by tracking, and the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from siamcar_ros.cli import main
from siamcar_ros.data import DataError
from siamcar_ros.model import build_model, load_weights, read_metadata, save_weights
from siamcar_ros.tracking import SiamCarTracker
from siamcar_ros.training.monitor import Monitor
from siamcar_ros.training.recipe import LogRecipe
from siamcar_ros.training.validation import validate


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    folder = tmp_path / "sequences/disc"
    folder.mkdir(parents=True)
    rows = []
    for i in range(4):
        image = np.full((120, 160, 3), 90, np.uint8)
        cv2.circle(image, (60 + 3 * i, 60), 15, (0, 200, 250), -1)
        cv2.imwrite(str(folder / f"{i + 1:08d}.png"), image)
        rows.append(f"{45 + 3 * i},45,31,31")
    (folder / "groundtruth.txt").write_text("\n".join(rows))
    (folder.parent / "empty").mkdir()
    return folder.parent


def fill(monitor: Monitor, steps: range) -> None:
    for step in steps:
        monitor.advance()
        monitor.log(step, {"total": 3.0 / step, "cls": 1.0, "reg": 0.5, "cen": 0.6, "rate": 0.01})
    monitor.log(steps[-1], {"overlap/disc": 0.4, "tracking/ao": 0.4})
    crops = torch.full((3, 3, 255, 255), 128.0)
    true = torch.tensor([[50.0, 50, 120, 120], [60, 60, 90, 90], [float("nan")] * 4])
    monitor.show(steps[-1], crops[..., :127, :127], crops, true, true + 20)
    monitor.close()


def test_history_pictures_and_event_files(tmp_path: Path) -> None:
    fill(Monitor(tmp_path, 10, 0, LogRecipe()), range(1, 7))
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5, 6, 6]
    samples = cv2.imread(str(tmp_path / "samples.png"))
    assert samples is not None
    assert samples.shape == (510, 510, 3)
    assert tuple(samples[80, 50]) == (80, 220, 80), "the true box is green"
    assert tuple(samples[80, 70]) == (60, 60, 250), "the predicted one red"
    assert cv2.imread(str(tmp_path / "summary.png")) is not None

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"loss/total", "loss/cls", "run/rate", "tracking/ao"} <= set(tags["scalars"])
    assert tags["images"] == ["samples"]
    assert [e.value for e in events.Scalars("loss/total")] == pytest.approx(
        [3.0, 1.5, 1.0, 0.75, 0.6, 0.5]
    )


def test_resuming_drops_the_history_of_steps_that_are_run_again(tmp_path: Path) -> None:
    quiet = LogRecipe(tensorboard=False)
    fill(Monitor(tmp_path, 10, 0, quiet), range(1, 7))
    fill(Monitor(tmp_path, 10, 4, quiet), range(5, 9))
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5, 6, 7, 8, 8]


def test_a_resumed_run_keeps_the_events_of_the_step_it_resumes_from(tmp_path: Path) -> None:
    """TensorBoard forgets the steps that are run again, and no others."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fill(Monitor(tmp_path, 10, 0, LogRecipe()), range(1, 7))
    fill(Monitor(tmp_path, 10, 4, LogRecipe()), range(5, 9))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss/total")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_torn_history_is_gone_on_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quiet = LogRecipe(tensorboard=False)
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1, "total": 3.0}\n{"step": 2, "tot')
    monitor = Monitor(tmp_path, 10, 4, quiet)
    monitor.log(5, {"total": 1.0})
    monitor.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 5]
    assert f"{path} ends in an incomplete line" in caplog.text
    assert not list(tmp_path.glob("*part*"))


@pytest.mark.parametrize("fault", ["empty samples", "full disk"])
def test_pictures_end_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    monitor = Monitor(tmp_path, 10, 0, LogRecipe(tensorboard=False))
    monitor.log(1, {"total": 1.0})
    (tmp_path / "samples.png").write_bytes(b"")
    if fault == "full disk":

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    monitor.close()
    warned = "summary.png is not written: [Errno 28] No space left on device" in caplog.text
    assert warned == (fault == "full disk")
    assert (tmp_path / "summary.png").is_file() != warned
    assert not list(tmp_path.glob(".*"))


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    fill(Monitor(tmp_path, 10, 0, LogRecipe(), quiet=True), range(1, 3))
    assert not list(tmp_path.iterdir())


def test_validation_tracks(sequences: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = build_model("compact").train()
    scores = validate(model, "compact", sequences)
    measures = {"tracking/ao", "tracking/sr75", "tracking/inflated"}
    assert set(scores) == {"overlap/disc", *measures}
    assert scores["tracking/ao"] == scores["overlap/disc"]
    assert all(0 <= scores[name] <= 1 for name in scores)
    assert model.training
    assert "empty" in caplog.text


def test_validation_may_stop_early(sequences: Path) -> None:
    """The first frame is given; of the others only those up to the limit are tracked."""
    seen: list[str] = []

    class Counting(SiamCarTracker):
        def update(self, image: Any, candidates: Any = None) -> Any:
            seen.append("frame")
            return super().update(image, candidates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("siamcar_ros.training.validation.SiamCarTracker", Counting)
        validate(build_model("compact"), "compact", sequences, 3)
    assert len(seen) == 2


def test_validation_without_sequences_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation.sequences: .*it holds no sequence"):
        validate(build_model("compact"), "compact", tmp_path)
    with pytest.raises(DataError, match=r"validation.sequences: no folder .*nowhere"):
        validate(build_model("compact"), "compact", tmp_path / "nowhere")


def test_validation_leaves_out_what_cannot_be_scored(
    sequences: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("black", "blind"):
        shutil.copytree(sequences / "disc", sequences / name)
    (sequences / "black/00000001.png").write_bytes(b"")
    (sequences / "blind/groundtruth.txt").write_text("45,45,31,31\n")
    scores = validate(build_model("compact"), "compact", sequences)
    assert [name for name in scores if name.startswith("overlap/")] == ["overlap/disc"]
    assert "black: the first frame does not decode" in caplog.text
    assert "blind is left out" in caplog.text
    shutil.rmtree(sequences / "disc")
    with pytest.raises(DataError, match="can be scored"):
        validate(build_model("compact"), "compact", sequences)


def test_convert_an_authors_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build_model("compact")
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    rates = {"lr": np.float64(0.005)}
    published = tmp_path / "general_model.pth"
    torch.save(
        {"epoch": 20, "state_dict": state, "optimizer": {"param_groups": [rates]}}, published
    )
    target = tmp_path / "converted/compact.safetensors"
    command = ["convert", str(published), str(target), "--network", "compact"]
    assert main(command) == 0
    assert "compact, " in capsys.readouterr().out
    again = build_model("compact")
    load_weights(again, target)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    assert read_metadata(target)["source"] == "general_model.pth"


def test_convert_averages_snapshots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [build_model("compact") for _ in range(3)]
    files = [tmp_path / f"model_{i}.safetensors" for i in range(3)]
    for model, file in zip(models, files, strict=True):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        save_weights(model, file, {"network": "compact", "card": "c.md", "step": file.stem})
    target = tmp_path / "mean.safetensors"
    assert main(["convert", *map(str, files), str(target), "--metadata", "licence=none"]) == 0
    assert "the mean of 3 files" in capsys.readouterr().out
    mean = build_model("compact")
    metadata = load_weights(mean, target)
    assert metadata["licence"] == "none"
    assert metadata["card"] == "c.md", "said alike of all"
    assert "step" not in metadata
    assert metadata["source"] == "model_0.safetensors, model_1.safetensors, model_2.safetensors"
    for key, value in mean.named_parameters():
        expected = torch.stack([dict(m.named_parameters())[key] for m in models]).mean(0)
        assert torch.allclose(value, expected, atol=1e-6), key


def test_convert_writes_safetensors_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.safetensors"
    save_weights(build_model("compact"), file, {"network": "compact"})
    assert main(["convert", str(file), str(tmp_path / "b.pth")]) == 2
    assert "NAME.safetensors" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_convert_refuses_metadata_without_a_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.safetensors"
    save_weights(build_model("compact"), file, {"network": "compact"})
    assert main(["convert", str(file), str(tmp_path / "b.safetensors"), "--metadata", "x"]) == 2
    assert "--metadata takes KEY=VALUE, not 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["missing key", "not finite", "no checkpoint"])
def test_convert_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    state = dict(build_model("compact").state_dict())
    key = "car_head.cls_logits.weight"
    if fault == "missing key":
        del state[key]
    else:
        state[key] = torch.full_like(state[key], float("nan"))
    source = tmp_path / "a.pth"
    torch.save({"state_dict": state}, source)
    if fault == "no checkpoint":
        source.write_bytes(b"nothing")
    target = tmp_path / "b.safetensors"
    assert main(["convert", str(source), str(target), "--network", "compact"]) == 2
    assert not target.exists()
    message = capsys.readouterr().err
    assert (key if fault != "no checkpoint" else "a.pth") in message


def test_train_check_opens_the_data_and_prints_the_recipe(
    sequences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {{sets: {{mine: {{kind: sequences, root: {sequences}}}}}}}\n")
    assert main(["train", str(recipe), "batch=4", "--check"]) == 0
    printed = capsys.readouterr().out
    assert main(["train", str(recipe), "--check", "batch=4"]) == 0
    assert capsys.readouterr().out == printed
    assert "batch: 4" in printed
    assert "# mine: 2 images or videos" in printed
    weights = tmp_path / "teacher.safetensors"
    save_weights(build_model("compact"), weights)
    taught = ["teacher.network=compact", f"teacher.weights={weights}"]
    assert main(["train", str(recipe), *taught, "--check"]) == 0
    assert f"# teacher: compact of {weights}" in capsys.readouterr().out
    assert main(["train", str(recipe), "teacher.weights=/nowhere.safetensors", "--check"]) == 2
    assert "/nowhere.safetensors" in capsys.readouterr().err
    assert main(["train", str(recipe), "data.sets.mine.root=/nowhere", "--check"]) == 2
    assert "set data.sets.mine.root" in capsys.readouterr().err
    assert main(["train", "nonesuch"]) == 2
    error = capsys.readouterr().err
    assert "recipe nonesuch is unknown; there are compact" in error
    assert all(name in error for name in ("compact", "mobile", "siamcar_r50"))
