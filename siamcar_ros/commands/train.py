"""`siamcar train`: train a network from a recipe, or resume an interrupted run."""

from __future__ import annotations

import argparse
import logging
import os

from siamcar_ros.resources import shipped_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "recipe",
        help=f"a YAML file, or a shipped recipe: {', '.join(shipped_names('config/train'))}",
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
    """Train, or resume the interrupted run in the recipe's output folder."""
    import numpy as np
    import torch

    from siamcar_ros.data import build_mixture
    from siamcar_ros.model import build_model
    from siamcar_ros.training.build import build_teacher
    from siamcar_ros.training.loop import train
    from siamcar_ros.training.recipe import load_recipe, to_yaml

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s")
    recipe = load_recipe(args.recipe, args.settings)
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
    sets = ", ".join(name for name, of in recipe.data.sets.items() if of.get("weight", 1))
    logging.info("%s: %d steps of %d pairs", recipe.network, recipe.steps, recipe.batch)
    logging.info("from %s; %s, rate %g", sets, recipe.optimizer.kind, recipe.optimizer.lr)
    print(train(recipe))
    return 0
