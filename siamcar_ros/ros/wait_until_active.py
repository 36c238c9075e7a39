"""The executable `wait_until_active`: exits when a tracker node is active.

    ros2 run siamcar_ros wait_until_active /tracker --timeout 60

For launch files and scripts: transition events are not repeated, so a late subscriber misses them.
The exit status is 0 if the node is active, 1 if it is not in time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rclpy.exceptions import NameValidationException
from rclpy.utilities import remove_ros_args

from siamcar_ros.ros.client import TrackerClient, TrackerUnavailable


def main(args: Sequence[str] | None = None) -> int:
    """Wait; return the process's exit status."""
    parser = argparse.ArgumentParser(description="Exits when a tracker node is active.")
    parser.add_argument("tracker", help="the node's full name")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds (%(default)s)")
    given = parser.parse_args(remove_ros_args(sys.argv if args is None else list(args))[1:])
    try:
        with TrackerClient(given.tracker) as client:
            client.wait_until_active(given.timeout)
    except (TrackerUnavailable, NameValidationException) as error:
        print(f"wait_until_active: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
