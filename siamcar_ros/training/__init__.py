"""Offline training: augmentation, targets, losses, recipes and the loop."""

from siamcar_ros.data.frames import Frame, PairSource, frame_from_box, frame_from_mask

from .losses import siamcar_loss, teacher_loss
from .recipe import Recipe, RecipeError, load_recipe
from .targets import Targets, make_targets

__all__ = [
    "Frame",
    "PairSource",
    "Recipe",
    "RecipeError",
    "Targets",
    "frame_from_box",
    "frame_from_mask",
    "load_recipe",
    "make_targets",
    "siamcar_loss",
    "teacher_loss",
]
