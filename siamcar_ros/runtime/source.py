"""A network's weights and the graphs made from them, found or exported with PyTorch."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from siamcar_ros.runtime.cache import cache_folder, cached_files
from siamcar_ros.runtime.config import NetworkConfig
from siamcar_ros.runtime.network import DeviceError, Geometry, is_installed
from siamcar_ros.runtime.onnx_files import (
    CALIBRATION_SUFFIX,
    INT8_SUFFIX,
    INT8_WEIGHT_BITS,
    SEARCH_SUFFIX,
    GraphFacts,
    OnnxFiles,
    fingerprint,
)

if TYPE_CHECKING:
    from siamcar_ros.model import SiamCAR

logger = logging.getLogger(__name__)

GRAPH_VERSION = 5
"""Increase it when the graphs of the same weights change."""

_LARGE = 24 << 20  # bytes of weights


class Source(ABC):
    """What backends are built from; it imports PyTorch only when needed.

    Attributes:
        weights: their file, or the search graph if there are only graphs; None for a model in
            memory.
        name: of the network.
        fingerprint: of the network and its weights.
        large: whether it has so many weights that other backends are faster.
        int8: the path of its search graph in int8, or None.
        stale_int8: the path of an int8 graph that was made from other weights.
        form: of its graphs; None if both are available.
    """

    name: str
    weights: Path | None = None
    fingerprint: str
    large: bool
    int8: Path | None = None
    stale_int8: Path | None = None
    form: str | None = None

    @property
    @abstractmethod
    def geometry(self) -> Geometry:
        """Where the network's cells lie."""

    def graphs(self, form: str = "grouped", precision: str = "fp32") -> OnnxFiles:
        """The network's graphs.

        Args:
            form: of the correlation: "grouped" (one target at a time) or "banded" (any batch).
            precision: "int8" for the quantized search graph; otherwise it is in float32.

        Raises:
            DeviceError: there are none, and without PyTorch they cannot be exported.
        """
        files = self._graphs(form)
        if precision == "int8" and self.int8 is not None:
            return OnnxFiles(files.template, self.int8)
        return files

    @abstractmethod
    def model(self) -> SiamCAR:
        """The model with its weights, on the CPU; do not change it.

        Raises:
            DeviceError: PyTorch is not installed, or there are only graphs.
        """

    @property
    def has_graphs(self) -> bool:
        """Whether :meth:`graphs` succeeds, as far as can be said without calling it."""
        return can_export()

    def calibration(self) -> dict[str, dict[str, float]] | None:
        """The coefficients that ``tools/calibrate.py`` fitted for these weights, if any.

        They are read from ``STEM.calibration.json`` beside the weights or graphs.

        Raises:
            ValueError: the file cannot be read.
        """
        if self.weights is None:
            return None
        stem = self.weights.name
        for suffix in (INT8_SUFFIX, SEARCH_SUFFIX, self.weights.suffix):
            stem = stem.removesuffix(suffix)
        path = self.weights.with_name(stem + CALIBRATION_SUFFIX)
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text())
            made_for, coefficients = (
                content["weights"],
                {
                    str(part): {str(name): float(value) for name, value in named.items()}
                    for part, named in content["coefficients"].items()
                },
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not a readable calibration ({error!r}): fit it again with "
                "tools/calibrate.py, or remove it"
            ) from error
        if made_for != self.fingerprint:
            logger.warning("%s was fitted for other weights than those given: ignored", path)
            return None
        return coefficients

    def _find_int8(self, path: Path) -> None:
        """Take the int8 graph of a path if it is of these weights."""
        if not path.is_file():
            return
        facts = self._facts_of(path)
        if facts is not None and facts.form == "grouped":
            self.int8 = path
        else:
            self.stale_int8 = path

    def _facts_of(self, graph: Path) -> GraphFacts | None:
        """The facts of a graph; None if it is of other weights or cannot be read."""
        try:
            facts = GraphFacts.read(graph)
        except DeviceError as error:
            logger.warning("%s", error)
            return None
        return facts if facts.weights == self.fingerprint else None

    def _graphs(self, form: str) -> OnnxFiles:
        """The float32 graphs from the user's cache; exported on first use."""
        weights = Path(f"{self.name}.safetensors")
        files = OnnxFiles.beside(weights)

        def make(folder: Path) -> None:
            logger.warning(
                "exporting %s to ONNX, once for these weights: up to a minute", self.name
            )
            export_onnx(self.model(), folder / weights, form, self.fingerprint)

        if not can_export():
            raise DeviceError(
                f"no ONNX graphs lie beside the weights of {self.name}, and without PyTorch none "
                "can be made: install it (pip install 'siamcar_ros[torch]'), or run "
                "'siamcar export' where it is installed and copy the files beside the weights"
            )
        from siamcar_ros.runtime.export import export_onnx

        folder = cache_folder("onnx") / f"{self.fingerprint}-{form}-{GRAPH_VERSION}"
        names = [file.name for file in (files.template, files.search)]
        return OnnxFiles(*cached_files(folder, names, make))


class WeightsFile(Source):
    """Weights in a file, with the graphs that lie beside it.

    Args:
        config: of the network.
        weights: safetensors, or a PyTorch checkpoint.

    Raises:
        ValueError: the file cannot be read.
    """

    def __init__(self, config: NetworkConfig, weights: Path) -> None:
        self.name, self._config, self.weights = config.name, config, weights
        self._beside = OnnxFiles.beside(weights)
        self.large = weights.stat().st_size > _LARGE
        if weights.suffix == ".safetensors":
            try:
                self.fingerprint = fingerprint(config.identity, weights.read_bytes())
            except ValueError as error:
                raise ValueError(
                    f"{weights} is not a readable safetensors file: {error}"
                ) from error
        else:
            self.fingerprint = fingerprint_of(self.model(), config.identity)
        self._find_int8(weights.with_suffix(INT8_SUFFIX))

    @cached_property
    def _shipped(self) -> tuple[OnnxFiles, GraphFacts] | None:
        files = self._beside
        if not files.exist():
            return None
        facts = [self._facts_of(path) for path in (files.template, files.search)]
        if facts[1] is None or facts[0] != facts[1]:
            logger.warning(
                "%s and its template graph were not made from the weights %s: they are ignored",
                files.search,
                self.weights,
            )
            return None
        return files, facts[1]

    @property
    def geometry(self) -> Geometry:
        """Of the graphs beside the weights, or of the model."""
        return self._shipped[1].geometry if self._shipped else Geometry.of(self.model())

    @property
    def has_graphs(self) -> bool:
        """Whether they lie beside the weights, or can be exported."""
        return self._shipped is not None or can_export()

    def _graphs(self, form: str) -> OnnxFiles:
        if self._shipped and self._shipped[1].form == form:
            return self._shipped[0]
        return super()._graphs(form)

    def model(self) -> SiamCAR:
        """See :meth:`Source.model`."""
        return self._model

    @cached_property
    def _model(self) -> SiamCAR:
        if not is_installed("torch"):
            raise DeviceError(
                f"{self.weights} can be run without PyTorch only with the ONNX graphs beside it "
                "that 'siamcar export' makes from it; or install PyTorch: "
                "pip install 'siamcar_ros[torch]'"
            )
        return self._config.build()


class ModelInMemory(Source):
    """A model and its weights as they are now.

    Args:
        model: on the CPU.
        int8_search: its quantized search graph.
    """

    def __init__(self, model: SiamCAR, int8_search: Path | None = None) -> None:
        self.name, self._model = model.name, model
        self.fingerprint = fingerprint_of(model)
        self.large = 4 * sum(p.numel() for p in model.parameters()) > _LARGE
        if int8_search is not None:
            self._find_int8(int8_search)

    @property
    def geometry(self) -> Geometry:
        """The model's."""
        return Geometry.of(self._model)

    def model(self) -> SiamCAR:
        """The model."""
        return self._model


class GraphFiles(Source):
    """Graphs without the weights that they were made from.

    Args:
        files: the template graph and the search graph, which may be in int8.

    Raises:
        DeviceError: they were not written by 'siamcar export', or do not belong together.
    """

    def __init__(self, files: OnnxFiles) -> None:
        self._files, search = files, files.search
        facts = [GraphFacts.read(path) for path in (files.template, search)]
        if (facts[0].weights, facts[0].form) != (facts[1].weights, facts[1].form):
            raise DeviceError(f"{search} and {self._files.template} are not of the same export")
        self._facts, self.weights, self.form = facts[1], search, facts[1].form
        self.name, self.fingerprint = self._facts.network, self._facts.weights
        self.large = search.stat().st_size > _LARGE
        if self._facts.weight_bits == INT8_WEIGHT_BITS:
            self.int8 = search

    @property
    def geometry(self) -> Geometry:
        """Of the graph."""
        return self._facts.geometry

    @property
    def has_graphs(self) -> bool:
        """True."""
        return True

    def _graphs(self, form: str) -> OnnxFiles:
        if form != self.form:
            raise DeviceError(
                f"{self._files.search} is of the form {self.form!r}, which this backend "
                f"cannot run: export it with --form {form}"
            )
        return self._files

    def model(self) -> SiamCAR:
        """Raise DeviceError: there is none."""
        raise DeviceError(
            f"{self._files.search} is a graph, which PyTorch does not run: give the weights that "
            "it was made from, or leave the backend at 'auto'"
        )


def can_export() -> bool:
    """Whether the packages for an export are installed."""
    return all(map(is_installed, ("torch", "onnx", "onnxscript", "onnxruntime")))


def fingerprint_of(model: SiamCAR, identity: str | None = None) -> str:
    """The fingerprint of a model with its present weights, equal to that of a file of them.

    Args:
        model: on any device.
        identity: of its configuration; without it, the fingerprint equals no file's.
    """
    from safetensors.torch import save

    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    return fingerprint(identity or model.name, save(state))
