"""A network as ONNX files: their names, and what they say of themselves. Needs no package.

Beside the weights ``STEM.safetensors`` lie ``STEM.template.onnx`` and ``STEM.search.onnx`` and,
where there is one, the search graph in int8, ``STEM.search.int8.onnx``. They name the weights that
they were made from by a fingerprint, and are used with those only.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from siamcar_ros.runtime.network import DeviceError, Geometry

SEARCH_SUFFIX, INT8_SUFFIX, TEMPLATE_SUFFIX = ".search.onnx", ".search.int8.onnx", ".template.onnx"


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
        geometry: of its network.
        weights: fingerprint of the weights that it was made from.
        form: of the correlation, "grouped" or "banded".
        weight_bits: of an int8 graph's weights, else 32. With 7 no sum of two products overflows
            16 bits, which 8 do on x86 CPUs without VNNI.
    """

    geometry: Geometry
    weights: str
    form: str
    weight_bits: int

    @classmethod
    def read(cls, path: Path) -> GraphFacts:
        """Those of a file.

        Raises:
            DeviceError: the file is not one that 'siamcar export' wrote.
            FileNotFoundError: it does not exist.
        """
        properties = read_properties(path)
        try:
            geometry = Geometry(
                properties["siamcar_network"],
                *(int(properties[f"siamcar_{k}"]) for k in ("score_size", "offset", "stride")),
            )
            weights, form = properties["siamcar_weights"], properties["siamcar_form"]
            return cls(geometry, weights, form, int(properties.get("siamcar_weight_bits", 32)))
        except (KeyError, ValueError) as error:
            raise DeviceError(
                f"{path} was not written by this version of 'siamcar export': its property "
                f"{error} is missing or wrong"
            ) from error

    def properties(self) -> dict[str, str]:
        """As they are stored in a file."""
        geometry = self.geometry
        return {
            "siamcar_network": geometry.name,
            "siamcar_score_size": str(geometry.score_size),
            "siamcar_offset": str(geometry.offset),
            "siamcar_stride": str(geometry.stride),
            "siamcar_weights": self.weights,
            "siamcar_form": self.form,
            "siamcar_weight_bits": str(self.weight_bits),
        }


def read_properties(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, read without the package onnx and without its tensors.

    Raises:
        DeviceError: not an ONNX file.
        FileNotFoundError: no such file.
    """
    # ModelProto keeps its metadata_props in field 14, each a key (field 1) and a value (field 2).
    try:
        with path.open("rb") as file:
            entries = [value for field, value in _fields(file, {14})]
        pairs = [dict(_fields(io.BytesIO(entry), {1, 2})) for entry in entries]
        return {pair[1].decode(): pair.get(2, b"").decode() for pair in pairs}
    except (EOFError, KeyError, UnicodeDecodeError) as error:
        raise DeviceError(f"{path} is not an ONNX file, or is damaged") from error


def _fields(file: BinaryIO, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """The wanted fields of a protobuf message that hold bytes; the others are passed over."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    while file.tell() < end:
        field, kind = divmod(_varint(file), 8)
        if kind == 0:
            _varint(file)
            continue
        length = {1: 8, 5: 4}.get(kind) or (_varint(file) if kind == 2 else end)
        if file.tell() + length > end:
            raise EOFError
        if kind == 2 and field in wanted:
            yield field, file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise EOFError
        value |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            return value


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
