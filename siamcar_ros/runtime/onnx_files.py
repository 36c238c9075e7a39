"""The ONNX files of a network: their names and metadata, read without the package onnx.

Beside the weights ``STEM.safetensors`` lie ``STEM.template.onnx``, ``STEM.search.onnx`` and, if the
network was quantized, ``STEM.search.int8.onnx``. They hold the fingerprint of the weights that they
were made from, and are used only with those.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from siamcar_ros.runtime.network import DeviceError

SEARCH_SUFFIX, INT8_SUFFIX, TEMPLATE_SUFFIX = ".search.onnx", ".search.int8.onnx", ".template.onnx"
CALIBRATION_SUFFIX = ".calibration.json"
INT8_WEIGHT_BITS = 7
"""With 8, the sum of two products would overflow on x86 CPUs without VNNI."""
_MARK = "siamcar_ros graph "
_TAIL = 1 << 16  # bytes


@dataclass(frozen=True)
class OnnxFiles:
    """A template graph and its search graph."""

    template: Path
    search: Path

    @classmethod
    def beside(cls, weights: Path) -> OnnxFiles:
        """The graphs of a weights file; they may not exist."""
        return cls(*(weights.with_suffix(suffix) for suffix in (TEMPLATE_SUFFIX, SEARCH_SUFFIX)))

    @classmethod
    def of_search(cls, search: Path) -> OnnxFiles:
        """The graphs that belong to a search graph, in float32 or int8."""
        stem = search.name.removesuffix(INT8_SUFFIX).removesuffix(SEARCH_SUFFIX)
        files = cls(search.with_name(stem + TEMPLATE_SUFFIX), search)
        for path in (files.search, files.template):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} does not exist: an exported network is two files, NAME{SEARCH_SUFFIX} "
                    f"and NAME{TEMPLATE_SUFFIX}; give the path of the first"
                )
        return files

    def exist(self) -> bool:
        """Whether both files are there."""
        return self.template.is_file() and self.search.is_file()


@dataclass(frozen=True)
class GraphFacts:
    """The metadata of a graph from :func:`siamcar_ros.runtime.export.export_onnx`.

    Attributes:
        network, score_size, offset, stride: of its network.
        weights: fingerprint of the weights that it was made from.
        form: of the correlation, "grouped" or "banded".
        weight_bits: 32, or :data:`INT8_WEIGHT_BITS` of an int8 graph.
    """

    network: str
    score_size: int
    offset: int
    stride: int
    weights: str
    form: str
    weight_bits: int = 32

    @property
    def name(self) -> str:
        """Of the network, as a model has it."""
        return self.network

    def properties(self) -> dict[str, str]:
        """As the metadata of an ONNX file."""
        return {"siamcar_ros": f"{_MARK}{json.dumps(asdict(self))}"}

    @classmethod
    def read(cls, path: Path) -> GraphFacts:
        """Read the metadata of a file."""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            tail = file.read()
        # The metadata is plain text at the end of an ONNX file.
        _, _, facts = tail.rpartition(_MARK.encode())
        try:
            found = cls(**json.loads(facts[: facts.index(b"}") + 1]))
            if found.weight_bits not in (32, INT8_WEIGHT_BITS):
                raise ValueError(f"its weights have {found.weight_bits} bits")
        except (ValueError, TypeError) as error:
            raise DeviceError(
                f"{path} is not an ONNX file that this version of 'siamcar export' has written"
            ) from error
        return found


def fingerprint(network: str, weights: bytes | memoryview) -> str:
    """The fingerprint of a network's identity and weights, the content of a safetensors file.

    It depends on nothing else in the file.
    """
    data = memoryview(weights)
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8:start]))
        digest = hashlib.sha256(network.encode())
        for key, tensor in sorted(header.items()):
            if key == "__metadata__" or key.endswith("num_batches_tracked"):
                continue
            first, last = (start + offset for offset in tensor["data_offsets"])
            if last > len(data):
                raise ValueError("it is cut short")
            digest.update(f"{key} {tensor['dtype']} {tensor['shape']}".encode())
            digest.update(data[first:last])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is wrong: {error!r}") from error
    return digest.hexdigest()[:16]
