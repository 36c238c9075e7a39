"""The choice of backend, device and precision: as requested, or the fastest, and why."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from siamcar_ros.runtime.network import (
    BACKENDS,
    PRECISIONS,
    Backend,
    DeviceError,
    Placement,
    is_installed,
)
from siamcar_ros.runtime.source import no_graphs

# Not avx512_bf16: without AMX, bf16 takes 1.3 to 1.8 times as long as fp32 in OpenVINO and PyTorch.
_BF16_FLAGS = ("amx_bf16", "bf16")
# Without Arm's dot products: nobody has measured int8 there, so it must be asked for.
_INT8_FLAGS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx2")


@cache
def cpu_flags() -> frozenset[str]:
    """The processor's features as Linux names them; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def gpu_names() -> list[str]:
    """The GPUs that PyTorch can use; it is imported only if there is a driver."""
    if not is_installed("torch") or not _has_gpu_driver():
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _has_gpu_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()  # AMD's
    return True


def select_backend(
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    *,
    int8: Path | None = None,
    graphs: bool = True,
    model: bool = True,
) -> Placement:
    """Decide where a network runs; the first three arguments are those of :func:`load_network`.

    `int8` is the path of its quantized search graph. `graphs` says whether it is available as ONNX
    graphs, `model` whether PyTorch could run it.

    Raises:
        DeviceError: what was asked for is not available; the message says what to do.
    """
    _check_word("backend", backend, BACKENDS)
    _check_word("precision", precision, PRECISIONS)
    reasons: list[str] = []
    device = _device(device, backend, precision, reasons)
    kind = device.partition(":")[0]
    chosen = BACKENDS.get(backend) or _fastest(kind, precision, graphs, model, reasons)
    if backend != "auto":
        reasons.append(f"the backend {backend} was asked for")
    if not chosen.installed:
        extra = chosen.packages[0]
        raise DeviceError(
            f"the {chosen.name} backend needs the Python package {extra!r}: "
            f"pip install 'siamcar_ros[{extra}]'"
        )
    if kind not in chosen.precisions:
        raise DeviceError(
            f"the {chosen.name} backend runs on {' or '.join(chosen.precisions)}, not on {device}: "
            "choose another backend or leave it at 'auto'"
        )
    if precision != "auto":
        reasons.append(f"{precision} was asked for")
    else:
        precision = _precision(chosen, kind, int8, reasons)
    if precision not in chosen.precisions[kind]:
        has = ", ".join(chosen.precisions[kind])
        raise DeviceError(f"the {chosen.name} backend on {kind} has {has}, not {precision}")
    if precision == "int8" and int8 is None:
        raise DeviceError(
            "int8 needs a search graph quantized from these weights, and none lies beside them: "
            "make one with 'siamcar export --int8 --calibration FOLDER'"
        )
    if kind == "cuda" and precision == "fp32":
        reasons.append("convolutions are in TF32 where the GPU has it")
    *most, last = reasons
    why = f"{', '.join(most)} and {last}" if most else last
    return Placement(
        chosen.name, device, precision, f"{chosen.name} on {device} in {precision}, because {why}"
    )


def installed_abilities(kind: str) -> list[tuple[str, str]]:
    """The backends and precisions installed for "cpu" or "cuda"; PyTorch, the reference, first.

    ONNX Runtime's GPU providers may still lack libraries, which only shows when they start.
    """
    return [
        (backend.name, precision)
        for backend in sorted(BACKENDS.values(), key=lambda each: each.name != "torch")
        if backend.installed
        if (backend.name, kind) != ("onnxruntime", "cuda") or _onnxruntime_has_cuda()
        for precision in backend.precisions.get(kind, ())
    ]


def _check_word(what: str, word: str, known: Iterable[str]) -> None:
    if word != "auto" and word not in known:
        raise DeviceError(f"{what} is auto or one of {', '.join(known)}, not {word!r}")


def _device(asked: str, backend: str, precision: str, reasons: list[str]) -> str:
    """The device as "cpu" or "cuda:N"."""
    found = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", asked)
    if not found:
        raise DeviceError(f"device is auto, cpu, cuda or cuda:N, not {asked!r}")
    if asked == "cpu":
        reasons.append("the CPU was asked for")
        return "cpu"
    if asked == "auto":
        return _best_device(backend, precision, reasons)
    number, names = int(found.group(1) or 0), gpu_names()
    if number < len(names):
        reasons.append(f"the GPU {names[number]} was asked for")
    elif not (backend == "onnxruntime" and _onnxruntime_has_cuda() and not is_installed("torch")):
        why = (
            f"PyTorch finds {len(names) or 'no'} CUDA device{'s' * (len(names) > 1)}"
            if is_installed("torch")
            else "PyTorch, which would run on it, is not installed"
        )
        raise DeviceError(
            f"{asked} was asked for, but {why}: install a CUDA build of PyTorch and the NVIDIA "
            "driver, or choose device 'auto' or 'cpu'"
        )
    return f"cuda:{number}"


def _best_device(backend: str, precision: str, reasons: list[str]) -> str:
    if backend in BACKENDS and "cuda" not in BACKENDS[backend].precisions:
        return "cpu"
    if backend == "onnxruntime" and not _onnxruntime_has_cuda():
        reasons.append("the installed ONNX Runtime is for CPUs")
        return "cpu"
    names = gpu_names()
    if not names:
        reasons.append("no GPU is available")
        return "cpu"
    kinds = {
        kind
        for each in BACKENDS.values()
        if backend in ("auto", each.name)
        for kind, precisions in each.precisions.items()
        if precision in precisions
    }
    if kinds == {"cpu"}:
        reasons.append(f"{precision} runs on CPUs only, not on the GPU {names[0]}")
        return "cpu"
    reasons.append(f"the GPU {names[0]} is available")
    return "cuda:0"


def _onnxruntime_has_cuda() -> bool:
    if not is_installed("onnxruntime"):
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _fastest(kind: str, precision: str, graphs: bool, model: bool, reasons: list[str]) -> Backend:
    """The fastest backend that could run the network, as `siamcar bench` measures them."""
    usable = [
        backend
        for backend in sorted(BACKENDS.values(), key=lambda each: each.speed, reverse=True)
        if backend.installed
        and precision in ("auto", *backend.precisions.get(kind, ()))
        and kind in backend.precisions
        and (model if "torch" in backend.packages else graphs)
    ]
    if not usable:
        others = (each for each in BACKENDS.values() if "torch" not in each.packages)
        if not graphs and any(
            each.installed and precision in ("auto", *each.precisions.get(kind, ()))
            for each in others
        ):
            raise no_graphs()
        if precision == "auto":
            raise DeviceError(
                "graphs without weights run on a GPU only in onnxruntime-gpu: install it, give the "
                "weights, or choose device 'cpu'"
            )
        able = any(precision in each.precisions.get(kind, ()) for each in BACKENDS.values())
        what = "pip install 'siamcar_ros[openvino]', or leave" if able else "leave"
        raise DeviceError(f"nothing installed runs {precision} on {kind}: {what} it at 'auto'")
    best = usable[0]
    if len(usable) > 1:
        reasons.append(f"{best.name} is the fastest of {', '.join(b.name for b in usable)}")
    else:
        reasons.append(f"{best.name} is the only one installed that runs it")
    return best


def _precision(backend: Backend, kind: str, int8: Path | None, reasons: list[str]) -> str:
    has = backend.precisions[kind]
    if kind == "cuda":
        if backend.name == "onnxruntime":
            # fp16 is TensorRT's, and whether its libraries work only shows when it starts.
            reasons.append("its CUDA provider has fp32")
            return "fp32"
        reasons.append("fp16 uses the tensor cores")
        return "fp16"
    narrow = _cpu_has(_INT8_FLAGS)
    if "int8" in has and int8 is not None and narrow is not None:
        reasons.append(f"the CPU has {narrow} for the int8 graph {int8.name}")
        return "int8"
    bf16 = _cpu_has(_BF16_FLAGS)
    if "bf16" in has and bf16 is not None:
        reasons.append(f"the CPU has {bf16}")
        return "bf16"
    reasons.append("nothing narrower is faster on this CPU")
    return "fp32"


def _cpu_has(flags: Iterable[str]) -> str | None:
    """The first of these features that the processor has."""
    return next((flag for flag in flags if flag in cpu_flags()), None)
