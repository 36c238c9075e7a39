"""Fusion of a network's small operations with the convolutions before them, for GPUs.

At a batch of 1 a GPU finishes a convolution before the next kernel is launched, so the number of
kernels decides the speed. PyTorch runs a folded convolution as three, the convolution, its bias and
its rectifier, and a residual as a fourth.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from siamcar_ros.model import SiamCAR, depthwise_correlation

KERNELS = ("plain", "triton", "cudnn")
"""plain: PyTorch's own. triton: one kernel for bias, residual and rectifier after a convolution,
one for GroupNorm with the bias before and the rectifier after it, one for the correlation. cudnn:
the same, and rectified convolutions with bias and residual in one cuDNN kernel.
"""

# Tensor cores take half precision in groups of eight channels.
INPUT_CHANNELS = 8
_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}


class FusedConv(nn.Module):
    """A convolution with its bias, the residual added to its output, and its rectifier.

    Args:
        conv: with its weights.
        activation: "none", "relu" or "relu6".
        zeros: added by cuDNN if there is no residual.
        by_cudnn: use one cuDNN kernel, if it has one for this layer.
    """

    def __init__(
        self, conv: nn.Conv2d, activation: str, zeros: _Zeros, *, by_cudnn: bool = False
    ) -> None:
        super().__init__()
        self.conv, self.activation, self.zeros = conv, activation, zeros
        self.by_cudnn = by_cudnn and activation == "relu" and conv.groups == 1
        bias = conv.bias
        self.bias = torch.zeros_like(conv.weight[:, 0, 0, 0]) if bias is None else bias.detach()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(B, C, H, W) to (B, C', H', W'), `residual` of the output's shape."""
        conv = self.conv
        geometry: tuple[Any, ...] = (conv.stride, conv.padding, conv.dilation, conv.groups)
        if x.device.type == "cpu":
            out = F.conv2d(x, conv.weight, self.bias, *geometry)
            out = out if residual is None else out + residual
            limit = {"none": None, "relu": torch.inf, "relu6": 6.0}[self.activation]
            return out if limit is None else out.clamp(0, limit)
        if not self.by_cudnn:
            from siamcar_ros.runtime.triton_kernels import add_bias

            out = F.conv2d(x, conv.weight, None, *geometry)
            return add_bias(out, self.bias, residual, self.activation)
        factor = 1.0
        if residual is None:
            factor = 0.0
            residual = self.zeros.of(self._shape(x), x)
        return torch.cudnn_convolution_add_relu(
            x, conv.weight, residual, factor, self.bias, *geometry
        )

    def _shape(self, x: Tensor) -> tuple[int, int, int, int]:
        conv, padding = self.conv, self.conv.padding
        assert not isinstance(padding, str)
        height, width = (
            (size + 2 * p - d * (k - 1) - 1) // s + 1
            for size, p, d, k, s in zip(
                x.shape[2:], padding, conv.dilation, conv.kernel_size, conv.stride, strict=True
            )
        )
        return x.shape[0], conv.out_channels, height, width


class _Zeros:
    """Zeros shared by all convolutions: cuDNN reads a residual even if its factor is 0.

    A larger tensor is added when one is needed; recordings keep using theirs.
    """

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    def of(self, shape: tuple[int, int, int, int], x: Tensor) -> Tensor:
        """Zeros of a shape, channels last, of the precision and on the device of `x`."""
        batch, channels, height, width = shape
        count = math.prod(shape)
        if not self._kept or self._kept[-1].numel() < count:
            self._kept.append(torch.zeros(count, dtype=x.dtype, device=x.device))
        flat = self._kept[-1][:count]
        return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)


class _NormedConv(nn.Module):
    """A convolution, GroupNorm and the rectifier after it."""

    def __init__(self, conv: nn.Conv2d, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.conv, self.norm
        geometry: tuple[Any, ...] = (conv.stride, conv.padding, conv.dilation, conv.groups)
        if x.device.type == "cpu":
            return F.relu(norm(F.conv2d(x, conv.weight, conv.bias, *geometry)))
        from siamcar_ros.runtime.triton_kernels import group_norm_relu

        assert conv.bias is not None
        return group_norm_relu(F.conv2d(x, conv.weight, None, *geometry), conv.bias, norm)


def correlation(maps: Tensor, kernels: Tensor) -> Tensor:
    """:func:`siamcar_ros.model.depthwise_correlation` of as many templates as search regions."""
    if maps.device.type == "cpu":
        return depthwise_correlation(maps, kernels)
    from siamcar_ros.runtime import triton_kernels

    return triton_kernels.correlation(maps, kernels)


def fuse_(model: SiamCAR, kernels: str) -> SiamCAR:
    """Fuse what :data:`KERNELS` says in a folded model, in place.

    Its images then have :data:`INPUT_CHANNELS` channels, of which the first three are used.
    """
    zeros, by_cudnn = _Zeros(), kernels == "cudnn"
    _widen_input(model.backbone)
    names = ["backbone", *outermost_sequences(model.car_head, "car_head")]
    if model.neck is not None:
        names += outermost_sequences(model.neck, "neck")
    for name in names:
        parent, _, last = name.rpartition(".")
        part = fused(model.get_submodule(name), zeros, by_cudnn)
        setattr(model.get_submodule(parent), last, part)
    return model


def outermost_sequences(module: nn.Module, name: str) -> list[str]:
    """The names, under the module's own, of its ``nn.Sequential`` that lie in no other."""
    if isinstance(module, nn.Sequential):
        return [name]
    return [
        found
        for child_name, child in module.named_children()
        for found in outermost_sequences(child, f"{name}.{child_name}")
    ]


def fused(module: nn.Module, zeros: _Zeros | None = None, by_cudnn: bool = False) -> nn.Module:
    """The module with its convolutions fused with what follows them.

    A module whose forward pass depends on values cannot be traced and is returned unchanged.
    """
    zeros = zeros or _Zeros()
    try:
        traced = fx.symbolic_trace(module)
    except (fx.proxy.TraceError, TypeError, RuntimeError):
        return module
    _join_norms(traced)
    order = {node: index for index, node in enumerate(traced.graph.nodes)}
    for node in list(traced.graph.nodes):
        layer = _module(traced, node)
        activation = None if layer is None else _ACTIVATIONS.get(type(layer))
        if activation is not None:
            _join(traced, node, node.args[0], activation, order, zeros, by_cudnn)
    traced.graph.eliminate_dead_code()
    for node in list(traced.graph.nodes):
        if _is_conv(traced, node):  # those without a rectifier
            _join(traced, node, node, "none", order, zeros, by_cudnn)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    traced.delete_all_unused_submodules()
    return traced


def _join(
    traced: fx.GraphModule,
    last: fx.Node,
    source: Any,
    activation: str,
    order: dict[fx.Node, int],
    zeros: _Zeros,
    by_cudnn: bool,
) -> None:
    """Replace a convolution, an addition and a rectifier by one module."""
    graph, source = traced.graph, _behind(traced, source)
    conv, residual = (source, None) if _is_conv(traced, source) else (None, None)
    if conv is None and _is_sum(source):
        summands = list(source.args[:2])
        nodes = [_behind(traced, part) for part in summands]
        # Of two convolutions the later one, when the other's output exists.
        found = [i for i in (0, 1) if _is_conv(traced, nodes[i]) and len(nodes[i].users) == 1]
        if found and len(source.users) == 1:
            index = max(found, key=lambda i: order.get(nodes[i], -1))
            conv, residual = nodes[index], summands[1 - index]
    if conv is None or (conv is not last and len(conv.users) != 1):
        return
    name = f"fused_{len(order)}_{order[last]}"
    layer = _module(traced, conv)
    assert isinstance(layer, nn.Conv2d)
    traced.add_submodule(name, FusedConv(layer, activation, zeros, by_cudnn=by_cudnn))
    with graph.inserting_after(last):
        inputs = (conv.args[0],) if residual is None else (conv.args[0], residual)
        joined = graph.call_module(name, inputs)
    last.replace_all_uses_with(joined)
    order[joined] = order[last]
    graph.erase_node(last)


def _join_norms(traced: fx.GraphModule) -> None:
    for node in list(traced.graph.nodes):
        norm = _module(traced, node)
        if not isinstance(norm, nn.GroupNorm) or len(node.users) != 1:
            continue
        before, (after,) = node.args[0], node.users
        conv = _module(traced, before)
        width = norm.num_channels // norm.num_groups
        if (
            isinstance(conv, nn.Conv2d)
            and conv.bias is not None
            and len(before.users) == 1
            and isinstance(_module(traced, after), nn.ReLU)
            and width & (width - 1) == 0
        ):
            name = f"normed_{str(before.target).replace('.', '_')}"
            traced.add_submodule(name, _NormedConv(conv, norm))
            with traced.graph.inserting_after(after):
                joined = traced.graph.call_module(name, (before.args[0],))
            after.replace_all_uses_with(joined)
            for old in (after, node, before):
                traced.graph.erase_node(old)


def _widen_input(backbone: nn.Module) -> None:
    for conv in backbone.modules():
        if isinstance(conv, nn.Conv2d) and conv.in_channels == 3 and conv.groups == 1:
            weight = F.pad(conv.weight.detach(), (0, 0, 0, 0, 0, INPUT_CHANNELS - 3))
            weight = weight.contiguous(memory_format=torch.channels_last)
            conv.weight = nn.Parameter(weight, requires_grad=False)
            conv.in_channels = INPUT_CHANNELS
            return


def _module(traced: fx.GraphModule, node: Any) -> nn.Module | None:
    if isinstance(node, fx.Node) and node.op == "call_module":
        return traced.get_submodule(str(node.target))
    return None


def _is_conv(traced: fx.GraphModule, node: Any) -> bool:
    return isinstance(_module(traced, node), nn.Conv2d)


def _is_sum(node: Any) -> bool:
    return (
        isinstance(node, fx.Node)
        and node.op == "call_function"
        and node.target in (operator.add, operator.iadd, torch.add)
        and not node.kwargs
        and all(isinstance(part, fx.Node) for part in node.args)
    )


def _behind(traced: fx.GraphModule, node: Any) -> Any:
    """The input of a chain of identities that nothing else reads."""
    while isinstance(_module(traced, node), nn.Identity) and len(node.users) == 1:
        node = node.args[0]
    return node
