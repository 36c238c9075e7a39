"""Tracking with the network in training: the average overlap on a folder of sequences."""

from __future__ import annotations

import logging
from pathlib import Path

import yaml

from siamcar_ros.evaluation import SequenceError, read_sequence, run_sequence
from siamcar_ros.evaluation.metrics import average_overlap, iou
from siamcar_ros.model import SiamCAR
from siamcar_ros.resources import resource_path
from siamcar_ros.tracking import SiamCarTracker, TrackerParams

from .datasets import DataError

logger = logging.getLogger(__name__)


def validate(model: SiamCAR, folder: Path) -> dict[str, float]:
    """One pass over each sequence with the network's own tracker settings.

    Args:
        model: put into evaluation mode for the time.
        folder: holds the sequences, each a folder of images with ``groundtruth.txt``.

    Returns:
        average overlap (without the first frame) by sequence, and their mean as "mean".

    Raises:
        DataError: no sequence there can be read.
    """
    config = resource_path(f"config/networks/{model.name}.yaml")
    params = TrackerParams(**(yaml.safe_load(config.read_text()).get("tracker") or {}))
    training = model.training
    model.eval()
    scores: dict[str, float] = {}
    try:
        for place in sorted(path for path in folder.iterdir() if path.is_dir()):
            try:
                sequence = read_sequence(place)
            except SequenceError as error:
                logger.warning("validation leaves out %s", error)
                continue
            run = run_sequence(SiamCarTracker(model, params), sequence)
            scores[sequence.name] = average_overlap(iou(run.boxes, sequence.boxes)[1:])
    finally:
        model.train(training)
    if not scores:
        raise DataError(f"validation.sequences: no sequence in {folder}")
    return {**scores, "mean": sum(scores.values()) / len(scores)}
