"""Eager PyTorch, the reference for every other backend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from siamcar_ros.model import SiamCAR, fold_batchnorm
from siamcar_ros.runtime.network import Images, Placement, Template
from siamcar_ros.runtime.tensors import TensorNetwork, as_array, as_planes, as_tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepared(model: SiamCAR, device: str, precision: str) -> SiamCAR:
    """A copy of a model for inference: folded, channels last, in a precision, on a device.

    The last three convolutions stay in float32, since rounding a distance's logarithm to bfloat16
    would change the distance by up to 1.6 %.
    """
    dtype = DTYPES[precision]
    ready = fold_batchnorm(model).to(device, dtype)
    convert_conv2d_weight_memory_format(ready, torch.channels_last)
    if dtype is not torch.float32:
        head = ready.car_head
        for last in (head.cls_logits, head.bbox_pred, head.centerness):
            last.float().register_forward_pre_hook(_to_float32)
    return ready.requires_grad_(False)


def _to_float32(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.float() for value in inputs)


class TorchNetwork(TensorNetwork):
    """A folded copy of the model."""

    gives_features = True

    def __init__(self, model: SiamCAR, placement: Placement) -> None:
        super().__init__(model, placement)
        self._dtype = DTYPES[placement.precision]
        self._model = prepared(model, placement.device, placement.precision)

    @torch.inference_mode()
    def _template(self, z: Images) -> Template:
        return self._model.template(self._input(z))

    @torch.inference_mode()
    def _maps(
        self, x: Images, template: Sequence[Tensor], features: bool = False
    ) -> list[NDArray[np.float32]]:
        response = self._model.response(self._input(x), template)
        maps = self._model.car_head(response)
        return [as_array(part) for part in ((*maps, response) if features else maps)]

    def _input(self, images: Images) -> Tensor:
        # Bytes are uploaded as they are: a quarter of the floats' size.
        planes = as_planes(as_tensor(images).to(self.device, non_blocking=True))
        return planes.to(self._dtype, memory_format=torch.channels_last)
