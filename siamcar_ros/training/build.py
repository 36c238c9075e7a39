"""Builds the parts of a run from its recipe: network, teacher, average, optimizer, precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from siamcar_ros.model import (
    SiamCAR,
    WeightsError,
    build_model,
    depthwise_correlation,
    depthwise_correlation_fft,
    fold_batchnorm,
    load_weights,
    read_weights,
)
from siamcar_ros.resources import given_or_shipped

from .distributed import Processes
from .recipe import Recipe, RecipeError

_Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


class Siamese(nn.Module):
    """Both branches as one module, with one forward pass for wrappers."""

    def __init__(self, model: SiamCAR) -> None:
        super().__init__()
        self.model = model

    def forward(self, templates: Tensor, searches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three maps of a batch of pairs."""
        cls, reg, cen = self.model(searches, self.model.template(templates))
        return cls, reg, cen


def build_network(recipe: Recipe, device: torch.device) -> SiamCAR:
    """The network with its initial weights, on the device.

    Raises:
        RecipeError: the device does not support the recipe.
        WeightsError, OSError: ``backbone.initial`` cannot be read or does not fit.
    """
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.network)
    if recipe.backbone.initial is not None:
        initial = given_or_shipped(recipe.backbone.initial)
        whole = any(key.startswith("backbone.") for key in read_weights(initial)[0])
        load_weights(model if whole else model.backbone, initial)
    if recipe.compute.batchnorm == "sync":
        if device.type != "cuda":
            raise RecipeError(f"compute.batchnorm is sync, which needs GPUs, not {device.type}")
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    kind = recipe.compute.correlation
    fft = kind == "fft" or (kind == "auto" and device.type == "cpu")
    model.correlation = depthwise_correlation_fft if fft else depthwise_correlation
    return _laid_out(model.to(device), recipe)


def build_teacher(recipe: Recipe, model: SiamCAR, device: torch.device) -> SiamCAR | None:
    """The network that `model` learns from, in evaluation mode, without gradients; or None.

    Raises:
        RecipeError: its cells do not match the model's, or its weights do not fit.
        OSError: its weights cannot be read.
    """
    if recipe.teacher.weights is None:
        return None
    teacher = build_model(recipe.teacher.network)
    if not torch.equal(teacher.locations, model.locations.cpu()):
        raise RecipeError(
            f"teacher.network is {teacher.name}, whose {teacher.score_size}x{teacher.score_size} "
            f"cells do not lie where those of {model.name} do, "
            f"{model.score_size}x{model.score_size}"
        )
    try:
        load_weights(teacher, given_or_shipped(recipe.teacher.weights))
    except WeightsError as error:
        raise RecipeError(
            f"teacher.weights: {error}; set teacher.network to the network that they are of"
        ) from error
    return _laid_out(fold_batchnorm(teacher).to(device), recipe).requires_grad_(False)


def _laid_out(model: SiamCAR, recipe: Recipe) -> SiamCAR:
    """The model with its convolutions in the recipe's memory format."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout(recipe))
    return model


def layout(recipe: Recipe) -> torch.memory_format:
    """The memory format of images and convolutions."""
    return torch.channels_last if recipe.compute.channels_last else torch.contiguous_format


def build_optimizer(model: SiamCAR, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of all parameters; those without a gradient, which are frozen, are skipped."""
    groups = []
    for in_backbone in (True, False):
        for vectors in (True, False):
            parameters = [
                parameter
                for name, parameter in model.named_parameters()
                if name.startswith("backbone.") == in_backbone and (parameter.ndim <= 1) == vectors
            ]
            decayed = recipe.optimizer.decay_vectors or not vectors
            rate = recipe.optimizer.lr * (recipe.backbone.lr_factor if in_backbone else 1.0)
            groups.append(
                {
                    "params": parameters,
                    "full_lr": rate,
                    "lr": rate,
                    "weight_decay": recipe.optimizer.weight_decay if decayed else 0.0,
                }
            )
    lr, fused = recipe.optimizer.lr, next(model.parameters()).is_cuda  # one kernel a group
    if recipe.optimizer.kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=recipe.optimizer.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=lr, betas=recipe.optimizer.betas, fused=fused)


def wrap(model: SiamCAR, recipe: Recipe, device: torch.device, processes: Processes) -> nn.Module:
    """Both branches as one module, synchronized with other processes and compiled if requested."""
    network: nn.Module = Siamese(model)
    if processes.world > 1:
        ids = [device.index] if device.type == "cuda" else None
        network = DistributedDataParallel(network, device_ids=ids)
    if recipe.compute.compile:
        network.compile()  # in place
    return network


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """The precision of the forward pass."""
    if recipe.compute.precision == "fp32":
        return nullcontext()
    kind = torch.bfloat16 if recipe.compute.precision == "bf16" else torch.float16
    return torch.autocast(device.type, kind)


def build_average(model: SiamCAR, decay: float) -> AveragedModel:
    """The exponential moving average of a network's parameters and buffers.

    At update n its decay is at most (1 + n) / (20 + n): the initial weights are soon forgotten.
    """

    def update(averages: _Tensors, values: _Tensors, count: Tensor | int) -> None:
        now = 1.0 + float(count)
        get_ema_multi_avg_fn(min(decay, (1 + now) / (20 + now)))(averages, values, count)

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return average.eval()
