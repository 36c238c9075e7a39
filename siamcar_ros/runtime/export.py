"""Export of a network as two ONNX graphs, which are checked against PyTorch first."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from siamcar_ros.files import move_into_place, scratch_folder
from siamcar_ros.model import SiamCAR, fold_batchnorm
from siamcar_ros.runtime.graphs import SearchGraph, TemplateGraph, example_inputs
from siamcar_ros.runtime.network import Placement, import_or_refuse
from siamcar_ros.runtime.onnx_files import GraphFacts, OnnxFiles
from siamcar_ros.runtime.onnx_network import onnx_network
from siamcar_ros.runtime.source import fingerprint_of, graph_source

OPSET = 18
TOLERANCE = 1e-3
"""Largest difference from PyTorch allowed: of logits, and of distances relative to their size."""


def export_onnx(
    model: SiamCAR,
    weights: Path,
    form: Literal["grouped", "banded"] = "grouped",
    fingerprint: str | None = None,
) -> OnnxFiles:
    """Write a network's two graphs, after comparing their maps in ONNX Runtime with PyTorch's.

    They lie beside the file `weights`, which need not exist, and are named after it; its folder is
    created if missing. The form of the correlation is "grouped" (batch 1) or "banded" (any batch),
    see :mod:`siamcar_ros.runtime.graphs`. The model is on the CPU; the fingerprint is that of its
    weights, if known.
    """
    for package in ("onnxscript", "onnxruntime"):
        import_or_refuse(package, "ONNX export", "torch")
    folded = fold_batchnorm(model).requires_grad_(False)
    banded = form == "banded"
    template_graph = TemplateGraph(folded, banded).eval()
    search_graph = SearchGraph(folded, banded).eval()
    # A batch of 1 would be exported as a constant.
    batch = 2 if banded else 1
    z, x = example_inputs(model, batch)
    with torch.no_grad():
        template = template_graph(z)
    levels = [f"template{i}" for i in range(len(template))]
    any_batch = {0: "batch"} if banded else {}
    made_from = fingerprint or fingerprint_of(model)
    facts = GraphFacts(model.name, model.score_size, model.offset, model.stride, made_from, form)
    files = OnnxFiles.beside(weights)
    weights.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(weights.parent, ".new-") as scratch:
        written = OnnxFiles.beside(scratch / weights.name)
        _write(template_graph, (z,), written.template, ["z"], levels, {"z": any_batch}, facts)
        shapes: dict[str, object] = {"x": any_batch, "template": tuple(any_batch for _ in template)}
        inputs, names = (x, *template), ["x", *levels]
        outputs = ["cls", "reg", "cen", "features"]
        _write(search_graph, inputs, written.search, names, outputs, shapes, facts)
        check_onnx(model, written)
        move_into_place(written.template, files.template)
        move_into_place(written.search, files.search)
    return files


def check_onnx(model: SiamCAR, files: OnnxFiles) -> float:
    """Compare the graphs with the model on example inputs; return the largest difference.

    Differences of distances are divided by 1 + the distance.
    """
    source = graph_source(files)
    placement = Placement("onnxruntime", "cpu", "fp32", "to check it")
    network = onnx_network(source, placement)
    was_training = model.training
    model.eval()
    try:
        worst = 0.0
        for batch in (1, 3):
            z, x = example_inputs(model, batch, seed=1)
            with torch.inference_mode():
                expected = model(x, model.template(z))
            got = network(x.numpy(), network.template(z.numpy()))
            worst = float(np.maximum(worst, difference(expected, got)))  # NaN stays NaN
    finally:
        model.train(was_training)
    if not worst <= TOLERANCE:
        raise ValueError(
            f"the exported {model.name} differs from PyTorch by {worst:.2g}, more than the "
            f"{TOLERANCE:g} allowed"
        )
    return worst


def difference(expected: Sequence[Any], got: Sequence[Any]) -> float:
    """The largest difference of two networks' maps, see :func:`check_onnx`; NaN if any is."""
    parts = []
    for i, (a, b) in enumerate(zip(expected, got, strict=True)):
        a, b = (np.asarray(value, np.float32) for value in (a, b))
        distance = abs(a - b)
        parts.append(np.max(distance / (1 + abs(a)) if i == 1 else distance))
    return float(np.max(parts))


def _write(
    graph: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    input_names: list[str],
    output_names: list[str],
    shapes: dict[str, object],
    facts: GraphFacts,
) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # torchvision, which is not needed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own use of deprecated names
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
    program.model.metadata_props.update(facts.properties())
    for node in program.model.graph:
        # The exporter records source files, with the paths of this machine.
        node.metadata_props.clear()
    program.save(str(path))
