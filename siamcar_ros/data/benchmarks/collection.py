"""What a reader gives: the sequences that could be read, and what was wrong with the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from siamcar_ros.data.annotations import SequenceError
from siamcar_ros.data.sequences import Sequence
from siamcar_ros.resources import resource_path


@dataclass(frozen=True)
class Collection:
    """A data set as found on disk.

    Attributes:
        sequences: those that can be run.
        problems: one line for each that cannot, and for each oddity in those that can.
        attributes: long names of the attributes' short ones.
    """

    sequences: tuple[Sequence, ...]
    problems: tuple[str, ...] = ()
    attributes: dict[str, str] | None = None


def collect(
    names: Iterable[str],
    read: Callable[[str], Iterable[Sequence]],
    *,
    root: Path,
    attributes: dict[str, str] | None = None,
) -> Collection:
    """Read each named sequence; one that cannot be read is a problem, not the end.

    Raises:
        SequenceError: none can be read. The message gives the first problems.
    """
    sequences: list[Sequence] = []
    problems: list[str] = []
    for name in names:
        try:
            found = list(read(name))
        except (SequenceError, OSError) as error:
            problems.append(f"{name} left out: {error}")
            continue
        sequences += found
        problems += [note for sequence in found for note in sequence.notes]
    if not sequences:
        reasons = "; ".join(problems[:3]) or "it holds no sequence"
        raise SequenceError(f"nothing to evaluate in {root}: {reasons}")
    return Collection(tuple(sequences), tuple(problems), attributes)


def subfolders(root: Path) -> list[str]:
    """Names of the folders in `root`, sorted.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}")
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def first_folder(*candidates: Path) -> Path:
    """The first of several places that exists.

    Raises:
        FileNotFoundError: none does.
    """
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"found none of the folders {', '.join(map(str, candidates))}")


@cache
def table(name: str) -> dict[str, Any]:
    """The facts shipped for a benchmark, config/benchmarks/NAME.yaml."""
    with resource_path(f"config/benchmarks/{name}.yaml").open(encoding="utf-8") as file:
        content: dict[str, Any] = yaml.safe_load(file)
    return content
