"""Start a tracker node on a target and print what it publishes.

With a camera and `ros2 launch siamcar_ros tracker.launch.py image:=/camera/image_raw` running:

    python examples/ros_client.py 412,230,60,80            # x,y,w,h on the newest image
    python examples/ros_client.py 412,230,60,80 /tracker 100
"""

import sys
from itertools import islice

from siamcar_ros.geometry import parse_box
from siamcar_ros.ros.client import TargetRefused, TrackerClient, TrackerUnavailable


def main(box: str, node: str = "/tracker", count: str = "") -> None:
    """Print `count` detections, or all until the node is silent for five seconds."""
    with TrackerClient(node) as tracker:
        try:
            tracker.wait_until_active(timeout=60.0)
            name = tracker.init_target(parse_box(box))
        except (TrackerUnavailable, TargetRefused) as error:
            raise SystemExit(str(error)) from error
        print(f"tracking {name}")
        for found in islice(tracker.detections(timeout=5.0), int(count) if count else None):
            print(found.stamp, *(f"{value:.1f}" for value in found.box), f"{found.score:.2f}")
        print(tracker.stop_tracking())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
