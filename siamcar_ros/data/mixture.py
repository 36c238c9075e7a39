"""The data sets of a recipe: opened by kind, sampled by weight."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from siamcar_ros.data.annotations import SequenceError
from siamcar_ros.data.frames import Frame
from siamcar_ros.data.pair_sources import DataError, Faults, MaxGap, PairSet, SequencePairs
from siamcar_ros.data.registry import dataset_kinds
from siamcar_ros.data.sequence_sets import SequenceSet
from siamcar_ros.files import reason
from siamcar_ros.options import converted
from siamcar_ros.resources import refuse_unknown


class Mixture:
    """Several data sets, by the recipe's names; each pair comes from one of them, chosen at random
    by weight. DataError if a weight is negative or none is positive.
    """

    def __init__(self, sources: Mapping[str, PairSet], weights: Mapping[str, float]) -> None:
        self.sources = dict(sources)
        shares = np.array([weights[name] for name in self.sources], np.float64)
        if not len(shares) or shares.sum() <= 0 or shares.min() < 0:
            raise DataError(
                f"the weights of the data sets are {dict(weights)}: one must be above 0"
            )
        self._shares = np.cumsum(shares / shares.sum())

    def pair(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        """Draw a pair from one of the sources."""
        index = int(np.searchsorted(self._shares, rng.random(), "right"))
        return list(self.sources.values())[min(index, len(self.sources) - 1)].pair(rng)

    def take_faults(self) -> Faults:
        """The faults of all sources since the last call."""
        taken = [source.take_faults() for source in self.sources.values()]
        messages = tuple(message for faults in taken for message in faults.messages)
        return Faults(sum(faults.draws for faults in taken), messages)

    def fingerprint(self) -> str:
        """Hexadecimal digest of the sets' contents, in their order."""
        digest = hashlib.sha256()
        for name, source in self.sources.items():
            digest.update(f"{name} {source.fingerprint()}\n".encode())
        return digest.hexdigest()[:16]

    def sizes(self) -> dict[str, int]:
        """The number of images or videos in each set."""
        return {name: len(source) for name, source in self.sources.items()}


def build_mixture(sets: Mapping[str, Mapping[str, Any]], max_fault_share: float = 0.01) -> Mixture:
    """Open the data sets that a recipe lists.

    Args:
        sets: options by name. ``kind`` (by default the name) is one of
            :func:`~siamcar_ros.data.registry.dataset_kinds`, ``root`` its folder, in which ``~``
            and ``$VARIABLES`` are expanded, ``weight`` its share of the pairs (by default 1); the
            others are the kind's own. Sets of weight 0 are not opened.
        max_fault_share: largest share of broken files in a set that is read at the start.

    Raises:
        ValueError: an unknown kind or option, or a value of the wrong type.
        DataError: files are missing.
    """
    sources: dict[str, PairSet] = {}
    weights: dict[str, float] = {}
    for name, options in sets.items():
        settings = dict(options)
        weight = converted(settings.pop("weight", 1.0), float, f"data.sets.{name}.weight")
        if weight == 0:
            continue
        sources[name], weights[name] = build_source(name, settings), weight
        broken = len(sources[name].skipped)
        if broken > max_fault_share * (broken + len(sources[name])):
            raise DataError(
                f"data set {name!r}: {broken} files are missing or broken, more than "
                f"data.max_fault_share ({max_fault_share:g}) allows"
            )
    return Mixture(sources, weights)


def build_source(name: str, options: Mapping[str, Any]) -> PairSet:
    """Open one data set by its options, as in :func:`build_mixture` but without a weight."""
    settings, kinds = dict(options), dataset_kinds()
    kind_name = str(settings.pop("kind", name))
    refuse_unknown([kind_name], kinds, f"data set {name!r}: kind")
    kind = kinds[kind_name]
    if "root" not in settings:
        raise DataError(f"data set {name!r} has no root, the folder that holds it")
    root = converted(settings.pop("root"), Path, f"data.sets.{name}.root")
    if not root.is_dir():
        unset = re.findall(r"\$\{?(\w+)", str(root))
        why = f" (the environment variable {unset[0]} is not set)" if unset else ""
        raise DataError(
            f"data set {name!r}: there is no folder {root}{why}; set data.sets.{name}.root"
        )
    _, *accepted = inspect.signature(kind, eval_str=True).parameters.values()
    hints = {parameter.name: parameter.annotation for parameter in accepted}
    if issubclass(kind, SequenceSet):
        hints["max_gap"] = MaxGap
    refuse_unknown(settings, hints, f"data set {name!r} ({kind_name}): option")
    for key, value in settings.items():
        settings[key] = converted(value, hints[key], f"data.sets.{name}.{key}")
    try:
        if issubclass(kind, SequenceSet):
            gap = settings.pop("max_gap", None)
            return SequencePairs(kind(root, **settings), gap)
        source: PairSet = kind(root, **settings)
        return source
    except (SequenceError, OSError) as error:
        raise DataError(f"data set {name!r}: {reason(error)}") from None
