"""Writing a network as two ONNX graphs, checked against PyTorch before they count as written."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from siamcar_ros.model import SiamCAR, fold_batchnorm
from siamcar_ros.runtime.cache import cache_folder, fingerprint, is_whole, new_folder, put_in_place
from siamcar_ros.runtime.graphs import (
    GRAPH_VERSION,
    SearchGraph,
    TemplateGraph,
    example_inputs,
)
from siamcar_ros.runtime.network import DeviceError, Geometry, import_or_refuse

OPSET = 18
TOLERANCE = 1e-3
"""Largest admitted difference from PyTorch: of logits, and of distances relative to their size."""


class ExportError(ValueError):
    """A graph that was written does not give what the network gives."""


@dataclass(frozen=True)
class OnnxFiles:
    """A template graph and its search graph."""

    template: Path
    search: Path

    @classmethod
    def in_folder(cls, folder: Path, name: str) -> OnnxFiles:
        """As :func:`export_onnx` names them."""
        return cls(folder / f"{name}_template.onnx", folder / f"{name}_search.onnx")

    @classmethod
    def beside(cls, search: Path) -> OnnxFiles:
        """The files of a search graph's path, its template graph next to it.

        Raises:
            FileNotFoundError: one of the two is missing.
        """
        name, mark, _ = search.name.rpartition("_search")
        files = cls(search.with_name(f"{name}_template.onnx"), search)
        for path in (search, files.template if mark else search.with_name("*_template.onnx")):
            if not path.is_file():
                raise FileNotFoundError(
                    f"there is no {path}: an exported network is two files, NAME_template.onnx and "
                    "NAME_search.onnx, and is named by the second"
                )
        return files


def export_onnx(model: SiamCAR, folder: Path, form: str = "banded") -> OnnxFiles:
    """Write a network's two graphs, and check what they give in ONNX Runtime.

    Args:
        model: with its weights, on the CPU.
        folder: made where it is missing. The files are replaced as a whole or not at all.
        form: of the correlation: "banded" (any batch) or "grouped" (batch 1), see
            :mod:`siamcar_ros.runtime.graphs`.

    Raises:
        DeviceError: the packages ``onnx`` and ``onnxscript`` are not installed.
        ExportError: the graphs do not give what PyTorch gives.
    """
    import_or_refuse("onnxscript", "ONNX export", "onnx")
    folded = fold_batchnorm(model).requires_grad_(False)
    template_graph, search_graph = (
        graph(folded, form).eval() for graph in (TemplateGraph, SearchGraph)
    )
    # Not 1, which an exporter takes for a constant.
    batch = 1 if form == "grouped" else 2
    z, x = example_inputs(model, batch)
    with torch.no_grad():
        template = template_graph(z)
    levels = [f"template{i}" for i in range(len(template))]
    any_batch = {0: "batch"} if form == "banded" else {}
    files = OnnxFiles.in_folder(folder, model.name)
    properties = {
        "siamcar_network": model.name,
        "siamcar_score_size": str(model.score_size),
        "siamcar_offset": str(model.offset),
        "siamcar_form": form,
        "siamcar_weights": fingerprint(model),
    }
    with new_folder(folder) as scratch:
        written = OnnxFiles.in_folder(scratch, model.name)
        _write(template_graph, (z,), written.template, ["z"], levels, {"z": any_batch}, properties)
        shapes: dict[str, object] = {"x": any_batch, "template": tuple(any_batch for _ in template)}
        outputs = ["cls", "reg", "cen"]
        inputs = (x, *template)
        names = ["x", *levels]
        _write(search_graph, inputs, written.search, names, outputs, shapes, properties)
        check_onnx(model, written)
        put_in_place(written.template, files.template)
        put_in_place(written.search, files.search)
    return files


def cached_onnx(model: SiamCAR, form: str = "banded") -> OnnxFiles:
    """A network's graphs from the user's cache, exported there on first use.

    Raises:
        DeviceError, ExportError: as :func:`export_onnx`.
    """
    name = f"{fingerprint(model)}-{form}-{GRAPH_VERSION}"
    files = OnnxFiles.in_folder(cache_folder("onnx") / name, model.name)
    if is_whole(files.template, files.search):
        return files
    logging.getLogger(__name__).info("exporting %s to %s", model.name, files.search.parent)
    return export_onnx(model, files.search.parent, form)


def read_geometry(path: Path) -> Geometry:
    """Of the network that an exported graph is of.

    Raises:
        DeviceError: the file is not one that :func:`export_onnx` wrote, or ``onnxruntime`` is
            missing.
    """
    runtime = import_or_refuse("onnxruntime", "onnxruntime", "onnx")
    options = runtime.SessionOptions()
    # Read for its properties, not to be run.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own error classes have no public base
        raise DeviceError(f"{path} is not an ONNX file: {error}") from error
    properties = session.get_modelmeta().custom_metadata_map
    try:
        return Geometry(
            properties["siamcar_network"],
            int(properties["siamcar_score_size"]),
            int(properties["siamcar_offset"]),
        )
    except KeyError as error:
        raise DeviceError(
            f"{path} was not written by 'siamcar export': it lacks the property {error}"
        ) from error


def check_onnx(model: SiamCAR, files: OnnxFiles, tolerance: float = TOLERANCE) -> float:
    """Compare the graphs with the model on example inputs; the largest difference.

    Logits count by their difference, distances by their difference over 1 + their size.

    Raises:
        ExportError: the difference is above the tolerance.
    """
    from siamcar_ros.runtime.network import Placement
    from siamcar_ros.runtime.onnx_network import OnnxNetwork

    network = OnnxNetwork(
        Geometry.of(model),
        Placement("onnxruntime", "cpu", "fp32", "to check it"),
        files.template,
        files.search,
    )
    was_training = model.training
    model.eval()
    try:
        worst = 0.0
        for batch in (1, 3):
            z, x = example_inputs(model, batch, seed=1)
            with torch.inference_mode():
                expected = model(x, model.template(z))
            got = network(x, network.template(z))
            worst = float(np.maximum(worst, difference(expected, got)))  # NaN stays NaN
    finally:
        model.train(was_training)
    if not worst <= tolerance:
        raise ExportError(
            f"the exported {model.name} differs from PyTorch by {worst:.2g}, which is not within "
            f"{tolerance:g}"
        )
    return worst


def difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """The largest difference of two networks' maps, see :func:`check_onnx`; NaN if any is."""
    parts: list[NDArray[np.float32]] = []
    for i, (a, b) in enumerate(zip(expected, got, strict=True)):
        distance = (a.float().cpu() - b.float().cpu()).abs()
        parts.append((distance / (1 + a.abs().cpu()) if i == 1 else distance).numpy())
    return float(np.max([np.max(part) for part in parts]))


def _write(
    graph: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    input_names: list[str],
    output_names: list[str],
    shapes: dict[str, object],
    properties: dict[str, str],
) -> None:
    with _quiet():
        program = torch.onnx.export(
            graph,
            inputs,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(properties)
    for node in program.model.graph:
        # The exporter notes for each where in the source it comes from, with this machine's paths.
        node.metadata_props.clear()
    program.save(str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes of its own progress are not for our users."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
