"""Measuring contestants against each other, and the machine that they ran on.

Other programs and the processor's clock change what a millisecond is worth. So contestants run in
turn, each for a fraction of a second, round after round, and a ratio is the median over the rounds
of the ratios within a round.
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

# Seconds of a turn: first those that settle caches, threads and the clock, then those that count.
# With turns of a tenth of a second a network of 1.2 ms looked half as fast as it runs alone.
_SETTLE, _TURN = 0.3, 0.3
_LONG = 0.1  # seconds
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
    """What one contestant took.

    Attributes:
        rounds: (R,) seconds, the median call of each round.
        calls: seconds of every timed call.
    """

    rounds: NDArray[np.float64]
    calls: NDArray[np.float64]

    @property
    def median(self) -> float:
        """Seconds."""
        return float(np.median(self.calls))

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds; half of the calls lie between them."""
        low, high = np.percentile(self.calls, (25, 75))
        return float(low), float(high)

    def faster_than(self, other: Timing) -> float:
        """How many times as fast as another of the same run."""
        return float(np.median(other.rounds / self.rounds))


def interleave(contestants: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, Timing]:
    """Run each in turn, round after round, for about so long and at least three rounds.

    Each turn begins with calls that do not count: they warm the caches and give the threads of
    the one before, which spin for a while, the time to go to sleep.
    """
    # Contestants that take long are called once a turn: what precedes matters little to them.
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
    """Seconds of each call within `counted` seconds, at least one, after `settle` seconds."""
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


def describe_machine(threads: int, device: str = "cpu") -> dict[str, str]:
    """What a figure must be read with: processor, load, threads, versions."""
    import torch

    from siamcar_ros.runtime.select import cpu_flags

    load = os.getloadavg()[0]
    facts = {
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0))} usable, {os.cpu_count()} in all",
        "instructions": " ".join(flag for flag in _TELLING_FLAGS if flag in cpu_flags()),
        "threads": str(threads),
        "load at the start": f"{load:.1f}"
        + (" (busy: ratios hold, milliseconds do not)" if load > 1 else ""),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name, version in _versions().items()),
    }
    if device != "cpu":
        facts["GPU"] = torch.cuda.get_device_name(device)
    return facts


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = {
        key: match.group(1).strip()
        for key in ("model name", "cpu family", "model")
        if (match := re.search(rf"^{key}\s*:(.*)$", text, re.MULTILINE))
    }
    name = found.get("model name", platform.machine())
    return f"{name} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def _versions() -> dict[str, str]:
    # OpenCV comes in packages of several names.
    found = {"opencv": cv2.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
