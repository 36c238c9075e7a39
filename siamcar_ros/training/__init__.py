"""Offline training: augmentation, targets, losses, recipes and the loop."""

from .losses import Targets, make_targets, siamcar_loss, teacher_loss
from .recipe import Recipe, load_recipe

__all__ = [
    "Recipe",
    "Targets",
    "load_recipe",
    "make_targets",
    "siamcar_loss",
    "teacher_loss",
]
