"""`siamcar export`: the network as ONNX graphs, and as int8 for CPUs, with what that costs."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from siamcar_ros.data import Sequence
    from siamcar_ros.runtime import Network
    from siamcar_ros.runtime.onnx_files import OnnxFiles
    from siamcar_ros.runtime.quantize import Pair
    from siamcar_ros.tracking import TrackerConfig

Item = TypeVar("Item")

HELP = "write the network as ONNX, checked against PyTorch"

EXAMPLES = """examples:
  siamcar export --network compact --weights my.safetensors
  siamcar export --network compact --weights my.safetensors --int8 --calibration sequences
  siamcar track video.mp4 --box 412,230,60,80 --weights my.safetensors

Two graphs are written beside the weights STEM.safetensors (or into --output). STEM.template.onnx: z
(1, 3, 127, 127) to the template. STEM.search.onnx: x (1, 3, 255, 255) and the template to cls, reg,
cen and the features that the tracker's online model reads. Images are float32, BGR, 0..255. Where
they lie beside the weights, the tracker needs no PyTorch. With --int8 a third is written,
STEM.search.int8.onnx, which CPUs with AVX2 or better use.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `siamcar export`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("--network", default="compact", help="a name or a YAML file (%(default)s)")
    parser.add_argument("--weights", type=Path, help="default: those that the network names")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: the folder of the weights"
    )
    parser.add_argument(
        "--form",
        choices=["grouped", "banded"],
        default="grouped",
        help="of the correlation: grouped for one target at a time, as the tracker runs it on "
        "CPUs, or banded for any batch and TensorRT (%(default)s)",
    )
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
        help="sequences on which to measure int8's loss of AO (default: those of --calibration)",
    )
    parser.add_argument(
        "--pairs", type=int, default=96, metavar="N", help="calibration inputs (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Export, check, quantize, score."""
    if args.int8 and args.calibration is None:
        raise ValueError("--int8 needs --calibration FOLDER: images like those it will run on")
    if args.int8 and args.form != "grouped":
        raise ValueError("--int8 needs --form grouped")
    if args.pairs < 1:
        raise ValueError(f"--pairs is at least 1, not {args.pairs}")
    from siamcar_ros.runtime import find_source
    from siamcar_ros.runtime.export import check_onnx, export_onnx
    from siamcar_ros.tracking import read_config

    config = read_config(args.network, args.weights)
    source = find_source(config.network)
    assert source.weights is not None
    weights = (args.output or source.weights.parent) / source.weights.name
    files = export_onnx(source.model(), weights, args.form, source.fingerprint)
    worst = check_onnx(source.model(), files)
    for path in (files.template, files.search):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"largest difference from PyTorch: {worst:.1e} (distances: relative to their size)")
    if args.int8:
        _export_int8(args, config, files)
    return 0


def _export_int8(args: argparse.Namespace, config: TrackerConfig, files: OnnxFiles) -> None:
    from siamcar_ros.runtime import load_network
    from siamcar_ros.runtime.onnx_files import INT8_SUFFIX, SEARCH_SUFFIX
    from siamcar_ros.runtime.quantize import quantize

    sequences = _sequences(args.calibration)
    reference = load_network(config.network, files.search, precision="fp32")
    if sequences:
        pairs = _pairs_of_sequences(reference, config.params, sequences, args.pairs)
    else:
        pairs = _pairs_of_images(reference, config.params, args.calibration, args.pairs)
    output = files.search.with_name(files.search.name.removesuffix(SEARCH_SUFFIX) + INT8_SUFFIX)
    quantize(files, pairs, output)
    print(f"{output}  {output.stat().st_size / 1e6:.1f} MB, calibrated on {len(pairs)} inputs")
    scored = _sequences(args.score_on) if args.score_on is not None else sequences
    if scored:
        networks = (reference, load_network(config.network, output))
        before, after = (_mean_ao(network, config.params, scored) for network in networks)
        print(
            f"AO over {len(scored)} sequences: fp32 {before:.4f}, int8 {after:.4f}, "
            f"change {after - before:+.4f}"
        )
    else:
        print("its loss of AO was not measured: give sequences with --score-on FOLDER")
    if args.output is not None:
        print("used where it lies beside the weights")


def _sequences(folder: Path) -> list[Sequence]:
    """The sequences in a folder, or the folder as one; none where there is no ground truth."""
    from siamcar_ros.data import read_sequence

    if not folder.is_dir():
        raise FileNotFoundError(f"the folder {folder} does not exist")
    if (folder / "groundtruth.txt").is_file():
        return [read_sequence(folder)]
    found = sorted(path.parent for path in folder.glob("*/groundtruth.txt"))
    return [read_sequence(path) for path in found]


class _Recorder:
    """A network that keeps what a tracker shows it."""

    takes_pixels = True

    def __init__(self, network: Network) -> None:
        self.network = network
        self.score_size, self.offset = network.score_size, network.offset
        self.stride = network.stride
        self.pairs: list[Pair] = []
        self._z: Any = None

    def template(self, z: Any) -> Any:
        """As the network's."""
        self._z = z.copy()
        return self.network.template(z)

    def __call__(self, x: Any, template: Any) -> Any:
        """As the network's."""
        if self._z is not None:
            self.pairs.append((self._z, x.copy()))
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

    from siamcar_ros.evaluation.one_pass import run_sequence
    from siamcar_ros.evaluation.protocols import FOLDER, score_sequence, summarize
    from siamcar_ros.tracking import SiamCarTracker

    scores = []
    for sequence in tqdm(
        sequences, desc=network.precision, unit="sequence", leave=False, disable=None
    ):
        done = run_sequence(SiamCarTracker(network, params), sequence)
        scores.append(score_sequence(sequence, [done], FOLDER))
    scored = [score for score in scores if score is not None]
    return summarize(network.precision, scored, FOLDER).measures["ao"]
