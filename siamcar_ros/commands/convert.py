"""`siamcar convert`: published weights into this project's safetensors, or snapshots' mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from siamcar_ros.files import move_into_place, scratch_folder, sha256

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
        metavar="KEY=TEXT",
        help="metadata to store in the file, such as its license; may be repeated",
    )
    parser.add_argument(
        "--sequences",
        type=Path,
        metavar="FOLDER",
        help="also track through the sequences of this folder and print the average overlap",
    )


def run(args: argparse.Namespace) -> int:
    """Convert, then read the new file back and compare.

    The old files are read without executing anything in them. Every tensor must have its place and
    be finite, and the network filled from the new file must give the same maps, bit for bit.
    """
    from siamcar_ros.model import build_model, load_weights, save_weights

    if args.output.suffix != ".safetensors":
        raise ValueError(f"{args.output}: the file to write is named NAME.safetensors")
    network, added = args.network or _network_of(args.checkpoint[0]), _pairs(args.metadata)
    model = _mean(network, args.checkpoint)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    origin = _common_metadata(args.checkpoint) | {
        "network": network,
        "source": ", ".join(file.name for file in args.checkpoint),
        "source_sha256": ", ".join(sha256(file) for file in args.checkpoint),
    }
    with scratch_folder(args.output.parent, ".new-") as folder:
        written = folder / args.output.name
        save_weights(model, written, origin | added)
        again = build_model(network).eval()
        load_weights(again, written)
        _compare(model, again, args.output)
        move_into_place(written, args.output)
    parameters = sum(p.numel() for p in again.parameters())
    count = len(args.checkpoint)
    original = "the original" if count == 1 else f"the mean of {count} files"
    print(f"{args.output}: {network}, {parameters:,} parameters, the same maps as {original}")
    print(f"sha256 {sha256(args.output)}")
    if args.sequences is not None:
        from siamcar_ros.training.validation import validate

        for name, value in validate(again, network, args.sequences).items():
            print(f"{value:.3f}  {name}")
    return 0


def _compare(model: SiamCAR, again: SiamCAR, path: Path) -> None:
    import torch

    draw = torch.Generator().manual_seed(0)
    template = torch.rand(1, 3, 127, 127, generator=draw) * 255
    search = torch.rand(1, 3, 255, 255, generator=draw) * 255
    with torch.inference_mode():
        maps, copies = (net(search, net.template(template)) for net in (model, again))
    if not all(torch.equal(one, other) for one, other in zip(maps, copies, strict=True)):
        raise ValueError(f"{path}, read back, does not give the maps that were written")


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
            if not torch.isfinite(value).all():
                raise ValueError(f"{file}: {key} is not finite")
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


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        if not text.partition("=")[0] or "=" not in text:
            raise ValueError(f"--metadata {text!r}: expected KEY=TEXT")
    return dict(text.split("=", 1) for text in texts)
