"""`siamcar convert`: published weights into this project's safetensors, or snapshots' mean."""

from __future__ import annotations

import argparse
from pathlib import Path

from siamcar_ros.files import replacing, sha256
from siamcar_ros.options import assignments


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
    """Convert; nothing in the old files is executed, and every tensor must have its place.

    Averaging weights along a run: Izmailov et al., Averaging Weights Leads to Wider Optima and
    Better Generalization, UAI 2018. BatchNorm's statistics are averaged with the rest, which is
    right for snapshots of one run's end, whose weights differ little; counters are the last file's.
    """
    import torch

    from siamcar_ros.model import build_model, load_weights, read_metadata, save_weights

    files, output = args.checkpoint, args.output
    if output.suffix != ".safetensors":
        raise ValueError(f"{output}: the file to write is named NAME.safetensors")
    added = assignments(args.metadata, "--metadata")
    first, *others = (read_metadata(f) if f.suffix == ".safetensors" else {} for f in files)
    # License, card, recipe: what all files say alike.
    common = {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}
    network = args.network or first.get("network", "resnet50")

    model = build_model(network).eval()
    sums: dict[str, torch.Tensor] = {}
    for file in files:
        load_weights(model, file)
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                sums[key] = sums.get(key, 0) + value.double()
    means = {key: (value / len(files)).float() for key, value in sums.items()}
    model.load_state_dict({**model.state_dict(), **means})

    origin = {
        "network": network,
        "source": ", ".join(file.name for file in files),
        "source_sha256": ", ".join(sha256(file) for file in files),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as partial:
        save_weights(model, partial, {**common, **origin, **added})
    parameters = sum(p.numel() for p in model.parameters())
    mean = f", the mean of {len(files)} files" if len(files) > 1 else ""
    print(f"{output}: {network}, {parameters:,} parameters{mean}")
    print(f"sha256 {sha256(output)}")
    return 0
