"""Fit the calibrated score of a network to annotated sequences, and show how well it holds.

    python tools/calibrate.py compact footage composed=0.35 --plot docs/reliability.png

Each folder holds sequences, folders of images with a `groundtruth.txt` (NaN where the target is
absent). They must not have been used in training, and should resemble what the network is used for,
absences included. A weight below 1 makes a folder's frames count less; use one for absences that
were composed. The tracker follows each target through the first 300 frames and never declares it
LOST. A logistic model of what each frame showed is then fitted to whether the box overlapped the
true one by more than half, with and without the model of the target that is learned online. It is
written as STEM.calibration.json beside the weights, to which it belongs. What is printed and drawn
is cross-validated: each sequence is judged by a model that was fitted without it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data import Sequence, SequenceError, read_image
from siamcar_ros.data.readers.folders import SequenceFolder
from siamcar_ros.evaluation.metrics import iou
from siamcar_ros.files import reason, replacing
from siamcar_ros.runtime import load_network
from siamcar_ros.runtime.load import find_source
from siamcar_ros.tracking import SiamCarTracker, read_config
from siamcar_ros.tracking.calibration import EVIDENCE, Calibration

Array = NDArray[np.float64]

RIDGE = 150.0
FOLDS = 5
BINS = 10


def collect(
    tracker: SiamCarTracker, sequence: Sequence, longest: int
) -> tuple[Array, NDArray[np.bool_], Array]:
    """Follow a target; return evidence, correctness of the box and raw score by annotated frame."""
    shown, right, raw = [], [], []
    for i, path in enumerate(sequence.frames[:longest]):
        image = read_image(path)
        if image is None:
            raise SequenceError(f"{sequence.name}: {path} does not decode")
        if i == 0:
            sequence.check_start()
            x, y, w, h = sequence.boxes[0].tolist()
            tracker.init(image, (x - sequence.origin, y - sequence.origin, w, h))
            continue
        result = tracker.update(image)
        if sequence.annotated[i]:
            x, y, w, h = result.box
            box = (x + sequence.origin, y + sequence.origin, w, h)
            overlap = iou([box], sequence.boxes[i : i + 1])[0]
            shown.append(tracker.evidence)
            right.append(overlap > 0.5)
            raw.append(result.raw_score)
    return np.array(shown).reshape(-1, len(EVIDENCE)), np.array(right, bool), np.array(raw)


def fit(shown: Array, right: NDArray[np.bool_], weight: Array) -> dict[str, float]:
    """The coefficients of a ridge-penalized logistic regression, by Newton's method."""
    mean, scale = shown.mean(0), shown.std(0) + 1e-6
    x = np.column_stack(((shown - mean) / scale, np.ones(len(shown))))
    ridge = np.diag([RIDGE] * shown.shape[1] + [1e-6])
    beta = np.zeros(x.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-x @ beta))
        gradient = x.T @ (weight * (p - right)) + ridge @ beta
        step = np.linalg.solve((x.T * (weight * p * (1 - p))) @ x + ridge, gradient)
        beta -= step
        if np.abs(step).max() < 1e-9:
            break
    weights = beta[:-1] / scale
    named = dict(zip(EVIDENCE, weights.tolist(), strict=True))
    return named | {"constant": float(beta[-1] - weights @ mean)}


def fits(shown: Array, right: NDArray[np.bool_], weight: Array) -> dict[str, dict[str, float]]:
    """The coefficients without the confidence of the model learned online, and with it."""
    alone = shown.copy()
    alone[:, list(EVIDENCE).index("confidence")] = 1
    return {"alone": fit(alone, right, weight), "online": fit(shown, right, weight)}


def calibration_error(p: Array, right: NDArray[np.bool_]) -> float:
    """The expected calibration error over ten bins of equal width."""
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [abs((p[bins == k] - right[bins == k]).sum()) for k in range(BINS)]
    return float(sum(gaps) / len(p))


def plot(path: Path, curves: dict[str, Array], right: NDArray[np.bool_], title: str) -> None:
    """The reliability diagram: the share of right boxes over the score, and a histogram."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color="#9aa0a6", linewidth=1)
    edges = np.linspace(0, 1, BINS + 1)
    for (name, p), color in zip(curves.items(), ("#0b66c3", "#e8710a"), strict=True):
        bins = np.minimum((p * BINS).astype(int), BINS - 1)
        full = [k for k in range(BINS) if (bins == k).sum() >= 20]
        top.plot(
            [p[bins == k].mean() for k in full],
            [right[bins == k].mean() for k in full],
            "o-",
            color=color,
            label=f"{name}, calibration error {calibration_error(p, right):.3f}",
        )
        below.hist(p, edges, histtype="step", color=color, weights=np.full(len(p), 1 / len(p)))
    top.set(ylabel="share of boxes with overlap above 0.5", ylim=(0, 1), title=title)
    top.legend(loc="upper left", frameon=False)
    below.set(xlabel="score", ylabel="share of frames", xlim=(0, 1))
    figure.savefig(path, dpi=110)


def weighted(given: str) -> tuple[Path, float]:
    """A folder and the weight of its frames, from FOLDER or FOLDER=WEIGHT."""
    folder, _, weight = given.partition("=")
    return Path(folder), float(weight or 1)


def main(arguments: SequenceOf[str] | None = None) -> None:
    """Run the tool.

    Raises:
        ValueError, OSError: a file cannot be read, or there are too few sequences.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="a shipped configuration or the path of a YAML file")
    parser.add_argument(
        "folders",
        nargs="+",
        type=weighted,
        metavar="FOLDER[=WEIGHT]",
        help="folders of sequences; with a weight below 1 their frames count less",
    )
    parser.add_argument("--weights", type=Path, help="in place of the configuration's")
    parser.add_argument("--output", type=Path, help="in place of STEM.calibration.json")
    parser.add_argument("--plot", type=Path, help="a PNG file for the reliability diagram")
    parser.add_argument(
        "--frames",
        type=int,
        default=300,
        help="at most, of each sequence (%(default)s)",
    )
    options = parser.parse_args(arguments)

    config = read_config(options.network, options.weights)
    if config.weights is None:
        parser.error(f"no weights ship for {options.network}: give --weights")
    read = [(SequenceFolder(folder), counts) for folder, counts in options.folders]
    count = sum(len(data.names) for data, _ in read)
    if count < 2:
        raise ValueError(f"each sequence is judged by what others show, and there are {count}")
    network = load_network(config.network)
    # Without a calibration the score is the foreground probability at the box's center.
    network.calibration = network.calibration or {"alone": {"peak": 1.0}}
    params = replace(config.params, online=True, redetect=False, lost_below=0.0)
    tracker = SiamCarTracker(network, params)
    parts, weights = [], []
    for data, counts in read:
        for name in data.names:
            parts.append(collect(tracker, data.read(name), options.frames))
            weights.append(counts)
            print(f"{data.root.name}/{name}: {len(parts[-1][1])} frames", flush=True)
    shown, right, raw = (np.concatenate(column) for column in zip(*parts, strict=True))
    lengths = [len(part[1]) for part in parts]
    fold, weight = np.repeat(np.arange(len(parts)) % FOLDS, lengths), np.repeat(weights, lengths)
    learned = np.full(len(right), config.params.online)
    judged = np.zeros(len(right))
    for k in range(FOLDS):
        rest = fold != k
        model = Calibration.of(fits(shown[rest], right[rest], weight[rest]))
        assert model is not None
        judged[fold == k] = model.chance(shown[fold == k], learned[fold == k])
    print(f"{len(parts)} sequences, {len(right)} frames, {right.mean():.1%} of the boxes right")
    print(f"calibration error: {calibration_error(judged, right):.3f} cross-validated,")
    print(f"    {calibration_error(raw, right):.3f} of the raw score")

    content = {
        "weights": find_source(config.network).fingerprint,
        "frames": len(right),
        "calibration_error": round(calibration_error(judged, right), 4),
        "coefficients": fits(shown, right, weight),
    }
    output = options.output or config.weights.with_suffix(".calibration.json")
    with replacing(output) as file:
        file.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {output}")
    if options.plot:
        plot(options.plot, {"calibrated": judged, "raw": raw}, right, config.network.name)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"calibrate: error: {reason(error)}")
