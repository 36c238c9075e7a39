"""`siamcar replay`: track through a recorded bag, frame by frame, and score it."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from tqdm import tqdm

from siamcar_ros.bags.reader import Bag, BagError
from siamcar_ros.bags.replay import GroundTruth, replay
from siamcar_ros.bags.replay_output import (
    IMAGES,
    REPORT_FOLDER,
    SEQUENCE_FOLDER,
    ReplayOutput,
)
from siamcar_ros.bags.start import Start, parse_start
from siamcar_ros.bags.writer import COMPRESSION_MODES, STORAGES
from siamcar_ros.commands.network_options import add_network_arguments, network_spec
from siamcar_ros.evaluation.trackers import BASELINES, TrackerSpec
from siamcar_ros.processes import unwind_on_signals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("bag", help="rosbag2 folder, .mcap, .db3 (.zstd too), or ROS 1 .bag")
    parser.add_argument("--topic", help="image topic, raw or compressed (default: the only one)")
    parser.add_argument(
        "--init",
        metavar="X,Y,W,H[@S]",
        help="box in pixels (top-left corner, size) and seconds since the bag's start; @S takes the"
        " box from the ground truth; or a file that holds one of these",
    )
    parser.add_argument("--ground-truth-topic", help="topic of vision_msgs/Detection2D")
    parser.add_argument("--ground-truth", help="text file with a row x,y,w,h per image")
    parser.add_argument(
        "--image-depth",
        default="auto",
        help="how 16-bit images are scaled to 8 bits: auto, bits:N, percentile, percentile:LOW,HIGH"
        " or range:LOW,HIGH (default: %(default)s)",
    )
    parser.add_argument("--output", help="results folder (default: BAG_replay here)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results in OUTPUT")
    add_network_arguments(parser)
    parser.add_argument(
        "--baseline", choices=("csrt", "kcf", "mil"), help="run one of OpenCV's trackers instead"
    )
    parser.add_argument(
        "--track-id", default="target", help="id of the detections (default: %(default)s)"
    )
    parser.add_argument(
        "--images",
        choices=tuple(IMAGES),
        default="compressed",
        help="the tracked images in the new bag, for Foxglove, which draws the boxes on them"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--overlay",
        choices=tuple(IMAGES),
        default="none",
        help="images with the boxes drawn on them in the new bag, for RViz (default: %(default)s)",
    )
    parser.add_argument(
        "--no-report", action="store_true", help="do not write the report's page and plots"
    )
    parser.add_argument(
        "--keep-sequence",
        action="store_true",
        help="keep the tracked images in OUTPUT/sequence, for `siamcar evaluate folder`",
    )
    parser.add_argument("--no-video", action="store_true", help="do not write replay.mp4")
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        default="mcap",
        help="storage of the new bag (default: %(default)s)",
    )
    parser.add_argument(
        "--compression-mode",
        choices=COMPRESSION_MODES,
        default="none",
        help="zstd in the new bag, by message, file or chunk (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Replay, write the results, print them."""
    # matplotlib, for which --help need not wait
    from siamcar_ros.bags.replay_report import SequenceExport

    start = parse_start(args.init) if args.init else Start()
    with unwind_on_signals(), Bag(args.bag) as bag:
        topic = bag.image_topic(args.topic)
        truth = _truth(args, bag, topic)
        if start.box is None and truth is None:
            raise BagError(_no_start(bag))
        spec = _tracker_spec(args)
        name = bag.path.resolve().name.split(".")[0] or "bag"
        out = Path(args.output or f"{name}_replay")
        images = bag.count(topic)
        output = ReplayOutput(
            out,
            rate=_rate(bag, images),
            track_id=args.track_id,
            images=args.images,
            overlay=args.overlay,
            video=not args.no_video,
            storage=args.storage,
            compression=args.compression_mode,
            overwrite=args.overwrite,
            sources=[bag.path, *([Path(args.ground_truth)] if args.ground_truth else [])],
        )
        tracker = spec.build()
        with output:
            sequence = None
            if args.keep_sequence or (truth is not None and not args.no_report):
                sequence = SequenceExport(output.staging / SEQUENCE_FOLDER / name)
            frames = replay(bag, tracker, topic, start, truth, depth=args.image_depth)
            for frame, image in tqdm(frames, total=images, unit=" frames", disable=None):
                output.add(frame, image)
                if sequence is not None:
                    sequence.add(frame, image)
            settings = {
                "topic": topic,
                "ground_truth": None if truth is None else truth.source,
                "tracker": spec.facts(),
                "network": _network_facts(tracker),
            }
            notes = [*bag.notes, *([] if truth is None else truth.notes), *output.notes]
            report = output.finish(bag, settings, notes)
            has_page = report["score"] is not None and not args.no_report
            if sequence is not None:
                sequence.finish()
            if sequence is not None and has_page:
                root = str((out / SEQUENCE_FOLDER / name).resolve())
                page = output.staging / REPORT_FOLDER
                facts = {"root": root, **settings}
                sequence.write_report(page, tracker=spec.title, facts=facts)
            if not args.keep_sequence:
                shutil.rmtree(output.staging / SEQUENCE_FOLDER, ignore_errors=True)
            output.publish()
    print(_table(report))
    print(f"results: {out}")
    if has_page:
        print(f"report: {out / REPORT_FOLDER / 'report.html'}")
    return 0


def _truth(args: argparse.Namespace, bag: Bag, topic: str) -> GroundTruth | None:
    if args.ground_truth and args.ground_truth_topic:
        raise BagError("give --ground-truth or --ground-truth-topic, not both")
    if args.ground_truth:
        return GroundTruth.from_file(args.ground_truth)
    if args.ground_truth_topic:
        return GroundTruth.from_topic(bag, args.ground_truth_topic, topic)
    return None


def _tracker_spec(args: argparse.Namespace) -> TrackerSpec:
    if args.baseline:
        return TrackerSpec(BASELINES[args.baseline].title, args.baseline)
    return network_spec(args, args.network)


def _network_facts(tracker: Any) -> dict[str, str]:
    """What the boxes depend on apart from the weights."""
    network = getattr(tracker, "network", None)
    names = ("name", "backend", "device", "precision")
    return {name: str(getattr(network, name)) for name in names if hasattr(network, name)}


def _rate(bag: Bag, images: int) -> float:
    """Mean rate of the images, for the video."""
    seconds = bag.seconds(bag.end)
    return min(max((images - 1) / seconds, 1.0), 240.0) if seconds > 0 and images > 1 else 30.0


def _no_start(bag: Bag) -> str:
    topics = [name for name, kind in bag.topics.items() if kind.endswith("Detection2D")]
    there = f"; Detection2D topics in the bag: {', '.join(topics)}" if topics else ""
    return (
        "nothing says where the target is: give --init x,y,w,h[@seconds], --ground-truth-topic or"
        f" --ground-truth{there}"
    )


def _table(report: dict[str, Any]) -> str:
    rows = [
        ("images", f"{report['images']} on {report['topic']}"),
        ("started", "image {image}, {seconds:.3f} s".format(**report["start"])),
        ("tracked", str(report["tracked"])),
        ("skipped", str(len(report["skipped"]))),
    ]
    score, timing = report["score"], report["timing"]
    if score is None:
        why = "no ground truth after the start"
        if report["ground_truth"] is None:
            why = "none: --ground-truth-topic or --ground-truth says where the target was"
        rows.append(("score", why))
    else:
        rows += [
            ("scored", f"{report['scored']} images against {report['ground_truth']}"),
            ("average overlap", f"{score['average_overlap']:.3f}"),
            ("overlap > 0.5", f"{score['success_50']:.3f}"),
            ("overlap > 0.75", f"{score['success_75']:.3f}"),
            ("center within 20 px", f"{score['precision_20']:.3f}"),
        ]
    if timing["median_ms"] is not None:
        rows.append(
            (
                "speed",
                "{frames_per_second:.1f} frames/s, median {median_ms:.2f} ms,"
                " 99th percentile {p99_ms:.2f} ms".format(**timing),
            )
        )
    lines = [f"{name:<20} {value}" for name, value in rows]
    lines += [
        "skipped image {image} at {seconds:.3f} s: {error}".format(**s) for s in report["skipped"]
    ]
    return "\n".join(lines + [f"note: {note}" for note in report["notes"]])
