"""The PyTorch backends, registered without importing PyTorch."""

from __future__ import annotations

from siamcar_ros.runtime.network import Network, Placement, register_backend
from siamcar_ros.runtime.source import Source


@register_backend(
    "torch",
    packages=("torch",),
    cpu=("fp32", "bf16"),
    cuda=("fp32", "bf16", "fp16"),
    speed=20,
)
def torch_network(source: Source, placement: Placement, threads: int | None = None) -> Network:
    """Eager PyTorch, the reference; `threads` applies to the whole process."""
    model = source.model()
    import torch

    from siamcar_ros.runtime.torch_network import TorchNetwork

    if threads is not None:
        torch.set_num_threads(threads)
    return TorchNetwork(model, placement)


@register_backend("cudagraph", packages=("torch",), cuda=("fp32", "bf16", "fp16"), speed=50)
def cuda_graph_network(source: Source, placement: Placement, threads: int | None = None) -> Network:
    """PyTorch's search branch, recorded as a CUDA graph."""
    from siamcar_ros.runtime.cuda_graph_network import CudaGraphNetwork

    return CudaGraphNetwork(source.model(), placement)
