"""Recipes: the shipped ones, variants, the command line, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from siamcar_ros.data import dataset_kinds
from siamcar_ros.data.frames import Frame, frame_from_box
from siamcar_ros.model import MODEL_NAMES, build_model
from siamcar_ros.training.augment import PairMaker
from siamcar_ros.training.build import build_teacher
from siamcar_ros.training.recipe import (
    Recipe,
    flatten,
    load_recipe,
    read_recipe,
    recipe_from_dict,
    to_yaml,
)
from siamcar_ros.training.schedule import freeze, rate_factor

SHIPPED = sorted((Path(__file__).parents[2] / "config/train").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_and_variant_is_valid(path: Path) -> None:
    for variant in [None, *read_recipe(path).get("variants", {})]:
        recipe = load_recipe(path, [f"variant={variant}"] if variant else [])
        assert recipe.network in MODEL_NAMES
        assert {options.get("kind", name) for name, options in recipe.data.sets.items()} <= set(
            dataset_kinds()
        )
        freeze(build_model(recipe.network).backbone, recipe.backbone, 100)
        assert recipe_from_dict(yaml.safe_load(to_yaml(recipe))) == recipe


def test_there_is_a_recipe_for_each_network() -> None:
    assert {load_recipe(path).network for path in SHIPPED} == set(MODEL_NAMES)


def test_paper_and_code_are_told_apart_by_name() -> None:
    path = SHIPPED[0].with_name("siamcar_r50.yaml")
    paper, code = (load_recipe(path, [f"variant={name}"]) for name in ("paper", "code"))
    assert (paper.batch, code.batch) == (96, 80)
    assert (paper.optimizer.lr, code.optimizer.lr) == (0.001, 0.005)
    rates = [
        r.optimizer.lr * rate_factor(r, step) for r in (paper, code) for step in (0, r.steps - 1)
    ]
    assert rates == pytest.approx([0.001, 0.0001, 0.001, 0.0005])
    assert (paper.loss.positives, code.loss.positives) == ("box", "center")
    assert (paper.loss.centerness_weighted, code.loss.centerness_weighted) == (False, True)
    assert (paper.loss.balanced, code.loss.balanced) == (False, True)
    enhanced = [(r.augment.lighting, r.augment.blur) for r in (paper, code)]
    assert enhanced == [(0, 0), (1, 0.2)]
    assert paper.data == code.data
    used = {n for n, o in load_recipe(path, ["variant=code_lasot"]).data.sets.items()}
    assert used == {"lasot"}


class One:
    """A source of one frame."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def pair(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        return self.frame, self.frame


@pytest.mark.parametrize("name", ["siamcar_r50", "siamcar_r34", "siamcar_alexnet"])
def test_search_regions_vary_as_the_authors_do(name: str, rng: np.random.Generator) -> None:
    """Theirs are scaled by up to 18 % in width and in height, each by itself."""
    frame = frame_from_box(np.zeros((60, 60, 3), np.uint8), np.array([20, 20, 40, 40], np.float32))
    recipe = load_recipe(SHIPPED[0].with_name(f"{name}.yaml"))
    maker = PairMaker(One(frame), One(frame), recipe.augment)
    boxes = np.stack([maker.make(rng).box for _ in range(400)])
    ours = np.log(boxes[:, 2:] - boxes[:, :2])
    theirs = np.log(rng.uniform(0.82, 1.18, (20000, 2)))
    for combine in (np.sum, np.diff):
        assert np.std(combine(ours, axis=1)) == pytest.approx(
            np.std(combine(theirs, axis=1)), rel=0.12
        )


def test_the_command_line_goes_last() -> None:
    path = SHIPPED[0].with_name("siamcar_r50.yaml")
    recipe = load_recipe(
        path, ["variant=code", "batch=8", "optimizer.lr=1e-3", "data.sets.coco.root=/data/c"]
    )
    assert recipe.batch == 8
    assert recipe.optimizer.lr == 0.001
    assert recipe.data.sets["coco"]["root"] == "/data/c"
    assert "imagenet_vid" in recipe.data.sets
    assert flatten(recipe)["data.sets.coco.root"] == "/data/c"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimiser.lr=1"], "did you mean 'optimizer'"),
        (["optimizer.learning_rate=1"], "key optimizer.learning_rate is unknown"),
        (["optimizer.lr=fast"], "optimizer.lr is 'fast'; it must be a number"),
        (["batch=2.5"], "batch is 2.5; it must be a whole number"),
        (["batch=0"], "batch is 0"),
        (["epochs=0"], "epochs is 0"),
        (["epochs=.inf"], "epochs is inf; it must be finite"),
        (["average=1"], "average"),
        (["seed=-1"], "seed is -1; it must be 0 or more"),
        (["augment.flip=7"], "augment.flip is 7; it must be from 0 to 1"),
        (["augment.search_shift=-2"], "augment.search_shift is -2;"),
        (["augment.rotation=.nan"], "augment.rotation is nan; it must be finite"),
        (["optimizer.lr=-1"], "optimizer.lr is -1"),
        (["optimizer.lr=0"], "optimizer.lr is 0; it must be above 0"),
        (["compute.workers=-2"], "compute.workers is -2"),
        (["compute.threads=0"], "compute.threads is 0; it must be 1 or more"),
        (["validation.every_epochs=0"], "validation.every_epochs is 0"),
        (["data.sets={m: 3}"], "data.sets.m must hold keys, not 3"),
        (["data.sets={m: null}"], "data.sets.m must hold keys, not None"),
        (["loss.positives=middle"], "loss.positives is 'middle'; it must be center or box"),
        (["optimizer.decay_vectors=3"], "it must be true or false"),
        (["optimizer.betas=[1]"], "optimizer.betas"),
        (["optimizer=3"], "optimizer must hold keys"),
        (["augment=false"], "augment must hold keys, not False"),
        (["variant=papre"], "did you mean 'paper'"),
        (["batch"], "takes KEY=VALUE, not 'batch'"),
        (["augment.blurr=1"], "did you mean 'augment.blur'"),
        (["teacher.weight=2"], "no teacher is"),
    ],
)
def test_what_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(SHIPPED[0].with_name("siamcar_r50.yaml"), overrides)


def test_a_recipe_changes_its_base(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: compact\nbatch: 8\ndata: {sets: {davis: {weight: 1}}}\n"
        "variants: {distilled: {epochs: 3}}\n"
    )
    recipe, base = load_recipe(path), load_recipe("compact")
    assert (recipe.batch, recipe.epochs, recipe.network) == (8, base.epochs, "compact")
    assert recipe.data.sets["davis"] == {**base.data.sets["davis"], "weight": 1}
    distilled = load_recipe(path, ["variant=distilled"])
    assert (distilled.epochs, distilled.teacher.network) == (3, "mobile")
    other = tmp_path / "other.yaml"
    other.write_text("base: mine.yaml\nseed: 3\n")
    assert load_recipe(other).batch == 8
    path.write_text("base: other.yaml\n")
    with pytest.raises(ValueError, match="form a circle"):
        load_recipe(path)
    path.write_text("base: compcat\n")
    with pytest.raises(ValueError, match="did you mean 'compact'"):
        load_recipe(path)


def test_a_recipe_over_a_base_with_a_variant(tmp_path: Path) -> None:
    """The base's own variant goes below the recipe, one that is named goes above it."""
    path = tmp_path / "mine.yaml"
    text = "base: siamcar_r50\nbatch: 16\noptimizer: {lr: 0.01}\nloss: {positives: center}\n"
    path.write_text(text)

    def seen(*overrides: str) -> tuple[int, float, str, bool]:
        r = load_recipe(path, overrides)
        return r.batch, r.optimizer.lr, r.loss.positives, r.loss.balanced

    assert seen() == (16, 0.01, "center", False)
    assert seen("variant=paper") == (96, 0.001, "box", False)
    assert seen("variant=code", "optimizer.lr=0.02")[1:] == (0.02, "center", True)
    assert seen("variant=null") == (16, 0.01, "center", True)
    path.write_text(f"{text}variant: code_lasot\n")
    assert set(load_recipe(path).data.sets) == {"lasot"}
    assert load_recipe(path).loss.balanced
    assert seen("variant=paper") == (96, 0.001, "box", False)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("", "variant mine is unknown; there are "),
        ("[1]", r"variants must hold keys, not \[1\]"),
        ("{mine: 3}", "variants.mine must hold keys, not 3"),
        ("{1: {}}", "variant mine is unknown; there are 1"),
        ("{mine: {1: 2}}", "key 1 is unknown"),
    ],
)
def test_variants_that_are_refused(tmp_path: Path, variants: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"variants: {variants}\n")
    with pytest.raises(ValueError, match=message):
        load_recipe(path, ["variant=mine"])
    path.write_text("batch: 4\nvariants: {mine: }\n")
    assert load_recipe(path, ["variant=mine"]).batch == 4


def test_shipped_teachers_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("compact", ["variant=distilled"])
    teacher = build_teacher(recipe, build_model("compact"), torch.device("cpu"))
    assert teacher is not None
    assert teacher.name == "mobile"


def test_a_file_that_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="holds no keys"):
        load_recipe(path)
    path.write_text("a: [")
    with pytest.raises(ValueError, match="is not valid YAML"):
        load_recipe(path)


def test_length_in_steps() -> None:
    recipe = recipe_from_dict({"epochs": 2.5, "batch": 30, "data": {"pairs_per_epoch": 100}})
    assert (recipe.steps_per_epoch, recipe.steps) == (3, 8)
    assert Recipe().steps == 20 * 2000
