"""`siamcar record-sequence`: turn a sequence folder or a video into a bag."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from siamcar_ros.bags.recording import record_sequence
from siamcar_ros.processes import unwind_on_signals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's arguments."""
    parser.add_argument("source", help="folder in the sequence layout, or a video file")
    parser.add_argument("bag", help="rosbag2 folder to create")
    parser.add_argument(
        "--rate", type=float, help="frames per second (default: 30; for a video its own)"
    )
    parser.add_argument("--topic", default="/camera/image_raw", help="image topic (%(default)s)")
    parser.add_argument(
        "--compressed",
        action="store_true",
        help="write CompressedImage on TOPIC/compressed; JPEG files go in as they are",
    )
    parser.add_argument(
        "--ground-truth-topic",
        default="/ground_truth",
        help="topic of the boxes, vision_msgs/Detection2D (%(default)s)",
    )
    parser.add_argument(
        "--ground-truth",
        help="boxes of a video: a row x,y,w,h per frame (default: NAME.groundtruth.txt beside it)",
    )
    parser.add_argument("--camera-info", help="calibration YAML, as camera_calibration saves it")
    parser.add_argument(
        "--frame-id", default="camera", help="frame_id of the headers (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the bag and print a summary."""
    with unwind_on_signals(), tqdm(unit=" frames", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        recording = record_sequence(
            args.source,
            args.bag,
            rate=args.rate,
            topic=args.topic,
            ground_truth_topic=args.ground_truth_topic,
            frame_id=args.frame_id,
            compressed=args.compressed,
            ground_truth=args.ground_truth,
            camera_info=args.camera_info,
            on_frame=show,
        )
    for note in recording.notes:
        print(f"note: {note}")
    print(
        f"{args.bag}: {recording.frames} images at {recording.rate:g} Hz,"
        f" {recording.boxes} ground-truth boxes"
    )
    return 0
