"""Checkpoints: what they are refused for, and the revision that is written with weights."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from torch import nn

from siamcar_ros import __version__
from siamcar_ros.model import WeightsError
from siamcar_ros.training import Recipe, checkpoint
from siamcar_ros.training.checkpoint import load_checkpoint, run_metadata, save_checkpoint


def test_a_checkpoint_of_a_network_that_was_edited_is_refused(tmp_path: Path) -> None:
    path, recipe = tmp_path / "last.pt", Recipe()
    metadata = run_metadata(recipe, "data")
    save_checkpoint(path, 3, {"model": nn.Linear(2, 2)}, metadata)
    assert load_checkpoint(path, {"model": nn.Linear(2, 2)}, recipe, metadata) == 3
    with pytest.raises(WeightsError, match=r"last\.pt is of another network than compact is now"):
        load_checkpoint(path, {"model": nn.Linear(2, 3)}, recipe, metadata)
    with pytest.raises(WeightsError, match=r"last\.pt is damaged"):
        load_checkpoint(path, {"model": nn.Linear(2, 2), "average": nn.Module()}, recipe, metadata)


def test_an_earlier_checkpoint_is_kept_only_if_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "last.pt"
    with pytest.raises(OSError, match=r"last\.pt cannot be written: .*gone$"):
        save_checkpoint(path, 0, {}, {})


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.check_output(["git", *identity, *arguments], cwd=folder, text=True).strip()


def test_the_revision_is_that_of_the_whole_checkout_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edits anywhere in it count. Installed inside another repository, the version is given."""
    package = tmp_path / "siamcar_ros"
    for room in ("training", "model"):
        (package / room).mkdir(parents=True)
    (package / "model/network.py").write_text("1")
    (tmp_path / "package.xml").touch()
    monkeypatch.setattr(checkpoint, "__file__", str(package / "training/checkpoint.py"))

    def revision() -> str:
        return run_metadata(Recipe(), "data")["revision"]

    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert revision() == head
    (package / "model/network.py").write_text("2")
    assert revision() == f"{head}-dirty"
    (tmp_path / "package.xml").unlink()
    assert revision() == f"version {__version__}"
