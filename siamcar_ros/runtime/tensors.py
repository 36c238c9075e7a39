"""PyTorch's tensors behind the interface of numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from siamcar_ros.runtime.network import Images, Maps, Network, Template, join_arrays


class TensorNetwork(Network):
    """A network in PyTorch, whose templates are tensors on :attr:`device`."""

    def join(self, templates: Sequence[Template]) -> Template:
        """See :meth:`Network.join`."""
        return join_tensors(templates)

    def pixel_buffer(self, shape: Sequence[int], dtype: Any = np.uint8) -> NDArray[np.uint8]:
        """Pinned memory, if the network is on a GPU."""
        buffer = super().pixel_buffer(shape, dtype)
        if torch.device(self.device).type == "cuda":
            buffer = torch.from_numpy(buffer).pin_memory().numpy()
        return buffer


class TensorAdapter:
    """Adapts any object with the model's interface to the tracker's arrays.

    The object gets float32 tensors (B, 3, n, n) on its device, which is that of its attribute
    ``device`` or of its parameters.
    """

    takes_pixels = True

    def __init__(self, network: Any) -> None:
        self._network = network
        device = getattr(network, "device", None)
        if device is None and isinstance(network, torch.nn.Module):
            device = next(network.parameters(), torch.empty(0)).device
        self._device = torch.device(device or "cpu")

    def template(self, z: Images) -> Any:
        """The network's template."""
        with torch.inference_mode():
            return self._network.template(self._planes(z))

    def __call__(self, x: Images, template: Any) -> Maps:
        """The network's maps."""
        with torch.inference_mode():
            return Maps(*map(as_array, self._network(self._planes(x), template)))

    def join(self, templates: Sequence[Any]) -> Any:
        """See :meth:`Network.join`."""
        return (join_tensors if isinstance(templates[0][0], Tensor) else join_arrays)(templates)

    def _planes(self, pixels: Images) -> Tensor:
        return as_planes(as_tensor(pixels).to(self._device)).contiguous().float()


def as_tensor(images: Any) -> Tensor:
    """Images as a tensor; arrays with gaps or reversed axes are copied."""
    return images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))


def as_planes(images: Tensor) -> Tensor:
    """Images of either form as (B, 3, n, n); pixels stay uint8, in the same memory."""
    return images.permute(0, 3, 1, 2) if images.dtype == torch.uint8 else images


def as_array(part: Any) -> NDArray[np.float32]:
    """A map, tensor or array, as an array."""
    if isinstance(part, Tensor):
        part = part.detach().float().cpu()
    return np.asarray(part, np.float32)


def join_tensors(templates: Sequence[Template]) -> Template:
    """Templates of single targets, level by level, as one batch."""
    if len(templates) == 1:
        return templates[0]
    return tuple(torch.cat(levels) for levels in zip(*templates, strict=True))
