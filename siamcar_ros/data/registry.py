"""The kinds of data sets, by the name that recipes and `siamcar evaluate` give."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

_KINDS: dict[str, type[Any]] = {}
_Kind = TypeVar("_Kind", bound=type[Any])


def register_dataset(name: str) -> Callable[[_Kind], _Kind]:
    """Decorate a class that reads a kind of data set.

    A `siamcar_ros.data.sequence_sets.SequenceSet` reads sequences, for training and evaluation; a
    `siamcar_ros.data.pair_sources.PairSet` draws training pairs in its own way. The class is
    called with the root folder and, as keywords, the options that a recipe gives. A module in
    `siamcar_ros/data/readers` is imported when the kinds are first looked up.

    Raises:
        ValueError: another class has that name.
    """

    def register(kind: _Kind) -> _Kind:
        if name in _KINDS:
            raise ValueError(f"two data set kinds are called {name!r}: {_KINDS[name]} and {kind}")
        _KINDS[name] = kind
        return kind

    return register


def dataset_kinds() -> dict[str, type[Any]]:
    """All registered classes, by name in alphabetical order."""
    from siamcar_ros.data import readers

    for module in pkgutil.iter_modules(readers.__path__):
        importlib.import_module(f"{readers.__name__}.{module.name}")
    return dict(sorted(_KINDS.items()))
