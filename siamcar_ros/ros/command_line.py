"""What the executables share: rclpy started on the words that were typed, or what is wrong said."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.utilities import remove_ros_args


def initialise(usage: str, arguments: Sequence[str] | None, **options: Any) -> int | None:
    """Start rclpy.

    Args:
        usage: printed for `--help`.
        arguments: as typed, without the program; None takes the process's own.
        options: for `rclpy.init`.

    Returns:
        None where it has started; else the process's exit status, all having been said.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        others = remove_ros_args(words)
        if {"-h", "--help"} & set(others):
            print(usage.strip())
            return 0
        if others:
            raise ValueError(
                f"{' '.join(others)!r} is not understood: parameters are given as --ros-args -p "
                "NAME:=VALUE (--help shows more)"
            )
        rclpy.init(args=words, **options)
    except rclpy_implementation.UnknownROSArgsError as error:
        print(f"error: unknown ROS arguments: {error}", file=sys.stderr)
        return 2
    except (rclpy_implementation.RCLError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return None
