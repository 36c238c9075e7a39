"""From a name and a weights file to a network that runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from siamcar_ros.model import SiamCAR, build_model, load_weights
from siamcar_ros.resources import resource_path
from siamcar_ros.runtime.cache import fingerprint
from siamcar_ros.runtime.export import OnnxFiles, cached_onnx, read_geometry
from siamcar_ros.runtime.network import DeviceError, Geometry, Network, Placement
from siamcar_ros.runtime.select import choose

INT8_SUFFIX = ".int8.onnx"


def load_network(
    name: str = "compact",
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Network:
    """A network with its weights where it runs fastest, or where it was asked to.

    The network is not warm: call :meth:`Network.warm_up` before frames arrive.

    Args:
        name: one of :data:`siamcar_ros.model.MODEL_NAMES`.
        weights: a file for :func:`siamcar_ros.model.load_weights`, or an exported
            ``NAME_search.onnx`` with its ``NAME_template.onnx``; None for the weights that ship. A
            quantised graph is found beside the weights as ``STEM.int8.onnx``.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        backend: "auto" or one of :data:`BACKENDS`.
        precision: "auto" (the fastest) or one of :data:`PRECISIONS`.
        threads: of a CPU, at most so many; None for the backend's own choice.

    Raises:
        DeviceError: what was asked for is not to be had here; the message says what to do.
        ValueError: no such network; no weights ship for it; the weights do not fit.
        FileNotFoundError: no such file.
    """
    if weights is not None and Path(weights).suffix == ".onnx":
        return _load_exported(name, Path(weights), device, backend, precision, threads)
    model, int8_graph = _read(name, weights)
    return place(
        model,
        device=device,
        backend=backend,
        precision=precision,
        threads=threads,
        int8_graph=int8_graph,
    )


def find_placement(
    name: str = "compact",
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
) -> tuple[Placement, Path | None]:
    """Where :func:`load_network` has a network run, without starting anything.

    Args:
        name: as for :func:`load_network`.
        weights: likewise.
        device: likewise.
        backend: likewise.
        precision: likewise.

    Returns:
        the place, and the quantised graph that is read there, if one is.

    Raises:
        DeviceError, ValueError, FileNotFoundError: as :func:`load_network`.
    """
    if weights is not None and Path(weights).suffix == ".onnx":
        return choose(device, "onnxruntime", precision), None
    placement, int8_graph = _placement(*_read(name, weights), device, backend, precision)
    return placement, int8_graph if placement.precision == "int8" else None


def place(
    model: SiamCAR,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    int8_graph: Path | None = None,
) -> Network:
    """A model, with whatever weights it has, where it runs fastest or was asked to.

    Args:
        model: on the CPU; it is copied.
        device: as for :func:`load_network`.
        backend: likewise.
        precision: likewise.
        threads: likewise.
        int8_graph: its quantised search graph; one of other weights is left aside, which the
            network's reason says, unless int8 was asked for.

    Raises:
        DeviceError: as :func:`load_network`.
    """
    placement, int8_graph = _placement(model, int8_graph, device, backend, precision)
    if placement.backend == "openvino":
        from siamcar_ros.runtime.openvino_network import OpenVinoNetwork

        int8_search = int8_graph if placement.precision == "int8" else None
        return OpenVinoNetwork(model, placement, int8_search, threads)
    if placement.backend == "onnxruntime":
        from siamcar_ros.runtime.onnx_network import OnnxNetwork

        if placement.precision == "int8" and int8_graph is not None:
            files = cached_onnx(model, "grouped")
            files = OnnxFiles(files.template, int8_graph)
        else:
            files = cached_onnx(model)
        return OnnxNetwork(Geometry.of(model), placement, files.template, files.search, threads)
    if placement.backend == "cudagraph":
        from siamcar_ros.runtime.cuda_graph_network import CudaGraphNetwork

        return CudaGraphNetwork(model, placement)
    from siamcar_ros.runtime.torch_network import TorchNetwork

    if threads is not None:
        torch.set_num_threads(threads)
    return TorchNetwork(model, placement)


def _read(name: str, weights: str | Path | None) -> tuple[SiamCAR, Path | None]:
    """A network with its weights, and the quantised graph that lies beside them."""
    model = build_model(name)
    path = _shipped_weights(name) if weights is None else Path(weights)
    load_weights(model, path)
    int8_graph = path.with_name(path.stem + INT8_SUFFIX)
    return model, int8_graph if int8_graph.is_file() else None


def _placement(
    model: SiamCAR, int8_graph: Path | None, device: str, backend: str, precision: str
) -> tuple[Placement, Path | None]:
    """What is chosen for a model, and its quantised graph unless that is of other weights."""
    stale: Path | None = None
    if int8_graph is not None and not _quantised_from(model, int8_graph):
        if precision == "int8":
            raise DeviceError(
                f"{int8_graph} was quantised from other weights than those given: make it anew "
                "with 'siamcar export --format onnx --int8', or choose precision fp32 or bf16"
            )
        int8_graph, stale = None, int8_graph
    large = model.name != "compact"
    placement = choose(device, backend, precision, large=large, int8_graph=int8_graph)
    if stale is not None:
        note = f"{stale.name} left aside, as it was quantised from other weights"
        placement = replace(placement, reason=f"{placement.reason}; {note}")
    return placement, int8_graph


def _load_exported(
    name: str, search: Path, device: str, backend: str, precision: str, threads: int | None
) -> Network:
    from siamcar_ros.runtime.onnx_network import OnnxNetwork

    files = OnnxFiles.beside(search)
    if backend not in ("auto", "onnxruntime"):
        raise DeviceError(
            f"{search} is a graph for ONNX Runtime: leave the backend at 'auto', or give the "
            f"weights it was made from to {backend}"
        )
    geometry = read_geometry(search)
    if geometry.name != name:
        raise DeviceError(f"{search} holds the network {geometry.name!r}, not {name!r}")
    placement = choose(device, "onnxruntime", precision)
    placement = replace(placement, reason=f"{placement.reason}; the graph {search.name} as given")
    return OnnxNetwork(geometry, placement, files.template, files.search, threads)


def _shipped_weights(name: str) -> Path:
    try:
        return resource_path(f"models/siamcar_{name}.safetensors")
    except FileNotFoundError as error:
        raise ValueError(f"no weights ship for {name}: give a file ({error})") from error


def _quantised_from(model: SiamCAR, graph: Path) -> bool:
    # The properties stand in the file as plain text: nothing is needed to parse it.
    return fingerprint(model).encode() in graph.read_bytes()
