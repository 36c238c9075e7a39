"""The data sets of a recipe: made by name and options, drawn from by weight."""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from siamcar_ros.data.frames import Frame
from siamcar_ros.data.options import RecipeError, converted, refuse_unknown

from .coco import Coco
from .imagenet import ImageNetDet, ImageNetVid
from .masked import Davis, YouTubeVos
from .source import DataError, Faults, Source
from .stills import MaskedVideos, StillImages
from .tracking import Got10k, LaSOT, SequenceFolder, TrackingNet
from .youtube_bb import YouTubeBB

DATASETS: dict[str, Callable[..., Source]] = {
    "coco": Coco,
    "imagenet_det": ImageNetDet,
    "imagenet_vid": ImageNetVid,
    "youtube_bb": YouTubeBB,
    "got10k": Got10k,
    "lasot": LaSOT,
    "trackingnet": TrackingNet,
    "davis": Davis,
    "youtube_vos": YouTubeVos,
    "sequences": SequenceFolder,
    "stills": StillImages,
    "masked_videos": MaskedVideos,
}
"""Readers by the name that a recipe gives under ``kind``."""

# Of the readers' options, by name.
_RANGES: dict[str, tuple[float, float]] = {
    "max_gap": (0, math.inf),
    "short_side": (16, math.inf),
    "limit": (1, math.inf),
    "rectangles": (0, 1),
}


class Mixture:
    """Several sources; each pair comes from one of them, drawn by weight.

    Args:
        sources: by the name that the recipe gives them.
        weights: by the same names; their sum need not be 1.

    Raises:
        DataError: no source has a weight above 0, or a weight is negative.
    """

    def __init__(self, sources: Mapping[str, Source], weights: Mapping[str, float]) -> None:
        self.sources = dict(sources)
        shares = np.array([weights[name] for name in self.sources], np.float64)
        if not len(shares) or shares.sum() <= 0 or shares.min() < 0:
            raise DataError(
                f"the weights of the data sets are {dict(weights)}: one must be above 0"
            )
        self._shares = np.cumsum(shares / shares.sum())

    def pair(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        """A pair of one of the sources."""
        index = int(np.searchsorted(self._shares, rng.random(), "right"))
        return list(self.sources.values())[min(index, len(self.sources) - 1)].pair(rng)

    def take_faults(self) -> Faults:
        """What all sources met since the last call."""
        taken = [source.take_faults() for source in self.sources.values()]
        messages = tuple(message for faults in taken for message in faults.messages)
        return Faults(sum(faults.draws for faults in taken), messages)

    def fingerprint(self) -> str:
        """Hexadecimal digest of the sets' contents, in their order: pairs are drawn in it."""
        digest = hashlib.sha256()
        for name, source in self.sources.items():
            digest.update(f"{name} {source.fingerprint()}\n".encode())
        return digest.hexdigest()[:16]

    def sizes(self) -> dict[str, int]:
        """Images or videos of each set."""
        return {name: len(source) for name, source in self.sources.items()}


def build_mixture(sets: Mapping[str, Mapping[str, Any]], max_fault_share: float = 0.01) -> Mixture:
    """The sources that a recipe lists.

    Args:
        sets: options by name. ``kind`` (by default the name) is a key of :data:`DATASETS`,
            ``root`` its folder, in which ``~`` and ``$VARIABLES`` are expanded, ``weight`` its
            share of the pairs (by default 1); the others are the reader's own. Sets of weight 0
            are not opened.
        max_fault_share: how much of a set that is read at once, at the start, may be broken.

    Raises:
        ValueError: an unknown kind or option, or a value of the wrong kind.
        DataError: files that are not there.
    """
    sources: dict[str, Source] = {}
    weights: dict[str, float] = {}
    for name, options in sets.items():
        if not isinstance(options, Mapping):
            raise RecipeError(f"data.sets.{name} must hold keys, not {options!r}")
        settings = dict(options)
        weight = converted(settings.pop("weight", 1.0), float, f"data.sets.{name}.weight")
        if weight == 0:
            continue
        sources[name], weights[name] = build_source(name, settings), weight
        broken = len(getattr(sources[name], "skipped", ()))
        if broken > max_fault_share * (broken + len(sources[name])):
            raise DataError(
                f"data set {name!r}: {broken} files are missing or broken, more than "
                f"data.max_fault_share ({max_fault_share:g}) allows"
            )
    return Mixture(sources, weights)


def build_source(name: str, options: Mapping[str, Any]) -> Source:
    """One data set by its options, as in :func:`build_mixture` but without a weight.

    Raises:
        ValueError, DataError: as there.
    """
    settings = dict(options)
    kind = str(settings.pop("kind", name))
    refuse_unknown([kind], DATASETS, f"data set {name!r}: kind")
    if "root" not in settings:
        raise DataError(f"data set {name!r} has no root, the folder that holds it")
    root = converted(settings.pop("root"), Path, f"data.sets.{name}.root")
    if not root.is_dir():
        unset = re.findall(r"\$\{?(\w+)", str(root))
        why = f" (the environment variable {unset[0]} is not set)" if unset else ""
        raise DataError(
            f"data set {name!r}: there is no folder {root}{why}; set data.sets.{name}.root"
        )
    reader = DATASETS[kind]
    _, *accepted = inspect.signature(reader, eval_str=True).parameters.values()
    hints = {parameter.name: parameter.annotation for parameter in accepted}
    refuse_unknown(settings, hints, f"data set {name!r} ({kind}): option")
    for key, value in settings.items():
        settings[key] = converted(value, hints[key], f"data.sets.{name}.{key}")
        if key in _RANGES and settings[key] is not None:
            low, high = _RANGES[key]
            if not low <= settings[key] <= high:
                bounds = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
                raise DataError(f"data.sets.{name}.{key} is {value}; it must be {bounds}")
    return reader(root, **settings)
