"""How each benchmark scores boxes: which frames count, and what an absent target means.

The rules are those of the owners' own code: the MATLAB toolkits of OTB (also used by UAV123, DTB70
and NfS) and LaSOT, the GOT-10k and VOT toolkits, and TrackingNet's description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from siamcar_ros.data.sequences import Sequence
from siamcar_ros.evaluation import metrics, presence
from siamcar_ros.evaluation.metrics import Floats
from siamcar_ros.evaluation.one_pass import Run
from siamcar_ros.evaluation.presence import Presence


class Absent(Enum):
    """How a frame without the target counts."""

    LEFT_OUT = "left out"
    MISSED = "missed"
    #: The OTB code sets overlap and center error to -1: a miss in the success plot, a hit in the
    #: precision plot.
    OTB = "overlap missed, center hit"


@dataclass(frozen=True)
class Protocol:
    """A benchmark's rules."""

    headline: tuple[str, ...]  # the measures that it reports; the first one ranks
    absent: Absent = Absent.LEFT_OUT  # how a frame without the target counts
    first_frame: bool = True  # score the first frame, where the box was given, as a perfect one
    # As in the MATLAB toolkits, a true box with a coordinate at or below 0 counts like an absent
    # target in OTB, and a prediction without a size repeats the previous one.
    positive: bool = False
    clipped: bool = False  # clip both boxes to the image
    keep_size: bool = False  # clip them as GOT-10k does: see `metrics.iou`
    pooled: bool = False  # average over all frames together, the rates too, not over sequences
    steps: int = 20  # between the overlap thresholds 0 ... 1 of the success curve
    normalized_at: float | None = 0.2  # of the normalized precision; the curve's mean when None

    @property
    def thresholds(self) -> Floats:
        """Overlap thresholds of the success curve, (steps + 1,)."""
        return np.linspace(0, 1, self.steps + 1)


#: Names of the measures of boxes, as tables and plots show them.
BOX_MEASURES: dict[str, str] = {
    "ao": "AO",
    "sr50": "SR 0.50",
    "sr75": "SR 0.75",
    "success": "Success",
    "precision": "Precision 20 px",
    "normalized": "Norm. precision",
    "inflated": "Inflated",
    "fps": "Frames/s",
}
#: Names of all measures.
MEASURES: dict[str, str] = BOX_MEASURES | presence.MEASURES

# With 100 steps the area under the success curve is AO to within 0.005.
FOLDER = Protocol(("ao", "sr50", "sr75", "success", "precision"), first_frame=False, steps=100)
GOT10K = replace(FOLDER, headline=("ao", "sr50", "sr75"), clipped=True, keep_size=True, pooled=True)
_TRACKING = ("f_score", "tracking_precision", "tracking_recall")
VOT_LT = replace(FOLDER, headline=_TRACKING, clipped=True)
OTB = Protocol(("success", "precision", "sr50"), Absent.OTB, positive=True)
LASOT = Protocol(("success", "precision", "normalized"), Absent.MISSED, positive=True)
TRACKINGNET = Protocol(("success", "normalized", "precision"), normalized_at=None)


@dataclass(frozen=True)
class Score:
    """The score of N boxes against the truth.

    Attributes:
        overlaps: (N,) overlap of each frame, NaN where it was not scored.
        success: success curve over the protocol's overlap thresholds.
        precision: precision curve over 0 ... 50 pixels.
        normalized: normalized precision curve over 0 ... 0.5.
        measures: value of each measure in `MEASURES`, and the counts in `presence.OUT_OF`.
        frames: how many frames the curves are means of.
        timed: how many frames "fps" is the mean of.
        presence: the first repetition's frames for the measures of presence.
    """

    overlaps: Floats
    success: Floats
    precision: Floats
    normalized: Floats
    measures: dict[str, float]
    frames: int
    timed: int
    presence: Presence


def score(
    boxes: ArrayLike,
    truth: ArrayLike,
    protocol: Protocol = FOLDER,
    *,
    counted: NDArray[np.bool_] | None = None,
    size: tuple[int, int] | None = None,
    times: ArrayLike = (),
    scores: ArrayLike | None = None,
    lost: ArrayLike | None = None,
) -> Score | None:
    """Score a tracker's boxes by a protocol.

    Everything in this package that scores does it here. The first frame is the one that the tracker
    was started on.

    Args:
        boxes: (N, 4) predictions x, y, w, h; or (R, N, 4), R repetitions that are averaged.
        truth: (N, 4) true boxes in the same coordinates, NaN where the target is absent.
        protocol: the rules.
        counted: (N,) or (R, N) frames that may count at all; every frame when None.
        size: image (width, height), needed by protocols that clip boxes to it.
        times: seconds per frame, of any shape; they only give the mean rate.
        scores: (N,) the tracker's score of each frame of the first repetition, NaN for none.
        lost: (N,) whether its state says that the target is lost.

    Returns:
        The score; None where no frame can be scored.

    Raises:
        ValueError: the arrays do not fit each other, or the protocol clips and `size` is None.
    """
    true, runs = np.asarray(truth, np.float64), np.asarray(boxes, np.float64)
    if true.ndim != 2 or true.shape[1] != 4 or runs.shape[-2:] != true.shape or runs.ndim > 3:
        raise ValueError(
            f"expected truth (N, 4) and boxes (N, 4) or (R, N, 4), got {true.shape} and "
            f"{runs.shape}"
        )
    if len(true) == 0:
        return None
    if protocol.clipped and size is None:
        raise ValueError("this protocol clips boxes to the image, whose size is not known")
    # The repetitions one after another; N frames each.
    n, shape = len(true), runs.reshape(-1, *true.shape).shape[:2]
    runs, true = runs.reshape(-1, 4).copy(), np.tile(true, (shape[0], 1))
    first = np.arange(len(true)) % n == 0
    may_count = np.broadcast_to(True if counted is None else counted, shape).ravel()
    runs[first] = true[first]
    absent = metrics.not_finite(true)
    if protocol.positive:  # boxes without a size repeat the previous one
        invalid = metrics.not_finite(runs) | (runs[:, 2:] <= 0).any(axis=1)
        for i in np.flatnonzero(invalid & ~(absent & (protocol.absent is Absent.OTB))):
            runs[i] = runs[i - 1]
    bound = size if protocol.clipped else None
    plain = metrics.iou(runs, true, bound=bound, keep_size=protocol.keep_size)
    overlap, error = plain.copy(), metrics.center_error(runs, true)
    normalized_error = metrics.center_error(runs, true, normalized=True)
    kept = may_count & (protocol.first_frame | ~first)
    if protocol.absent is Absent.LEFT_OUT:
        kept &= ~absent
    if protocol.absent is Absent.MISSED:
        overlap[absent], error[absent], normalized_error[absent] = -1, np.inf, np.inf
    half = absent & (protocol.absent is Absent.OTB)
    if protocol.positive:
        half = half | (~absent & (true <= 0).any(axis=1))
    overlap[half], error[half], normalized_error[half] = -1, -1, -1
    if not kept.any():
        return None
    success = metrics.success_curve(overlap[kept], protocol.thresholds)
    precision = metrics.precision_curve(error[kept])
    normalized = metrics.precision_curve(normalized_error[kept], metrics.NORMALIZED_THRESHOLDS)
    at = protocol.normalized_at
    present = kept & (overlap >= 0)
    swollen = metrics.inflated(runs, true)
    rates = metrics.frame_rates(times)
    shown = may_count[:n] & ~first[:n]
    of_presence = Presence(
        np.nan_to_num(plain[:n][shown]),
        absent[:n][shown],
        np.full(shown.sum(), np.nan) if scores is None else np.asarray(scores, np.float64)[shown],
        None if lost is None else np.asarray(lost, bool)[shown],
    )
    return Score(
        overlaps=np.where(present, overlap, np.nan)[:n],
        success=success,
        precision=precision,
        normalized=normalized,
        measures={
            "ao": float(overlap[present].mean()) if present.any() else 0.0,
            "sr50": float(np.mean(overlap[kept] > 0.5)),
            "sr75": float(np.mean(overlap[kept] > 0.75)),
            "success": float(success.mean()),
            "precision": float(precision[20]),
            "normalized": float(normalized.mean() if at is None else normalized[round(100 * at)]),
            "inflated": float(swollen[present].mean()) if present.any() else 0.0,
            "fps": float(rates.mean()) if len(rates) else float("nan"),
            **presence.presence_measures([of_presence]),
        },
        frames=int(kept.sum()),
        timed=len(rates),
        presence=of_presence,
    )


def score_sequence(sequence: Sequence, runs: list[Run], protocol: Protocol) -> Score | None:
    """Score a tracker's runs over a sequence (one, or GOT-10k's repetitions) by a protocol.

    Frames without an annotation, and frames whose image did not decode (a time of NaN while others
    have one), count nowhere. Returns as :func:`score`.
    """
    times = np.array([run.times for run in runs])
    timed = np.isfinite(times)
    states = runs[0].states
    return score(
        [run.boxes for run in runs],
        sequence.boxes,
        protocol,
        counted=sequence.annotated & (timed | ~timed.any(axis=1, keepdims=True)),
        size=sequence.size,
        times=times,
        scores=runs[0].scores,
        lost=np.equal(states, "lost") if states else None,
    )


@dataclass(frozen=True)
class TrackerScore:
    """A tracker on a benchmark: its sequences' scores by name, their mean curves and measures."""

    tracker: str
    sequences: Mapping[str, Score]
    success: Floats
    precision: Floats
    normalized: Floats
    measures: dict[str, float]


def summarize(tracker: str, sequences: Mapping[str, Score], protocol: Protocol) -> TrackerScore:
    """Average over sequences, weighted by their frames where the protocol pools them."""
    if not sequences:
        raise ValueError(f"{tracker}: no sequence was scored")
    scores = list(sequences.values())
    frames = np.array([s.frames if protocol.pooled else 1 for s in scores], np.float64)
    timed = np.array([s.timed if protocol.pooled else s.timed > 0 for s in scores], np.float64)

    def mean(values: list[Floats]) -> Floats:
        return np.asarray(np.average(np.array(values), axis=0, weights=frames))

    boxes = [m for m in BOX_MEASURES if m != "fps"]
    means = mean([np.array([s.measures[m] for m in boxes]) for s in scores])
    rates = np.nan_to_num([s.measures["fps"] for s in scores])
    fps = float(np.average(rates, weights=timed)) if timed.any() else float("nan")
    return TrackerScore(
        tracker,
        sequences,
        mean([s.success for s in scores]),
        mean([s.precision for s in scores]),
        mean([s.normalized for s in scores]),
        dict(zip(boxes, means.tolist(), strict=True))
        | {"fps": fps}
        | presence.presence_measures([s.presence for s in scores]),
    )
