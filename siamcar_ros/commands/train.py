"""`siamcar train`: train a network from a recipe, or resume an interrupted run."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

HELP = "train a network from a recipe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "config", help="a recipe: a YAML file, or the name of a shipped one (compact, siamcar_r50)"
    )
    parser.add_argument(
        "settings",
        nargs="*",
        default=[],
        metavar="key=value",
        help="values that replace the recipe's, e.g. batch=16 optimizer.lr=0.001 variant=paper",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="print the recipe, open data sets and teacher, draw a pair from each set, and stop",
    )


def run(args: argparse.Namespace) -> int:
    """Train; the same command resumes an interrupted run."""
    import numpy as np
    import torch

    from siamcar_ros.data import build_mixture
    from siamcar_ros.model import build_model
    from siamcar_ros.training.build import build_teacher
    from siamcar_ros.training.loop import describe, train
    from siamcar_ros.training.recipe import load_recipe, to_yaml

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = load_recipe(recipe_path(args.config), args.settings)
    if args.check:
        print(to_yaml(recipe), end="")
        mixture = build_mixture(recipe.data.sets, recipe.data.max_fault_share)
        for name, size in mixture.sizes().items():
            mixture.sources[name].pair(np.random.default_rng(recipe.seed))
            print(f"# {name}: {size} images or videos")
        print(f"# data {mixture.fingerprint()}")
        teacher = build_teacher(recipe, build_model(recipe.network), torch.device("cpu"))
        if teacher is not None:
            print(f"# teacher: {teacher.name} of {recipe.teacher.weights}")
        return 0
    logging.info("%s", describe(recipe))
    print(train(recipe))
    return 0


def recipe_path(config: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one.

    Raises:
        ValueError: no shipped recipe has that name; the message lists them.
        FileNotFoundError: no such file.
    """
    from siamcar_ros.resources import refuse_unknown, resource_path

    if "/" in config or config.endswith((".yaml", ".yml")):
        path = Path(config)
        return path if path.is_file() else resource_path(config)
    shipped = {path.stem: path for path in sorted(resource_path("config/train").glob("*.yaml"))}
    refuse_unknown([config], shipped, "recipe")
    return shipped[config]
