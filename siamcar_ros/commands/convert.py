"""`siamcar convert`: published weights into this project's safetensors, checked."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

HELP = "turn published weights into this project's format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("checkpoint", type=Path, help="the authors' .pth file, or a safetensors")
    parser.add_argument("output", type=Path, help="the safetensors file to write")
    parser.add_argument("--network", default="resnet50", help="whose weights (%(default)s)")
    parser.add_argument(
        "--sequences",
        type=Path,
        metavar="FOLDER",
        help="also track through the sequences of this folder and print the average overlap",
    )


def run(args: argparse.Namespace) -> int:
    """Convert, then read the new file back and compare.

    The old file is read without executing anything in it. Every tensor must have its place and be
    finite, and the network filled from the new file must give the same maps, bit for bit.
    """
    import torch

    from siamcar_ros.model import build_model, load_weights, save_weights

    model = build_model(args.network).eval()
    load_weights(model, args.checkpoint)
    broken = [key for key, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"{args.checkpoint}: not finite: {', '.join(broken)}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    origin = {"network": args.network, "source": args.checkpoint.name}
    save_weights(model, args.output, {**origin, "source_sha256": _sha256(args.checkpoint)})

    again = build_model(args.network).eval()
    load_weights(again, args.output)
    draw = torch.Generator().manual_seed(0)
    template = torch.rand(1, 3, 127, 127, generator=draw) * 255
    search = torch.rand(1, 3, 255, 255, generator=draw) * 255
    with torch.inference_mode():
        maps, copies = (net(search, net.template(template)) for net in (model, again))
    if not all(torch.equal(one, other) for one, other in zip(maps, copies, strict=True)):
        raise ValueError(f"{args.output} does not give the maps that {args.checkpoint} gives")
    parameters = sum(p.numel() for p in again.parameters())
    print(
        f"{args.output}: {args.network}, {parameters:,} parameters, the same maps as the original"
    )
    print(f"sha256 {_sha256(args.output)}")
    if args.sequences is not None:
        from siamcar_ros.training.validation import validate

        for name, overlap in validate(again, args.sequences).items():
            print(f"{overlap:.3f}  {name}")
    return 0


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
