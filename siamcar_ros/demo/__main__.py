"""Follow a target through a video, a sequence folder or the rendered clip, over real ROS 2.

python -m siamcar_ros.demo [--video FILE --box X,Y,W,H | --sequence FOLDER] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from siamcar_ros.demo.run import Box, DemoError, Options, run
from siamcar_ros.processes import ended_in_order


def _box(text: str) -> Box:
    try:
        x, y, w, h = (float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"not x,y,w,h: {text!r}") from None
    if not (w > 0 and h > 0):
        raise argparse.ArgumentTypeError(f"width and height must be positive: {text!r}")
    return x, y, w, h


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 1 with a reason where tracking does not come about."""
    parser = argparse.ArgumentParser(prog="python -m siamcar_ros.demo", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--video", default="", help="video file; needs --box")
    what.add_argument("--sequence", default="", help="folder of frames with groundtruth.txt")
    parser.add_argument("--box", type=_box, help="the target on the first frame: x,y,w,h in pixels")
    parser.add_argument("--rate", type=float, default=0.0, help="frames a second; 0: the source's")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="%(default)s")
    parser.add_argument("--config", default="compact", help="network or YAML file (%(default)s)")
    parser.add_argument("--weights", default="", help="weights file; the config's by default")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N (%(default)s)")
    parser.add_argument("--backend", default="auto", help="what runs the network (%(default)s)")
    given = parser.parse_args(arguments)
    if given.video and given.box is None:
        parser.error("--video needs --box x,y,w,h (make demo VIDEO=file BOX=x,y,w,h)")
    options = Options(
        source=given.video or given.sequence,
        box=given.box,
        rate=given.rate,
        output=given.output,
        node={
            "config": given.config,
            "weights": given.weights,
            "device": given.device,
            "backend": given.backend,
        },
    )
    try:
        with ended_in_order():
            run(options)
    except (DemoError, ValueError, OSError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
