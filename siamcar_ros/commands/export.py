"""`siamcar export`: the network as ONNX graphs, and as int8 for CPUs, with what that costs."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from siamcar_ros.data import Sequence
    from siamcar_ros.model import SiamCAR
    from siamcar_ros.runtime import Network
    from siamcar_ros.runtime.quantise import Pair

Item = TypeVar("Item")

HELP = "write the network as ONNX, checked against PyTorch"

EXAMPLES = """examples:
  siamcar export --network compact --output exported
  siamcar export --network compact --int8 --calibration sequences --output exported
  siamcar track video.mp4 --box 412,230,60,80 --weights exported/compact_search.onnx

Two graphs are written. NAME_template.onnx: z (B, 3, 127, 127) to the template. NAME_search.onnx:
x (B, 3, 255, 255) and the template to cls, reg and cen. Images are float32, BGR, 0..255; B is any.
With --int8 a third, WEIGHTS.int8.onnx, is used by CPUs with VNNI when it lies beside the weights.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `siamcar export`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("--format", choices=["onnx"], default="onnx", help="(default: onnx)")
    parser.add_argument("--network", default="compact", help="a name or a YAML file (%(default)s)")
    parser.add_argument("--weights", type=Path, help="default: those that the network names")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--int8", action="store_true", help="write an int8 search graph, too")
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help="for --int8: sequences (with groundtruth.txt), one sequence, or images",
    )
    parser.add_argument(
        "--score-on",
        type=Path,
        metavar="FOLDER",
        help="sequences to measure int8's loss of AO on (default: those of --calibration)",
    )
    parser.add_argument(
        "--pairs", type=int, default=96, metavar="N", help="calibration inputs (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Export, check, quantise, score."""
    from siamcar_ros.model import build_model, load_weights
    from siamcar_ros.runtime.export import check_onnx, export_onnx
    from siamcar_ros.tracking import read_config

    if args.int8 and args.calibration is None:
        raise ValueError("--int8 needs --calibration FOLDER: images like those it will run on")
    if args.pairs < 1:
        raise ValueError(f"--pairs is at least 1, not {args.pairs}")
    config = read_config(args.network)
    weights = args.weights or config.weights
    if weights is None:
        raise ValueError(f"no weights ship for {config.network}: give --weights FILE")
    model = build_model(config.network).eval()
    load_weights(model, weights)
    files = export_onnx(model, args.output)
    worst = check_onnx(model, files)
    for path in (files.template, files.search):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"largest difference from PyTorch: {worst:.1e} (distances: relative to their size)")
    if args.int8:
        _export_int8(args, model, Path(weights), config.params)
    return 0


def _export_int8(args: argparse.Namespace, model: SiamCAR, weights: Path, params: Any) -> None:
    from siamcar_ros.runtime import place
    from siamcar_ros.runtime.export import cached_onnx
    from siamcar_ros.runtime.load import INT8_SUFFIX
    from siamcar_ros.runtime.quantise import quantise

    sequences = _sequences(args.calibration)
    reference = place(model, device="cpu", precision="fp32")
    if sequences:
        pairs = _pairs_of_sequences(reference, params, sequences, args.pairs)
    else:
        pairs = _pairs_of_images(reference, params, args.calibration, args.pairs)
    output = args.output / (weights.stem + INT8_SUFFIX)
    quantise(model, cached_onnx(model, "grouped"), pairs, output)
    print(f"{output}  {output.stat().st_size / 1e6:.1f} MB, calibrated on {len(pairs)} inputs")
    scored = _sequences(args.score_on) if args.score_on is not None else sequences
    if scored:
        quantised = place(model, device="cpu", precision="int8", int8_graph=output)
        before, after = (_mean_ao(network, params, scored) for network in (reference, quantised))
        print(
            f"AO over {len(scored)} sequences: fp32 {before:.4f}, int8 {after:.4f}, "
            f"change {after - before:+.4f}"
        )
    else:
        print("its loss of AO was not measured: give sequences with --score-on FOLDER")
    print(f"used where it lies beside the weights: {weights.with_name(output.name)}")


def _sequences(folder: Path) -> list[Sequence]:
    """The sequences in a folder, or the folder as one; none where there is no ground truth."""
    from siamcar_ros.data import read_sequence

    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    if (folder / "groundtruth.txt").is_file():
        return [read_sequence(folder)]
    found = sorted(path.parent for path in folder.glob("*/groundtruth.txt"))
    return [read_sequence(path) for path in found]


class _Recorder:
    """A network that keeps what a tracker shows it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.score_size, self.offset, self.device = network.score_size, network.offset, "cpu"
        self.pairs: list[Pair] = []
        self._z: Tensor | None = None

    def template(self, z: Tensor) -> Any:
        """As the network's."""
        self._z = z.clone()
        return self.network.template(z)

    def __call__(self, x: Tensor, template: Any) -> Any:
        """As the network's."""
        if self._z is not None:
            self.pairs.append((self._z, x.clone()))
        return self.network(x, template)


def _pairs_of_sequences(
    network: Network, params: Any, sequences: list[Sequence], count: int
) -> list[Pair]:
    """What the tracker sees at `count` frames spread over the sequences."""
    from siamcar_ros.data.images import read_image
    from siamcar_ros.tracking import SiamCarTracker, TargetError

    recorder = _Recorder(network)
    tracker = SiamCarTracker(recorder, params)
    chosen = list(_spread(sequences, count))
    each = -(-count // len(chosen))
    for sequence in chosen:
        # A start at the truth before each frame, so that a target lost early does no harm.
        steps = np.linspace(1, len(sequence) - 1, min(each, len(sequence) - 1)).astype(int)
        for i in steps:
            before, image = read_image(sequence.frames[i - 1]), read_image(sequence.frames[i])
            box = sequence.boxes[i - 1]
            if before is None or image is None:
                continue
            with contextlib.suppress(TargetError):  # absent there
                tracker.init(before, box)
                tracker.update(image)
    if not recorder.pairs:
        raise ValueError("the sequences of --calibration show no target that can be tracked")
    return list(_spread(recorder.pairs, count))


def _pairs_of_images(network: Network, params: Any, folder: Path, count: int) -> list[Pair]:
    """Middles of still images as targets, each sought in its own image."""
    from siamcar_ros.data.images import read_image
    from siamcar_ros.tracking import SiamCarTracker

    recorder = _Recorder(network)
    tracker = SiamCarTracker(recorder, params)
    for path in _spread(_images(folder), count):
        image = read_image(path)
        if image is not None:
            height, width = image.shape[:2]
            tracker.init(image, (width * 0.4, height * 0.4, width * 0.2, height * 0.2))
            tracker.update(image)
    if not recorder.pairs:
        raise ValueError(f"{folder} holds neither sequences nor images that can be read")
    return recorder.pairs


def _images(folder: Path) -> list[Path]:
    from siamcar_ros.data.sequences import IMAGE_SUFFIXES

    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _spread(items: list[Item], count: int) -> Iterable[Item]:
    """At most `count` of them, evenly."""
    return (items[i] for i in _indices(len(items), count))


def _indices(length: int, count: int) -> Iterator[int]:
    yield from dict.fromkeys(np.linspace(0, length - 1, min(count, length)).astype(int).tolist())


def _mean_ao(network: Network, params: Any, sequences: list[Sequence]) -> float:
    from tqdm import tqdm

    from siamcar_ros.evaluation.metrics import average_overlap, iou
    from siamcar_ros.evaluation.one_pass import run_sequence
    from siamcar_ros.tracking import SiamCarTracker

    scores = []
    for sequence in tqdm(
        sequences, desc=network.precision, unit="sequence", leave=False, disable=None
    ):
        done = run_sequence(SiamCarTracker(network, params), sequence)
        truth = sequence.boxes
        scores.append(average_overlap(iou(done.boxes[1:], truth[1:])))
    return float(np.mean(scores))
