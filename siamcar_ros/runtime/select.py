"""Which backend, device and precision: what was asked for, or the fastest present, and why."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

import torch

from siamcar_ros.runtime.network import BACKENDS, PRECISIONS, DeviceError, Placement

# By backend and kind of device, the precisions that it has.
_ABILITIES = {
    ("torch", "cpu"): ("fp32", "bf16"),
    ("torch", "cuda"): ("fp32", "bf16", "fp16"),
    ("cudagraph", "cuda"): ("fp32", "bf16", "fp16"),
    ("onnxruntime", "cpu"): ("fp32", "int8"),
    ("onnxruntime", "cuda"): ("fp32", "fp16"),
    ("openvino", "cpu"): ("fp32", "bf16", "int8"),
}
# What each needs; ONNX Runtime's graphs are exported here, on first use.
_PACKAGES = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "torch": (),
    "cudagraph": (),
}
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# Arm's dot products are left out: int8 there is for who asks for it, having measured it.
_INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}


@cache
def cpu_flags() -> frozenset[str]:
    """The processor's features as Linux names them; none are known on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def choose(
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    *,
    large: bool = False,
    int8_graph: Path | None = None,
) -> Placement:
    """Decide where a network runs.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        backend: "auto" or one of :data:`~siamcar_ros.runtime.BACKENDS`.
        precision: "auto" or one of :data:`~siamcar_ros.runtime.PRECISIONS`.
        large: the network is one of the ResNets or AlexNet, not compact.
        int8_graph: the network's quantised search graph, None where there is none.

    Raises:
        DeviceError: what was asked for is not to be had; the message says what to do.
    """
    _check_word("backend", backend, BACKENDS)
    _check_word("precision", precision, PRECISIONS)
    reasons: list[str] = []
    device = _device(device, backend, precision, reasons)
    kind = device.partition(":")[0]
    if backend == "auto":
        backend = (
            _gpu_backend(reasons)
            if kind == "cuda"
            else _cpu_backend(precision, large, int8_graph is not None, reasons)
        )
    else:
        reasons.append(f"{backend} as asked")
    abilities = _ABILITIES.get((backend, kind))
    if abilities is None:
        kinds = " or ".join(k for b, k in _ABILITIES if b == backend)
        raise DeviceError(
            f"the {backend} backend runs on {kinds}, not on {device}: choose another backend or "
            "leave it at 'auto'"
        )
    if precision == "auto":
        precision = _precision(backend, kind, int8_graph, reasons)
    else:
        reasons.append(f"{precision} as asked")
    if kind == "cuda" and precision == "fp32":
        reasons.append("convolutions in TF32 where the GPU has it")
    if precision not in abilities:
        raise DeviceError(
            f"the {backend} backend on {kind} has {', '.join(abilities)}, not {precision}"
        )
    if precision == "int8" and int8_graph is None:
        raise DeviceError(
            "int8 needs a search graph quantised for these weights, and there is none beside them: "
            "make one with 'siamcar export --format onnx --int8 --calibration FOLDER'"
        )
    return Placement(backend, device, precision, "; ".join(reasons))


def installed_abilities(kind: str) -> list[tuple[str, str]]:
    """Each backend and precision that could run here on a "cpu" or on "cuda", the reference first.

    Whether the libraries behind ONNX Runtime's providers for GPUs are there shows when they start.
    """
    found = []
    for (backend, on), precisions in _ABILITIES.items():
        if on != kind or not all(map(_installed, _PACKAGES[backend])):
            continue
        if (backend, on) == ("onnxruntime", "cuda") and not _onnxruntime_has_cuda():
            continue
        found += [(backend, precision) for precision in precisions]
    return found


def _check_word(what: str, word: str, known: tuple[str, ...]) -> None:
    if word != "auto" and word not in known:
        raise DeviceError(f"{what} is auto or one of {', '.join(known)}, not {word!r}")


def _device(asked: str, backend: str, precision: str, reasons: list[str]) -> str:
    """The device as "cpu" or "cuda:N"."""
    if asked == "auto":
        if backend == "openvino":
            return "cpu"
        if backend == "onnxruntime" and not _onnxruntime_has_cuda():
            reasons.append("the installed ONNX Runtime is for CPUs")
            return "cpu"
        if torch.cuda.is_available():
            gpu = f"the GPU {torch.cuda.get_device_name(0)}"
            if _only_on_cpu(backend, precision):
                reasons.append(f"{gpu} is left aside, as {precision} is for CPUs here")
                return "cpu"
            reasons.append(f"{gpu} is present")
            return "cuda:0"
        reasons.append("no CUDA device is present")
        return "cpu"
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", asked)
    if not found:
        raise DeviceError(f"device is auto, cpu, cuda or cuda:N, not {asked!r}")
    if asked == "cpu":
        reasons.append("the CPU as asked")
        return "cpu"
    number, count = int(found.group(1) or 0), torch.cuda.device_count()
    if not torch.cuda.is_available() or number >= count:
        why = (
            f"PyTorch {torch.__version__} is built without CUDA"
            if torch.version.cuda is None
            else f"PyTorch {torch.__version__} sees {count} CUDA devices"
        )
        raise DeviceError(
            f"{asked} was asked for, but {why}: install a CUDA build of PyTorch and the NVIDIA "
            "driver, or choose device 'auto' or 'cpu'"
        )
    reasons.append(f"the GPU {torch.cuda.get_device_name(number)} as asked")
    return f"cuda:{number}"


def _only_on_cpu(backend: str, precision: str) -> bool:
    """Whether a precision that was asked for is had on CPUs, and not on GPUs."""
    kinds = {
        kind
        for (name, kind), precisions in _ABILITIES.items()
        if backend in ("auto", name) and precision in precisions
    }
    return kinds == {"cpu"}


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _onnxruntime_has_cuda() -> bool:
    if not _installed("onnxruntime"):
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _gpu_backend(reasons: list[str]) -> str:
    reasons.append("CUDA graphs spare the launches")
    return "cudagraph"


def _cpu_backend(precision: str, large: bool, quantised: bool, reasons: list[str]) -> str:
    """The best of those installed, as `siamcar bench network` finds them.

    OpenVINO is the fastest or near it, and loses the least when other programs share the cores;
    only a large network in fp32 is quicker in ONNX Runtime.
    """
    flags = cpu_flags()
    narrow = flags & _BF16_FLAGS or (quantised and flags & _INT8_FLAGS)
    order = ["openvino", "onnxruntime", "torch"]
    if large and (precision == "fp32" or not narrow):
        order = ["onnxruntime", "openvino", "torch"]
    usable = [
        backend
        for backend in order
        if all(map(_installed, _PACKAGES[backend]))
        and precision in ("auto", *_ABILITIES[backend, "cpu"])
    ]
    if not usable:
        able = any(precision in kinds for (_, kind), kinds in _ABILITIES.items() if kind == "cpu")
        what = "pip install '.[openvino,onnx]' in the checkout, or leave" if able else "leave"
        raise DeviceError(f"nothing installed runs {precision} on the CPU: {what} it at 'auto'")
    reasons.append(
        f"{usable[0]}, the best of {', '.join(usable)} for a network of this size"
        if len(usable) > 1
        else f"{usable[0]}, as nothing else that could is installed"
    )
    return usable[0]


def _int8_flags() -> list[str]:
    return sorted(cpu_flags() & _INT8_FLAGS)


def _precision(backend: str, kind: str, int8_graph: Path | None, reasons: list[str]) -> str:
    if kind == "cuda":
        if backend == "onnxruntime":
            # Which TensorRT's libraries do is known when it starts; fp16 is for who has them.
            reasons.append("fp32 by its CUDA provider; fp16, if asked for, is by TensorRT")
            return "fp32"
        reasons.append("fp16 by the tensor cores")
        return "fp16"
    abilities, int8_flags = _ABILITIES[backend, kind], _int8_flags()
    if "int8" in abilities and int8_graph is not None and int8_flags:
        reasons.append(f"int8 by {int8_flags[0]}, with the quantised graph {int8_graph.name}")
        return "int8"
    bf16_flags = sorted(cpu_flags() & _BF16_FLAGS)
    if "bf16" in abilities and bf16_flags:
        reasons.append(f"bf16 by {bf16_flags[0]}")
        return "bf16"
    reasons.append("fp32, as nothing narrower is quicker here")
    return "fp32"
