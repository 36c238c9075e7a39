"""Validation by tracking: a network's measures on a folder of sequences."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from siamcar_ros.data import DataError, Sequence, SequenceError, read_sequence
from siamcar_ros.evaluation import run_sequence
from siamcar_ros.evaluation.protocols import FOLDER, score_sequence
from siamcar_ros.model import SiamCAR
from siamcar_ros.runtime import load_network
from siamcar_ros.tracking import SiamCarTracker
from siamcar_ros.tracking.config import read_config

logger = logging.getLogger(__name__)

MEASURES = ("ao", "sr75", "inflated")


def find_sequences(folder: Path, frames: int | None = None) -> list[Sequence]:
    """The sequences in a folder; those that cannot be read are named in the log.

    Args:
        folder: holds a folder of images with ``groundtruth.txt`` for each sequence.
        frames: of each sequence at most so many; None for all.

    Raises:
        DataError: there is none.
    """
    sequences = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if place.is_dir():
                sequence = read_sequence(place)
                sequences.append(
                    replace(
                        sequence,
                        frames=sequence.frames[:frames],
                        boxes=sequence.boxes[:frames],
                        annotated=sequence.annotated[:frames],
                    )
                )
        except (SequenceError, OSError) as error:
            logger.warning("validation leaves out %s", error)
    if not sequences:
        raise DataError(f"validation.sequences: no sequence in {folder}")
    return sequences


def validate(
    model: SiamCAR, config: str | Path, folder: Path, frames: int | None = None
) -> dict[str, float]:
    """Track through each sequence once, with the tracker parameters of a configuration.

    A sequence that cannot be tracked or scored is named in the log and left out.

    Args:
        model: on any device; a copy of it is run, in float32.
        config: the network's, a name or a YAML file.
        folder: as for :func:`find_sequences`.
        frames: likewise.

    Returns:
        the average overlap of each sequence as "overlap/NAME", without the first frame; and as
        "tracking/MEASURE" the means over the sequences of :data:`MEASURES`, which
        :data:`siamcar_ros.evaluation.protocols.MEASURES` explains.

    Raises:
        DataError: no sequence there can be scored.
    """
    sequences = find_sequences(folder, frames)
    device = str(next(model.parameters()).device)
    network = load_network(model, device=device, backend="torch", precision="fp32")
    tracker = SiamCarTracker(network, read_config(config).params)
    scores = []
    for sequence in sequences:
        try:
            scored = score_sequence(sequence, [run_sequence(tracker, sequence)], FOLDER)
            if scored is None:
                raise DataError("no frame can be scored")
            scores.append(scored)
        except (ValueError, RuntimeError) as error:
            logger.warning("validation leaves out %s: %s", sequence.name, error)
    if not scores:
        raise DataError(f"validation.sequences: no sequence in {folder} can be scored")
    means = {
        f"tracking/{name}": float(np.mean([s.measures[name] for s in scores])) for name in MEASURES
    }
    return {**{f"overlap/{s.name}": s.measures["ao"] for s in scores}, **means}
