"""Tracking with the network in training: the average overlap on a folder of sequences."""

from __future__ import annotations

import logging
from pathlib import Path

import yaml

from siamcar_ros.data import DataError, Sequence, SequenceError, read_sequence
from siamcar_ros.evaluation import run_sequence
from siamcar_ros.evaluation.metrics import average_overlap, iou
from siamcar_ros.model import SiamCAR
from siamcar_ros.resources import resource_path
from siamcar_ros.tracking import SiamCarTracker, TrackerParams

logger = logging.getLogger(__name__)


def find_sequences(folder: Path) -> list[Sequence]:
    """The sequences in a folder; those that cannot be read are named in the log.

    Raises:
        DataError: there is none.
    """
    sequences = []
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if place.is_dir():
                sequences.append(read_sequence(place))
        except (SequenceError, OSError) as error:
            logger.warning("validation leaves out %s", error)
    if not sequences:
        raise DataError(f"validation.sequences: no sequence in {folder}")
    return sequences


def validate(model: SiamCAR, folder: Path) -> dict[str, float]:
    """One pass over each sequence with the network's own tracker settings.

    A sequence that cannot be tracked or scored is named in the log and left out.

    Args:
        model: put into evaluation mode for the time.
        folder: holds the sequences, each a folder of images with ``groundtruth.txt``.

    Returns:
        average overlap (without the first frame) by sequence, and their mean as "mean".

    Raises:
        DataError: no sequence there can be scored.
    """
    config = resource_path(f"config/networks/{model.name}.yaml")
    params = TrackerParams(**(yaml.safe_load(config.read_text()).get("tracker") or {}))
    training = model.training
    model.eval()
    scores: dict[str, float] = {}
    try:
        for sequence in find_sequences(folder):
            try:
                run = run_sequence(SiamCarTracker(model, params), sequence)
                scores[sequence.name] = average_overlap(iou(run.boxes, sequence.boxes)[1:])
            except (ValueError, RuntimeError) as error:
                logger.warning("validation leaves out %s: %s", sequence.name, error)
    finally:
        model.train(training)
    if not scores:
        raise DataError(f"validation.sequences: no sequence in {folder} can be scored")
    return {**scores, "mean": sum(scores.values()) / len(scores)}
