"""`siamcar export`: write the network as ONNX graphs, and in int8 with its loss of accuracy."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from siamcar_ros.data import Sequence, read_image, read_sequence
from siamcar_ros.data.sequences import IMAGE_SUFFIXES
from siamcar_ros.runtime import Network, find_source, load_network
from siamcar_ros.runtime.onnx_files import INT8_SUFFIX, SEARCH_SUFFIX, OnnxFiles
from siamcar_ros.runtime.quantize import Pair, quantize
from siamcar_ros.tracking import (
    SiamCarTracker,
    TargetError,
    TrackerConfig,
    TrackerParams,
    read_config,
)

_PAIRS = 96
Item = TypeVar("Item")
Example = tuple[Any, Any, Any]
"""An image, the target's box in it, and the next image, in which the target is searched for."""

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
        "CPUs, or banded for other programs: any batch, TensorRT (%(default)s)",
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
        "--pairs", type=int, metavar="N", help=f"for --int8: calibration inputs ({_PAIRS})"
    )


def run(args: argparse.Namespace) -> int:
    """Export, check, quantize, score."""
    if args.int8 and args.calibration is None:
        raise ValueError("--int8 needs --calibration FOLDER: images like those it will run on")
    if args.int8 and args.form != "grouped":
        raise ValueError("--int8 needs --form grouped")
    for name in ("calibration", "score_on", "pairs"):
        if getattr(args, name) is not None and not args.int8:
            raise ValueError(f"--{name.replace('_', '-')} needs --int8")
    if args.pairs is not None and args.pairs < 1:
        raise ValueError(f"--pairs is at least 1, not {args.pairs}")
    for folder in filter(None, (args.calibration, args.score_on)):
        if not folder.is_dir():
            raise FileNotFoundError(f"the folder {folder} does not exist")
    from siamcar_ros.runtime.export import check_onnx, export_onnx

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
    from siamcar_ros.training.validation import track_all

    sequences = _sequences(args.calibration)
    reference = load_network(config.network, files.search, precision="fp32")
    count = args.pairs or _PAIRS
    examples = _examples(sequences, args.calibration, count)
    pairs = _spread(_crops(reference, config.params, examples), count)
    output = files.search.with_name(files.search.name.removesuffix(SEARCH_SUFFIX) + INT8_SUFFIX)
    quantize(files, pairs, output)
    print(f"{output}  {output.stat().st_size / 1e6:.1f} MB, calibrated on {len(pairs)} inputs")
    scored = _sequences(args.score_on) if args.score_on is not None else sequences
    if scored:
        networks = (reference, load_network(config.network, output))
        before, after = (track_all(each, config.params, scored)["tracking/ao"] for each in networks)
        print(
            f"AO over {len(scored)} sequence{'s' * (len(scored) > 1)}: fp32 {before:.4f}, "
            f"int8 {after:.4f}, change {after - before:+.4f}"
        )
    else:
        print("loss of AO not measured: give sequences with --score-on FOLDER")
    if args.output is not None:
        print("the tracker uses it if it lies beside the weights")


def _sequences(folder: Path) -> list[Sequence]:
    """The sequences in a folder, or the folder as one; none if nothing in it is annotated."""
    places = list(folder.glob("groundtruth.txt")) or sorted(folder.glob("*/groundtruth.txt"))
    return [read_sequence(place.parent) for place in places]


class _Recorder:
    """A network that keeps a copy of the crops that it is given."""

    takes_pixels = True

    def __init__(self, network: Network) -> None:
        self.network = network
        self.score_size, self.offset = network.score_size, network.offset
        self.stride = network.stride
        self.pairs: list[Pair] = []
        self._z: Any = None

    def template(self, z: Any) -> Any:
        """The network's; the crop belongs to the searches that follow."""
        self._z = z.copy()
        return self.network.template(z)

    def __call__(self, x: Any, template: Any) -> Any:
        self.pairs.append((self._z, x.copy()))
        return self.network(x, template)


def _examples(sequences: list[Sequence], folder: Path, count: int) -> Iterator[Example]:
    """Frames spread evenly over the sequences, each with the previous frame and its true box.

    Without sequences, the images in the folder, each with the middle of the image as the target.
    """
    chosen = _spread(sequences, count)
    for sequence in chosen:
        frames = range(1, len(sequence))
        for i in _spread(frames, -(-count // len(chosen))):
            before, now = (read_image(sequence.frames[k]) for k in (i - 1, i))
            yield before, sequence.boxes[i - 1], now
    if not chosen:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        for path in _spread(paths, count):
            image = read_image(path)
            if image is not None:
                height, width = image.shape[:2]
                yield image, (0.4 * width, 0.4 * height, 0.2 * width, 0.2 * height), image


def _crops(network: Network, params: TrackerParams, examples: Iterator[Example]) -> list[Pair]:
    """The network's inputs, template and search crop, as the tracker cuts them for each example."""
    recorder = _Recorder(network)
    tracker = SiamCarTracker(recorder, replace(params, online=False))
    for before, box, image in examples:
        if before is None or image is None:
            continue  # a file that does not decode
        with contextlib.suppress(TargetError):  # the target is absent
            tracker.init(before, box)
            tracker.update(image)
    if not recorder.pairs:
        raise ValueError(
            "nothing in --calibration can be tracked: give images, or sequences with "
            "groundtruth.txt"
        )
    return recorder.pairs


def _spread(items: Items[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spaced."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)
    return [items[i] for i in chosen]
