"""Timing several contestants against each other, and describing the machine.

Other programs and a changing clock rate distort single measurements. Contestants therefore take
turns of a fraction of a second, round after round, and a ratio of two is the median of their ratios
within each round.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.runtime.select import cpu_flags, gpu_names

# A turn begins with calls that are not counted, while caches, threads and the clock rate settle.
# Turns of a tenth of a second made a network of 1.2 ms look half as fast as it is. Seconds:
_SETTLE, _TURN = 0.3, 0.3
_LONG = 0.1
_PACKAGES = ("torch", "openvino", "onnxruntime", "numpy")
_TELLING_FLAGS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
)


@dataclass(frozen=True)
class Timing:
    """The measured times of one contestant."""

    rounds: NDArray[np.float64]  # (R,) seconds, the median call of each round
    calls: NDArray[np.float64]  # (N,) seconds of every timed call

    @property
    def median(self) -> float:
        """Seconds a call."""
        return float(np.median(self.calls))

    def row(self) -> dict[str, float]:
        """For a table: the median "ms", quartiles "low" and "high", and "fps", calls a second."""
        low, middle, high = (1e3 * np.percentile(self.calls, (25, 50, 75))).tolist()
        return {"ms": middle, "low": low, "high": high, "fps": 1e3 / middle}

    def faster_than(self, other: Timing) -> float:
        """How many times as fast as another contestant of the same run."""
        return float(np.median(other.rounds / self.rounds))


def interleave(contestants: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, Timing]:
    """Call each contestant in turn for about this many seconds, and for at least three rounds."""
    # A slow contestant needs no time to settle, and is called once a turn.
    settling = {
        name: _SETTLE if _turn(call, 0.0, 0.0)[0] < _LONG else 0.0
        for name, call in contestants.items()
    }
    turns: dict[str, list[list[float]]] = {name: [] for name in contestants}
    done, end = 0, time.perf_counter() + seconds
    while done < 3 or time.perf_counter() < end:
        for name, call in contestants.items():
            turns[name].append(_turn(call, settling[name], _TURN))
        done += 1
    return {
        name: Timing(np.array([np.median(turn) for turn in timed]), np.concatenate(timed))
        for name, timed in turns.items()
    }


def _turn(call: Callable[[], Any], settle: float, counted: float) -> list[float]:
    """Call for `settle` seconds, then time the calls of `counted` seconds, at least one."""
    end = time.perf_counter() + settle
    while time.perf_counter() < end:
        call()
    durations: list[float] = []
    end = time.perf_counter() + counted
    while not durations or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        durations.append(time.perf_counter() - begin)
    return durations


def describe_machine(threads: int | None, device: str = "cpu") -> dict[str, str]:
    """Processor, load, threads and versions: what every figure depends on."""
    load = os.getloadavg()[0]
    facts = {
        "processor": processor_name(),
        "cores": f"{len(os.sched_getaffinity(0))} usable, {os.cpu_count()} in all",
        "instructions": " ".join(flag for flag in _TELLING_FLAGS if flag in cpu_flags()),
        "threads": str(threads or "as each backend chooses"),
        "load at the start": f"{load:.1f}" + (" (busy: trust the ratios only)" if load > 1 else ""),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name, version in _versions().items()),
    }
    if device != "cpu":
        facts["GPU"] = gpu_names()[int(device.partition(":")[2] or 0)]
    return facts


def processor_name() -> str:
    """The model of this machine's processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.*)$", text, re.MULTILINE))
    name = found.get("model name", platform.machine())
    return f"{name} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def _versions() -> dict[str, str]:
    found = {"opencv": cv2.__version__}  # whose package has several names
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
