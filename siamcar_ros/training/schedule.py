"""The learning rate, and the parts of the backbone that are trained, over time."""

from __future__ import annotations

import math

from torch import nn

from siamcar_ros.model import SiamCAR

from .recipe import BackboneRecipe, Recipe


def rate_factor(recipe: Recipe, step: int) -> float:
    """The factor of ``optimizer.lr`` at a step, counted from 0."""
    schedule = recipe.schedule
    per_epoch = recipe.steps_per_epoch
    if schedule.kind == "log":
        return _log_factor(recipe, step // per_epoch)
    warmup = schedule.warmup_epochs * per_epoch
    decay = recipe.steps - warmup
    if schedule.decay_epochs is not None:
        decay = min(decay, schedule.decay_epochs * per_epoch)
    factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
    since = step - (recipe.steps - decay)
    if since >= 0 and decay > 0:
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, since / decay)))
        factor *= schedule.final + (1 - schedule.final) * fall
    return factor


def _log_factor(recipe: Recipe, epoch: int) -> float:
    """The authors' schedule: geometric warm-up and decay, constant within an epoch."""
    schedule = recipe.schedule
    warmup = int(schedule.warmup_epochs)
    if epoch < warmup:
        return schedule.warmup_from ** (1 - epoch / warmup)
    rest = max(1, math.ceil(recipe.epochs) - warmup)
    return schedule.final ** (min(1.0, (epoch - warmup) / (rest - 1)) if rest > 1 else 0.0)


def freeze(backbone: nn.Module, recipe: BackboneRecipe, epoch: int) -> bool:
    """Set which parameters of the backbone are trained in an epoch; return whether any changed.

    None are before ``frozen_epochs``. Afterwards, the parts named in ``train`` are, or all if none
    is named; the others, such as the first convolution of the published recipe, never are.
    """
    parts = dict(backbone.named_children())
    for name in recipe.train:
        if name not in parts:
            raise ValueError(f"backbone.train: no part {name!r}; there are {', '.join(parts)}")
    changed = False
    for name, part in parts.items():
        wanted = _trained(recipe, name, epoch)
        for parameter in part.parameters():
            changed |= parameter.requires_grad != wanted
            parameter.requires_grad_(wanted)
    return changed


def set_modes(model: SiamCAR, recipe: Recipe, epoch: int) -> None:
    """Set training mode, except for the BatchNorms of frozen parts."""
    model.train()
    if recipe.compute.batchnorm == "frozen":
        _norms_to_eval(model)
    for name, part in model.backbone.named_children():
        if not _trained(recipe.backbone, name, epoch):
            _norms_to_eval(part)


def _trained(recipe: BackboneRecipe, part: str, epoch: int) -> bool:
    return epoch >= recipe.frozen_epochs and (not recipe.train or part in recipe.train)


def _norms_to_eval(module: nn.Module) -> None:
    for inner in module.modules():
        if isinstance(inner, nn.modules.batchnorm._BatchNorm):
            inner.eval()
