"""Loads a network from its configuration, or from a model in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from siamcar_ros.networks import NetworkConfig, read_network_config
from siamcar_ros.runtime.network import BACKENDS, DeviceError, Network, Placement
from siamcar_ros.runtime.onnx_files import OnnxFiles
from siamcar_ros.runtime.select import select_backend
from siamcar_ros.runtime.source import Source, graph_source, model_source, weights_source

if TYPE_CHECKING:
    from siamcar_ros.model import SiamCAR


def load_network(
    network: str | Path | NetworkConfig | SiamCAR = "compact",
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Network:
    """Load a network with its weights, by default where it runs fastest.

    PyTorch is needed only by its own backends and for weights without ONNX graphs beside them.
    The network is not warm: call :meth:`Network.warm_up` before frames arrive.

    Args:
        network: the name of a shipped configuration ("compact"), the path of a YAML file, a
            configuration that was read, or a model with its weights, which is copied.
        weights: safetensors, a PyTorch checkpoint or an exported ``STEM.search.onnx``; by default
            those that the configuration names. With a model, the int8 graph that was made from it.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        backend: "auto" or a name of :data:`BACKENDS`.
        precision: "auto" (the fastest) or one of :data:`PRECISIONS`.
        threads: the largest number of CPU threads; None leaves the choice to the backend.

    Raises:
        DeviceError: what was asked for is not available on this machine.
        ValueError: no such network, it has no weights, or the weights do not fit.
        FileNotFoundError: no such file.
    """
    source = _source(network, weights)
    placement = _placement(source, device, backend, precision)
    loaded = BACKENDS[placement.backend].build(source, placement, threads)
    loaded.calibration = source.calibration()
    return loaded


def find_placement(
    config: str | Path | NetworkConfig = "compact",
    weights: str | Path | None = None,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
) -> tuple[Placement, Path | None]:
    """Find where :func:`load_network` would run a network, without starting it.

    Returns:
        the placement, and the path of the int8 graph that would be read, if any.

    Raises:
        DeviceError, ValueError, FileNotFoundError: as :func:`load_network`.
    """
    source = _source(config, weights)
    placement = _placement(source, device, backend, precision)
    return placement, source.int8 if placement.precision == "int8" else None


def find_source(config: NetworkConfig) -> Source:
    """Find the files of a configuration's network, without loading it.

    Raises:
        ValueError: it has no weights; the file cannot be read, or is of another network.
        FileNotFoundError: the weights do not exist.
    """
    weights = config.weights
    if weights is None:
        raise ValueError(f"no weights ship for {config.name}: give a weights file")
    if not weights.is_file():
        raise FileNotFoundError(
            f"the weights {weights} of {config.name} neither ship nor lie beside its "
            "configuration: give a weights file"
        )
    if weights.suffix != ".onnx":
        return weights_source(config, weights)
    source = graph_source(OnnxFiles.of_search(weights))
    if source.name != config.name:
        raise DeviceError(f"{weights} holds the network {source.name!r}, not {config.name!r}")
    return source


def _source(network: str | Path | NetworkConfig | SiamCAR, weights: str | Path | None) -> Source:
    if isinstance(network, str | Path):
        return find_source(read_network_config(network, weights))
    if isinstance(network, NetworkConfig):
        return find_source(network if weights is None else replace(network, weights=Path(weights)))
    return model_source(network, None if weights is None else Path(weights))


def _placement(source: Source, device: str, backend: str, precision: str) -> Placement:
    if source.form is not None:
        if source.int8 is not None:
            if precision not in ("auto", "int8"):
                raise DeviceError(f"{source.weights} is an int8 graph: it has no {precision}")
            precision = "int8"
        if source.form == "banded" and backend == "auto":
            backend = "onnxruntime"
        if device == "auto":
            device = "cpu"
    if source.int8 is None and source.stale_int8 is not None and precision == "int8":
        raise DeviceError(
            f"{source.stale_int8} was quantized from other weights than those given: make it anew "
            "with 'siamcar export --int8', or choose another precision"
        )
    placement = select_backend(
        device,
        backend,
        precision,
        int8=source.int8,
        graphs=source.has_graphs,
        model=source.form is None,
    )
    if source.stale_int8 is not None:
        note = f"{source.stale_int8.name} is ignored, as it was made from other weights"
        placement = replace(placement, reason=f"{placement.reason}; {note}")
    return placement
