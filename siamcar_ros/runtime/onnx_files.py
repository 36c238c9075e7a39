"""A network as ONNX files: their names, and what they say of themselves. Needs no package.

Beside the weights ``STEM.safetensors`` lie ``STEM.template.onnx`` and ``STEM.search.onnx`` and,
where there is one, the search graph in int8, ``STEM.search.int8.onnx``. They name the weights that
they were made from by a fingerprint, and are used with those only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from siamcar_ros.runtime.network import DeviceError, Geometry

SEARCH_SUFFIX, INT8_SUFFIX, TEMPLATE_SUFFIX = ".search.onnx", ".search.int8.onnx", ".template.onnx"
CALIBRATION_SUFFIX = ".calibration.json"
_MARK = "siamcar_ros graph "
_TAIL = 1 << 16  # bytes


@dataclass(frozen=True)
class OnnxFiles:
    """A template graph and its search graph."""

    template: Path
    search: Path

    @classmethod
    def beside(cls, weights: Path) -> OnnxFiles:
        """Those of a weights file, which may not exist."""
        return cls(*(weights.with_suffix(suffix) for suffix in (TEMPLATE_SUFFIX, SEARCH_SUFFIX)))

    @classmethod
    def of_search(cls, search: Path) -> OnnxFiles:
        """Those of a search graph, in float32 or int8.

        Raises:
            FileNotFoundError: one of the two is missing.
        """
        for suffix in (INT8_SUFFIX, SEARCH_SUFFIX):
            if search.name.endswith(suffix):
                stem = search.name.removesuffix(suffix)
                files = cls(search.with_name(stem + TEMPLATE_SUFFIX), search)
                break
        else:
            files = cls(search.with_name(f"NAME{TEMPLATE_SUFFIX}"), search)
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
    """What a graph that :func:`siamcar_ros.runtime.export.export_onnx` wrote says of itself.

    Attributes:
        network, score_size, offset, stride: of its network.
        weights: fingerprint of the weights that it was made from.
        form: of the correlation, "grouped" or "banded".
        weight_bits: of an int8 graph's weights, else 32. With 7 no sum of two products overflows
            16 bits, which 8 do on x86 CPUs without VNNI.
    """

    network: str
    score_size: int
    offset: int
    stride: int
    weights: str
    form: str
    weight_bits: int = 32

    @property
    def geometry(self) -> Geometry:
        """Where the network's cells lie."""
        return Geometry(self.network, self.score_size, self.offset, self.stride)

    def properties(self) -> dict[str, str]:
        """As an ONNX file's metadata."""
        return {"siamcar_ros": f"{_MARK}{json.dumps(asdict(self))}"}

    @classmethod
    def read(cls, path: Path) -> GraphFacts:
        """Those of a file, read without the package onnx.

        Raises:
            DeviceError: the file is not one that this version of 'siamcar export' wrote.
            FileNotFoundError: it does not exist.
        """
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            tail = file.read()
        # Metadata is the last thing in an ONNX file, in plain text.
        _, _, facts = tail.rpartition(_MARK.encode())
        try:
            return cls(**json.loads(facts[: facts.index(b"}") + 1]))
        except (ValueError, TypeError) as error:
            raise DeviceError(
                f"{path} is not an ONNX file that this version of 'siamcar export' has written"
            ) from error


def fingerprint(network: str, weights: bytes | memoryview) -> str:
    """Of a network and its weights: equal for equal tensors, whatever else a file holds.

    Args:
        network: what is built from the weights.
        weights: a safetensors file's content.

    Raises:
        ValueError: it is not one.
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
