"""Measures of what a tracker says of its target's presence, by its score and its state.

Tracking precision, tracking recall and F-score are VOT-LT's (Lukezic et al., "Now You See Me:
Evaluating Performance in Long-Term Visual Tracking", 2018). Reported at a threshold are the frames
with at least that score. Tracking precision is the mean overlap of the reported frames, an absent
target overlapping nothing; tracking recall is the sum of their overlaps over the number of frames
with the target. Both are averaged over sequences at common thresholds, and the F-score is the
largest harmonic mean of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.evaluation.metrics import Floats

#: Names of the measures, as tables show them.
MEASURES: dict[str, str] = {
    "f_score": "F-score",
    "tracking_precision": "Tracking precision",
    "tracking_recall": "Tracking recall",
    "threshold": "At score",
    "lost_precision": "LOST precision",
    "lost_recall": "LOST recall",
    "false_alarms": "False alarms",
    "false_finds": "False finds",
    "returns_found": "Returns found",
    "frames_to_find": "Frames to find",
    "calibration_error": "Calibration error",
}
#: Measures that are counts, and the key of what they are out of.
OUT_OF = {"false_finds": "finds", "returns_found": "returns"}

#: Overlaps below which the target is missed, and above which it is found.
MISSED, FOUND = 0.1, 0.5
#: Frames after an absence within which a target must be found to count.
FIND_WITHIN = 60
_BINS = 10
_MOST_THRESHOLDS = 1000


class Presence(NamedTuple):
    """The N frames of a sequence that count; the first, whose box was given, is not among them."""

    overlap: Floats  # (N,) of the box with the true one, 0 where the target is absent
    absent: NDArray[np.bool_]  # (N,) whether the target is absent
    score: Floats  # (N,) the tracker's; NaN for a tracker without one
    lost: NDArray[np.bool_] | None = None  # (N,) whether its state says so; None without states


def tracking_curve(sequences: Sequence[Presence]) -> Floats:
    """Tracking precision and recall over all thresholds of the score, averaged over sequences.

    A tracker without a score reports every frame. Of more than 1,000 different scores, as many
    quantiles are the thresholds.

    Returns:
        (K, 3) rows of threshold, precision, recall, thresholds ascending. Where nothing is
        reported, precision is 1.
    """
    reported = [np.nan_to_num(s.score, nan=1.0) for s in sequences]
    scores = np.concatenate(reported)
    thresholds = np.unique(scores) if len(scores) else np.ones(1)
    if len(thresholds) > _MOST_THRESHOLDS:
        steps = np.linspace(0, 1, _MOST_THRESHOLDS)
        thresholds = np.unique(np.quantile(scores, steps, method="nearest"))
    sums = np.zeros((2, len(thresholds)))
    for sequence, score in zip(sequences, reported, strict=True):
        order = np.argsort(score)
        below = np.searchsorted(score[order], thresholds)
        found = np.append(np.cumsum(sequence.overlap[order][::-1])[::-1], 0.0)[below]
        number = len(score) - below
        precision = np.divide(found, number, out=np.ones(len(found)), where=number > 0)
        sums += precision, found / max(1, np.count_nonzero(~sequence.absent))
    return np.column_stack((thresholds, *(sums / len(sequences))))


def reliability(sequences: Sequence[Presence]) -> NDArray[np.float64]:
    """How often the overlap exceeds 0.5, by the score, in ten bins of equal width.

    Returns:
        (10, 3) rows of number of frames, mean score, share of frames with an overlap above 0.5;
        the last two are NaN for an empty bin. Frames without a score are left out.
    """
    score = np.concatenate([s.score for s in sequences])
    overlap = np.concatenate([s.overlap for s in sequences])
    known = np.isfinite(score)
    score, right = score[known], overlap[known] > FOUND
    place = np.clip((score * _BINS).astype(int), 0, _BINS - 1)
    number = np.bincount(place, minlength=_BINS).astype(float)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, _BINS) / number for values in (score, right)]
    return np.column_stack((number, *means))


def presence_measures(sequences: Sequence[Presence]) -> dict[str, float]:
    """The values of `MEASURES` over sequences, and the numbers of `OUT_OF`.

    - lost_precision, lost_recall: of state LOST as a detector of frames in which the target is
      absent or overlapped by less than 0.1.
    - false_alarms: share of LOST among the frames with an overlap above 0.5.
    - false_finds: how many ends of LOST (`finds`) are on something else: an overlap below 0.1.
    - returns_found: how many `returns` after an absence are found, not LOST with an overlap above
      0.5, within 60 frames; frames_to_find: the mean number of frames from return to find.
    - calibration_error: expected calibration error of the score as the probability that the overlap
      exceeds 0.5, in ten bins.

    NaN where nothing defines a measure: no state, no score, or no such frame.
    """
    curve = tracking_curve(sequences)
    _, precision, recall = curve.T
    both = precision + recall
    f_score = np.divide(2 * precision * recall, both, out=np.zeros(len(both)), where=both > 0)
    best = int(np.argmax(f_score))
    bins = reliability(sequences)
    frames, gaps = bins[:, 0], np.nan_to_num(np.abs(bins[:, 1] - bins[:, 2]))
    waits = [wait for sequence in sequences for wait in _waits(sequence)]
    found = [wait for wait in waits if wait is not None]
    measures = {
        "f_score": float(f_score[best]),
        "tracking_precision": float(precision[best]),
        "tracking_recall": float(recall[best]),
        "threshold": float(curve[best, 0]) if frames.any() else np.nan,
        "returns": len(waits),
        "returns_found": len(found) if waits else np.nan,
        "frames_to_find": float(np.mean(found)) if found else np.nan,
        "calibration_error": _share(frames @ gaps, frames.sum()),
    }
    stated = [(s.overlap, s.lost) for s in sequences if s.lost is not None]
    overlap = np.concatenate([np.zeros(0), *(overlap for overlap, _ in stated)])
    lost = np.concatenate([np.zeros(0, bool), *(lost for _, lost in stated)])
    gone, right = overlap < MISSED, overlap > FOUND
    finds = [overlap[1:][~lost[1:] & lost[:-1]] for overlap, lost in stated]
    found_at = np.concatenate([np.zeros(0), *finds])
    return measures | {
        "lost_precision": _share((lost & gone).sum(), lost.sum()),
        "lost_recall": _share((lost & gone).sum(), gone.sum()),
        "false_alarms": _share((lost & right).sum(), right.sum()),
        "finds": len(found_at),
        "false_finds": float((found_at < MISSED).sum()) if len(found_at) else np.nan,
    }


def _waits(sequence: Presence) -> list[int | None]:
    """For each return after an absence, the frames until it is found; None if it is not."""
    absent = np.append(False, sequence.absent)
    found = sequence.overlap > FOUND
    if sequence.lost is not None:
        found &= ~sequence.lost
    waits: list[int | None] = []
    for start in np.flatnonzero(absent[:-1] & ~absent[1:]):
        leaves = np.flatnonzero(sequence.absent[start:])
        end = start + (leaves[0] if len(leaves) else len(found))
        hits = np.flatnonzero(found[start : min(end, start + FIND_WITHIN)])
        waits.append(int(hits[0]) if len(hits) else None)
    return waits


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
