"""The executable `tracker_node`: runs a `TrackerNode`.

ros2 run siamcar_ros tracker_node --ros-args -r image:=/camera/image_raw

Parameters are given by -p NAME:=VALUE or --params-file FILE. The README lists them, and
config/tracker.yaml in the package's share folder has all of them.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.logging import get_logger

from siamcar_ros.ros.command_line import REFUSALS, refusal, run_node
from siamcar_ros.ros.node import TrackerNode

# Seconds after which a thread hands over the interpreter. With the default of 5 ms, the worker
# would wait until the executor has finished its bookkeeping after each frame.
_SWITCH_INTERVAL = 0.0001


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the process's exit status.

    Without `args` it takes the process's own, and the process then ends without the interpreter's
    clean-up.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    ended: list[int] = []
    if args is None:
        # Registered first, so that it runs last: after the functions that remove temporary files.
        atexit.register(lambda: _exit_now(ended[0]) if ended else None)
    logging.getLogger("siamcar_ros").addHandler(_RosHandler(logging.INFO))
    logging.getLogger("siamcar_ros").setLevel(logging.INFO)
    status = run_node("tracker", __doc__ or "", _run, args)
    # The middleware leaves the graph, and its shared memory, with the last of the node's objects,
    # some of which refer to one another.
    gc.collect()
    # The interpreter's own shutdown unloads the network's libraries. That takes more than a second,
    # and aborts the process if a signal arrived while they were being loaded.
    ended.append(status)
    return status


class _RosHandler(logging.Handler):
    """Logs what the package's other modules report, such as the conversion of a network."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = get_logger(record.name)
        write = logger.info if record.levelno < logging.WARNING else logger.warning
        write(record.getMessage())


def _run() -> None:
    try:
        _track()
    except Exception:
        if rclpy.ok():  # else a signal has ended the context, which shows in several ways
            raise
    # Not the node's logger: that one publishes to /rosout, which fails once the context has ended.
    get_logger("siamcar_ros").info("ended cleanly")


def _track() -> None:
    """Run a node for as long as the context lasts; exceptions of its callbacks are logged."""
    try:
        node = TrackerNode()
    except REFUSALS as error:
        raise ValueError(f"cannot start: {refusal(error)}") from error
    executor: Executor = SingleThreadedExecutor()
    if node.settings.events_executor:
        from rclpy.experimental import EventsExecutor

        executor = EventsExecutor()
    executor.add_node(node)
    if node.settings.autostart and not node.start() and rclpy.ok():
        raise ValueError("not started: see above")
    while rclpy.ok():
        try:
            # Not spin(): the events executor's blocks the other threads in rclpy 7.1.
            executor.spin_once(timeout_sec=1.0)
        except Exception:
            if rclpy.ok():
                node.get_logger().error(f"a callback failed: {traceback.format_exc()}")
    if not node.close():
        get_logger("siamcar_ros").warning("the tracker is still busy with an image: leaving it")
    executor.shutdown()
    node.destroy_node()


def _exit_now(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
