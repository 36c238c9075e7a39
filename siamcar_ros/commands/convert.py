"""`siamcar convert`: published weights into this project's safetensors, or snapshots' mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from siamcar_ros.files import replacing, sha256
from siamcar_ros.options import assignments

if TYPE_CHECKING:
    from siamcar_ros.model import SiamCAR


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="+",
        help="the authors' .pth file, or a safetensors; of several, the mean is written",
    )
    parser.add_argument("output", type=Path, help="the safetensors file to write")
    parser.add_argument("--network", help="default: the one that the file names, or else resnet50")
    parser.add_argument(
        "--metadata",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="metadata to store in the file, such as its license; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Convert; nothing in the old files is executed, and every tensor must have its place."""
    from siamcar_ros.model import save_weights

    if args.output.suffix != ".safetensors":
        raise ValueError(f"{args.output}: the file to write is named NAME.safetensors")
    network = args.network or _network_of(args.checkpoint[0])
    added = assignments(args.metadata, "--metadata")
    model = _mean(network, args.checkpoint)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    origin = _common_metadata(args.checkpoint) | {
        "network": network,
        "source": ", ".join(file.name for file in args.checkpoint),
        "source_sha256": ", ".join(sha256(file) for file in args.checkpoint),
    }
    with replacing(args.output) as partial:
        save_weights(model, partial, origin | added)
    parameters = sum(p.numel() for p in model.parameters())
    count = len(args.checkpoint)
    mean = f", the mean of {count} files" if count > 1 else ""
    print(f"{args.output}: {network}, {parameters:,} parameters{mean}")
    print(f"sha256 {sha256(args.output)}")
    return 0


def _mean(network: str, files: Sequence[Path]) -> SiamCAR:
    """The network with the mean of the files' tensors; counters are those of the last file.

    Averaging weights along a run: Izmailov et al., Averaging Weights Leads to Wider Optima and
    Better Generalization, UAI 2018. BatchNorm's statistics are averaged with the rest, which is
    right for snapshots of one run's end, whose weights differ little.
    """
    import torch

    from siamcar_ros.model import build_model, load_weights

    model = build_model(network).eval()
    sums: dict[str, torch.Tensor] = {}
    for file in files:
        load_weights(model, file)
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                sums[key] = sums.get(key, 0) + value.double()
    means = {key: (value / len(files)).float() for key, value in sums.items()}
    model.load_state_dict({**model.state_dict(), **means})
    return model


def _common_metadata(files: Sequence[Path]) -> dict[str, str]:
    """The metadata on which all files agree: license, card, recipe."""
    from siamcar_ros.model.weights import read_metadata

    if any(file.suffix != ".safetensors" for file in files):
        return {}
    first, *others = (read_metadata(file) for file in files)
    return {key: value for key, value in first.items() if all(o.get(key) == value for o in others)}


def _network_of(file: Path) -> str:
    from siamcar_ros.model.weights import read_metadata

    named = read_metadata(file).get("network") if file.suffix == ".safetensors" else None
    return named or "resnet50"
