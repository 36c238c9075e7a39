"""Turn a robot toward its target: angular velocity from the bearing, on cmd_vel.

With a camera, its camera_info and a tracker node running:

    python examples/turn_to_target.py 412,230,60,80        # x,y,w,h on the newest image
    python examples/turn_to_target.py 412,230,60,80 /tracker 100
"""

import sys
from itertools import islice

from geometry_msgs.msg import Twist

from siamcar_ros.geometry import parse_box
from siamcar_ros.ros.client import TargetRefused, TrackerClient, TrackerUnavailable

GAIN, FASTEST = 1.5, 1.0  # 1/s, rad/s


def main(box: str, node: str = "/tracker", count: str = "") -> None:
    """Steer for `count` images, or until the node is silent for a second; then stop the robot."""
    with TrackerClient(node) as tracker:
        try:
            tracker.wait_until_active()
            name = tracker.init_target(parse_box(box))
        except (TrackerUnavailable, TargetRefused) as error:
            raise SystemExit(str(error)) from error
        wheels = tracker.node.create_publisher(Twist, "cmd_vel", 1)
        try:
            for image in islice(tracker.tracks(timeout=1.0), int(count) if count else None):
                command = Twist()  # stand still, unless the target is seen
                for bearing in (b for t in image.tracks if t.id == name for b in t.bearing):
                    rate = -GAIN * bearing.azimuth  # positive turns left, azimuth is to the right
                    command.angular.z = max(-FASTEST, min(FASTEST, rate))
                wheels.publish(command)
        finally:
            wheels.publish(Twist())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
