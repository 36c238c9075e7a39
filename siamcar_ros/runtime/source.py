"""A network's weights and the graphs made from them, found or exported with PyTorch."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from siamcar_ros.networks import NetworkConfig
from siamcar_ros.runtime.cache import cache_folder, cached_files
from siamcar_ros.runtime.network import DeviceError, is_installed
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

_Form = Literal["grouped", "banded"]


class Source:
    """What backends are built from; it imports PyTorch only when needed.

    Args:
        name: of the network.
        fingerprint: of the network and its weights.
        model: returns the model with its weights, on the CPU, which is not to be changed; or raises
            DeviceError if PyTorch is not installed or there are only graphs.
        weights: their file, or the search graph if there are only graphs; None for a model in
            memory.
        files: where graphs of these weights are looked for.
        form: of the graphs if there are only graphs; otherwise those of any form can be made.
        int8: where a search graph in int8 is looked for.

    Attributes:
        name, fingerprint, model, weights, form: as given.
        int8: the path of its search graph in int8, or None.
        stale_int8: the path of an int8 graph that was made from other weights.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        model: Callable[[], SiamCAR],
        *,
        weights: Path | None = None,
        files: OnnxFiles | None = None,
        form: str | None = None,
        int8: Path | None = None,
    ) -> None:
        self.name, self.fingerprint, self.model, self.weights = name, fingerprint, model, weights
        self._files, self.form = files, form
        self.int8 = self.stale_int8 = None
        facts = None if int8 is None else self._facts_of(int8)
        if facts is not None and facts.form == "grouped":
            self.int8 = int8
        elif int8 is not None and int8.is_file():
            self.stale_int8 = int8

    @cached_property
    def _facts(self) -> GraphFacts | None:
        """The metadata of the given graphs; None unless they were made from these weights."""
        if self._files is None or not self._files.exist():
            return None
        template, search = map(self._facts_of, (self._files.template, self._files.search))
        if template is None or search is None or template.form != search.form:
            logger.warning(
                "%s and its template graph were not made from the weights %s: they are ignored",
                self._files.search,
                self.weights,
            )
            return None
        return search

    @property
    def geometry(self) -> GraphFacts | SiamCAR:
        """The graphs' metadata, or the model; both say where the network's cells lie."""
        return self._facts or self.model()

    @property
    def has_graphs(self) -> bool:
        """Whether :meth:`graphs` succeeds, as far as can be said without calling it."""
        return self._facts is not None or can_export()

    def graphs(self, form: _Form = "grouped", precision: str = "fp32") -> OnnxFiles:
        """The network's graphs, for one target at a time ("grouped") or any batch ("banded").

        The search graph is in float32 unless `precision` is "int8".
        """
        if self._files is not None and self._facts is not None and self._facts.form == form:
            files = self._files
        elif self.form is None:
            files = self._exported(form)
        else:
            raise DeviceError(
                f"{self.weights} is of the form {self.form!r}, which this backend cannot run: "
                f"export it with --form {form}"
            )
        if precision == "int8" and self.int8 is not None:
            return OnnxFiles(files.template, self.int8)
        return files

    def calibration(self) -> dict[str, dict[str, float]] | None:
        """The coefficients that ``tools/calibrate.py`` fitted for these weights, if any.

        They are read from ``STEM.calibration.json`` beside the weights or graphs.
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
            made_for = content["weights"]
            coefficients = {
                part: {name: float(value) for name, value in named.items()}
                for part, named in content["coefficients"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not a readable calibration ({error!r}): fit it again with "
                "tools/calibrate.py, or remove it"
            ) from error
        if made_for != self.fingerprint:
            logger.warning("%s was fitted for other weights than those given: ignored", path)
            return None
        return coefficients

    def _facts_of(self, graph: Path) -> GraphFacts | None:
        """A graph's metadata; None if it is missing or made from other weights."""
        try:
            facts = GraphFacts.read(graph)
        except FileNotFoundError:
            return None
        except DeviceError as error:
            logger.warning("%s", error)
            return None
        return facts if facts.weights == self.fingerprint else None

    def _exported(self, form: _Form) -> OnnxFiles:
        """The float32 graphs from the user's cache; exported on first use."""
        weights = Path(f"{self.name}.safetensors")
        files = OnnxFiles.beside(weights)

        def make(folder: Path) -> None:
            logger.warning(
                "exporting %s to ONNX, once for these weights: up to a minute", self.name
            )
            export_onnx(self.model(), folder / weights, form, self.fingerprint)

        if not can_export():
            raise no_graphs()
        from siamcar_ros.runtime.export import export_onnx

        folder = cache_folder("onnx") / f"{self.fingerprint}-{form}-{GRAPH_VERSION}"
        names = [file.name for file in (files.template, files.search)]
        return OnnxFiles(*cached_files(folder, names, make))


def weights_source(config: NetworkConfig, weights: Path) -> Source:
    """Weights in a file, safetensors or a checkpoint, with the graphs that lie beside it."""

    @cache
    def load() -> SiamCAR:
        if not is_installed("torch"):
            raise DeviceError(
                f"to run {weights} without PyTorch, put the ONNX graphs that 'siamcar export' "
                "makes from it beside it; or install PyTorch: pip install 'siamcar_ros[torch]'"
            )
        from siamcar_ros.model import SiamCAR, load_weights
        from siamcar_ros.model.architecture import read_architecture

        model = SiamCAR(*read_architecture(config)).eval()
        load_weights(model, weights)
        return model

    if weights.suffix == ".safetensors":
        try:
            mark = fingerprint(config.identity, weights.read_bytes())
        except ValueError as error:
            raise ValueError(f"{weights} is not a readable safetensors file: {error}") from error
    else:
        mark = fingerprint_of(load(), config.identity)
    return Source(
        config.name,
        mark,
        load,
        weights=weights,
        files=OnnxFiles.beside(weights),
        int8=weights.with_suffix(INT8_SUFFIX),
    )


def model_source(model: SiamCAR, int8: Path | None = None) -> Source:
    """A model on the CPU with its weights as they are now, and its quantized search graph."""
    return Source(model.name, fingerprint_of(model), lambda: model, int8=int8)


def graph_source(files: OnnxFiles) -> Source:
    """Graphs, the search graph perhaps in int8, without the weights that they were made from."""
    template, facts = (GraphFacts.read(path) for path in (files.template, files.search))
    if (template.weights, template.form) != (facts.weights, facts.form):
        raise DeviceError(f"{files.search} and {files.template} are not of the same export")

    def load() -> SiamCAR:
        raise DeviceError(
            f"{files.search} is a graph, which PyTorch does not run: give the weights that it was "
            "made from, or leave the backend at 'auto'"
        )

    return Source(
        facts.network,
        facts.weights,
        load,
        weights=files.search,
        files=files,
        form=facts.form,
        int8=files.search if facts.weight_bits == INT8_WEIGHT_BITS else None,
    )


def can_export() -> bool:
    """Whether the packages for an export are installed."""
    return not _missing_for_export()


def no_graphs() -> DeviceError:
    """The error that there are no ONNX graphs of some weights, and none can be made here."""
    return DeviceError(
        "no ONNX graphs lie beside the weights, and making them needs "
        f"{', '.join(_missing_for_export())}: pip install 'siamcar_ros[torch]', or run 'siamcar "
        "export' where that is installed and copy the files beside the weights"
    )


def _missing_for_export() -> list[str]:
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    return [package for package in packages if not is_installed(package)]


def fingerprint_of(model: SiamCAR, identity: str | None = None) -> str:
    """The fingerprint of a model with its present weights, equal to that of a file of them.

    Without the identity of its configuration, that of its architecture is used, and the fingerprint
    equals no file's.
    """
    from safetensors.torch import save

    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if identity is None:
        identity = json.dumps([model.name, asdict(model.architecture)])
    return fingerprint(identity, save(state))
