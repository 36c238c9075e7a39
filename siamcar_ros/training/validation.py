"""Validation by tracking: a network's measures on a folder of sequences."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from siamcar_ros.data import DataError, Sequence, SequenceError
from siamcar_ros.data.readers.folders import SequenceFolder
from siamcar_ros.evaluation import run_sequence
from siamcar_ros.evaluation.protocols import FOLDER, score_sequence, summarize
from siamcar_ros.model import SiamCAR
from siamcar_ros.runtime import Network, load_network
from siamcar_ros.tracking import SiamCarTracker, TrackerParams
from siamcar_ros.tracking.config import read_config

logger = logging.getLogger(__name__)

MEASURES = ("ao", "sr75", "inflated")


def find_sequences(folder: Path, frames: int | None = None) -> list[Sequence]:
    """The sequences in a folder, cut to a number of frames if given.

    Those that cannot be read are named in the log.
    """
    try:
        found = SequenceFolder(folder).read_all()
    except (SequenceError, OSError) as error:
        raise DataError(f"validation.sequences: {error}") from None
    for problem in found.problems:
        logger.warning("validation: %s", problem)
    return [
        replace(
            each,
            frames=each.frames[:frames],
            boxes=each.boxes[:frames],
            annotated=each.annotated[:frames],
        )
        for each in found.sequences
    ]


def validate(
    model: SiamCAR, config: str | Path, folder: Path, frames: int | None = None
) -> dict[str, float]:
    """Track through the sequences in a folder, with the tracker parameters of a configuration.

    A copy of the model runs in float32 on its device. `config` is a network's name or YAML file;
    the sequences are those of :func:`find_sequences`, the result that of :func:`track_all`.
    """
    sequences = find_sequences(folder, frames)
    device = str(next(model.parameters()).device)
    network = load_network(model, device=device, backend="torch", precision="fp32")
    return track_all(network, read_config(config).params, sequences)


def track_all(
    network: Network, params: TrackerParams, sequences: Iterable[Sequence]
) -> dict[str, float]:
    """Track through sequences; one that cannot be tracked or scored is named in the log.

    Returns:
        the average overlap of each sequence as "overlap/NAME", without the first frame; and as
        "tracking/MEASURE" the means over the sequences of :data:`MEASURES`, which
        :data:`siamcar_ros.evaluation.protocols.MEASURES` explains.
    """
    tracker = SiamCarTracker(network, params)
    scores = {}
    for sequence in sequences:
        try:
            scored = score_sequence(sequence, [run_sequence(tracker, sequence)], FOLDER)
            if scored is None:
                raise DataError("no frame can be scored")
            scores[sequence.name] = scored
        except (ValueError, RuntimeError) as error:
            logger.warning("%s is left out: %s", sequence.name, error)
    if not scores:
        raise DataError("no sequence can be scored")
    means = summarize("", scores, FOLDER).measures
    overlaps = {f"overlap/{name}": score.measures["ao"] for name, score in scores.items()}
    return {**overlaps, **{f"tracking/{name}": means[name] for name in MEASURES}}
