"""Builds the parts of a run from its recipe: network, teacher, average, optimizer, precision."""

from __future__ import annotations

from collections import defaultdict
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
from .recipe import Recipe

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
    """The network with its initial weights, on the device."""
    torch.manual_seed(recipe.seed)
    model = build_model(recipe.network)
    if recipe.backbone.initial is not None:
        initial = given_or_shipped(recipe.backbone.initial)
        whole = any(key.startswith("backbone.") for key in read_weights(initial)[0])
        load_weights(model if whole else model.backbone, initial)
    if recipe.compute.batchnorm == "sync":
        if device.type != "cuda":
            raise ValueError(f"compute.batchnorm is sync, which needs GPUs, not {device.type}")
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    kind = recipe.compute.correlation
    fft = kind == "fft" or (kind == "auto" and device.type == "cpu")
    model.correlation = depthwise_correlation_fft if fft else depthwise_correlation
    return _channels_last(model.to(device))


def build_teacher(recipe: Recipe, model: SiamCAR, device: torch.device) -> SiamCAR | None:
    """The network that `model` learns from, in evaluation mode, without gradients; or None."""
    if recipe.teacher.weights is None:
        return None
    teacher = build_model(recipe.teacher.network)
    if not torch.equal(teacher.locations, model.locations.cpu()):
        raise ValueError(
            f"teacher.network is {teacher.name}, whose {teacher.score_size}x{teacher.score_size} "
            f"cells do not lie where those of {model.name} do, "
            f"{model.score_size}x{model.score_size}"
        )
    try:
        load_weights(teacher, given_or_shipped(recipe.teacher.weights))
    except WeightsError as error:
        raise ValueError(
            f"teacher.weights: {error}; set teacher.network to the network that they are of"
        ) from error
    return _channels_last(fold_batchnorm(teacher).to(device)).requires_grad_(False)


def _channels_last(model: SiamCAR) -> SiamCAR:
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def build_optimizer(model: SiamCAR, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of all parameters; those without a gradient, which are frozen, are skipped."""
    settings = recipe.optimizer
    alike: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        rate = settings.lr * (recipe.backbone.lr_factor if name.startswith("backbone.") else 1.0)
        decayed = settings.decay_vectors or parameter.ndim > 1
        alike[rate, settings.weight_decay if decayed else 0.0].append(parameter)
    groups = [
        {"params": parameters, "lr": rate, "full_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in alike.items()
    ]
    fused = next(model.parameters()).is_cuda  # one kernel a group
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, settings.lr, momentum=settings.momentum, fused=fused)
    return torch.optim.AdamW(groups, settings.lr, betas=settings.betas, fused=fused)


def wrap(model: SiamCAR, recipe: Recipe, device: torch.device, processes: Processes) -> nn.Module:
    """Both branches as one module, synchronized with other processes and compiled if requested."""
    network: nn.Module = Siamese(model)
    if processes.world > 1:
        ids = [device.index] if device.type == "cuda" else None
        network = DistributedDataParallel(network, device_ids=ids)
    if recipe.compute.compile:
        network.compile()  # in place
    return network


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The precision of the forward pass."""
    precision = recipe.compute.precision
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, kind, enabled=precision != "fp32")


def build_average(model: SiamCAR, decay: float) -> AveragedModel:
    """The exponential moving average of a network's parameters and buffers.

    At update n its decay is at most (1 + n) / (20 + n): the initial weights are soon forgotten.
    """

    def update(averages: _Tensors, values: _Tensors, count: Tensor | int) -> None:
        now = 1.0 + float(count)
        get_ema_multi_avg_fn(min(decay, (1 + now) / (20 + now)))(averages, values, count)

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    return average.eval()
