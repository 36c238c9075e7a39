"""Offline training: data, augmentation, targets, losses, the loop. Torch only."""

from .losses import siamcar_loss
from .targets import Targets, make_targets

__all__ = ["Targets", "make_targets", "siamcar_loss"]
