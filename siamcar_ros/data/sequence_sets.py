"""Data sets of sequences: what a reader offers to training and evaluation alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from siamcar_ros.data.annotations import SequenceError
from siamcar_ros.data.sequences import Sequence
from siamcar_ros.files import reason
from siamcar_ros.resources import read_yaml, resource_path


@dataclass(frozen=True)
class Collection:
    """The sequences of a data set as found on disk.

    Attributes:
        sequences: those that can be run.
        problems: a line for each that cannot, and for each oddity in the others.
        left_out: how many cannot be run.
        attributes: long names of the attributes, by their short ones.
    """

    sequences: tuple[Sequence, ...]
    problems: tuple[str, ...] = ()
    attributes: Mapping[str, str] | None = None
    left_out: int = 0


class SequenceSet(ABC):
    """A data set of sequences in its owner's layout.

    A subclass lists the names of its sequences at the start, cheaply, and reads one when asked. Its
    keyword arguments are the options of a recipe.

    Attributes:
        title: what the set is called in messages.
        root: the folder.
        names: of the sequences, as :meth:`read` takes them.
        attributes: long names of the attributes, by their short ones.
        max_gap: for training, most frames between the two of a pair unless the recipe says.
        trainable: whether it has a training split, of which recipes may draw.
    """

    attributes: ClassVar[Mapping[str, str] | None] = None
    max_gap: ClassVar[int] = 50
    trainable: ClassVar[bool] = True

    def __init__(self, title: str, root: Path, names: Iterable[str]) -> None:
        self.title, self.root, self.names = title, root, list(names)

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, name: str) -> Sequence:
        """Read a sequence of `names`; its first frame need not show the target.

        Raises:
            SequenceError, OSError: it is missing or malformed.
        """

    def read_all(self) -> Collection:
        """Read every sequence; one that cannot be read or started becomes a problem.

        Raises:
            SequenceError: none can be read. The message gives the first problems.
        """
        sequences: list[Sequence] = []
        problems: list[str] = []
        for name in self.names:
            try:
                sequence = self.read(name)
                sequence.check_start()
            except (SequenceError, OSError) as error:
                problems.append(f"{name} left out: {reason(error)}")
                continue
            sequences.append(sequence)
            problems += sequence.notes
        if not sequences:
            reasons = "; ".join(problems[:3]) or "it holds no sequence"
            raise SequenceError(f"{self.title}: nothing to read in {self.root}: {reasons}")
        left_out = len(self) - len(sequences)
        return Collection(tuple(sequences), tuple(problems), self.attributes, left_out)


def listed_names(root: Path) -> list[str]:
    """The names of sequences in `root`: those in its `list.txt`, else of its folders, sorted."""
    if (root / "list.txt").is_file():
        return (root / "list.txt").read_text(encoding="utf-8").split()
    return subfolders(root)


def subfolders(root: Path) -> list[str]:
    """Names of the folders in `root`, sorted; raises FileNotFoundError where it does not exist."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}")
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def first_existing(*candidates: Path) -> Path:
    """The first of several files or folders that exists; FileNotFoundError where none does."""
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"none of these exists: {', '.join(map(str, candidates))}")


@cache
def benchmark_facts(name: str) -> dict[str, Any]:
    """The facts shipped for a benchmark, config/benchmarks/NAME.yaml."""
    content: dict[str, Any] = read_yaml(resource_path(f"config/benchmarks/{name}.yaml"))
    return content
