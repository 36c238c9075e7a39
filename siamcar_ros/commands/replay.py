"""`siamcar replay`: track through a recorded bag, frame by frame, and score it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from siamcar_ros.bags.reader import Bag
from siamcar_ros.bags.replay import GroundTruth, Start, parse_start, replay
from siamcar_ros.bags.replay_output import IMAGES, REPORT_FOLDER, ReplayOutput
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
        " box from the ground truth",
    )
    parser.add_argument("--ground-truth-topic", help="topic of vision_msgs/Detection2D")
    parser.add_argument("--ground-truth", help="text file with a row x,y,w,h per image")
    parser.add_argument(
        "--image-depth",
        default="auto",
        help="how 16-bit images are scaled to 8 bits: auto, bits:N, percentile, percentile:LOW,HIGH"
        " or range:LOW,HIGH (%(default)s)",
    )
    parser.add_argument("--output", help="results folder (default: BAG_replay here)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results in OUTPUT")
    add_network_arguments(parser)
    parser.add_argument(
        "--baseline", choices=("csrt", "kcf", "mil"), help="run one of OpenCV's trackers instead"
    )
    parser.add_argument(
        "--images",
        choices=IMAGES,
        default="compressed",
        help="the tracked images in the new bag, for Foxglove, which draws the boxes on them"
        " (%(default)s)",
    )
    parser.add_argument(
        "--overlay",
        choices=IMAGES,
        default="none",
        help="images with the boxes drawn on them in the new bag, for RViz (%(default)s)",
    )
    parser.add_argument(
        "--no-report", action="store_true", help="do not write the report's page and plots"
    )
    parser.add_argument(
        "--keep-sequence",
        action="store_true",
        help="keep the tracked images as JPEG files in OUTPUT/sequence, for `siamcar evaluate "
        "folder`",
    )
    parser.add_argument("--no-video", action="store_true", help="do not write replay.mp4")


def run(args: argparse.Namespace) -> int:
    """Replay, write the results, print them."""
    start = parse_start(args.init) if args.init else Start()
    with unwind_on_signals(), Bag(args.bag) as bag:
        topic = bag.image_topic(args.topic)
        truth = _truth(args, bag)
        if start.box is None and truth is None:
            raise ValueError(_no_start(bag))
        spec = network_spec(args, args.network)
        if args.baseline:
            spec = TrackerSpec(BASELINES[args.baseline].title, args.baseline)
        name = bag.path.resolve().name.split(".")[0] or "bag"
        output = ReplayOutput(
            Path(args.output or f"{name}_replay"),
            images=args.images,
            overlay=args.overlay,
            video=not args.no_video,
            page=not args.no_report,
            keep_sequence=args.keep_sequence,
            overwrite=args.overwrite,
            sources=[bag.path, *([Path(args.ground_truth)] if args.ground_truth else [])],
        )
        settings = {
            "topic": topic,
            "ground_truth": None if truth is None else truth.source,
            "tracker": spec.facts(),
        }
        frames = replay(bag, spec.build(), topic, start, truth, depth=args.image_depth)
        shown = tqdm(frames, total=bag.count(topic), unit=" frames", disable=None)
        report = output.write(bag, shown, truth, title=spec.title, settings=settings)
    print(_table(report))
    print(f"results: {output.folder}")
    if (page := output.folder / REPORT_FOLDER / "report.html").exists():
        print(f"report: {page}")
    return 0


def _truth(args: argparse.Namespace, bag: Bag) -> GroundTruth | None:
    if args.ground_truth and args.ground_truth_topic:
        raise ValueError("give --ground-truth or --ground-truth-topic, not both")
    if args.ground_truth:
        return GroundTruth.from_file(args.ground_truth)
    if args.ground_truth_topic:
        return GroundTruth.from_topic(bag, args.ground_truth_topic)
    return None


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
