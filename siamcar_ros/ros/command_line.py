"""Helpers of the executables: running a node, declaring parameters."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import rclpy
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from siamcar_ros.files import reason
from siamcar_ros.options import check_choice
from siamcar_ros.processes import PARENT_VARIABLE
from siamcar_ros.resources import FASTDDS_VARIABLES

REFUSALS = (ValueError, OSError, ParameterException)
"""What a node raises if it cannot run as configured; the message says why."""

_PR_SET_PDEATHSIG = 1
# Bytes of /dev/shm that Fast DDS takes by default, and with a profile such as the shipped one.
# Where there are fewer, its first write to the segment kills the process with SIGBUS.
_SHARED_MEMORY, _PROFILE_MEMORY = 2 << 20, 64 << 20


def refusal(error: Exception) -> str:
    """Return why a node cannot start, with a hint if a float parameter was given an integer."""
    if isinstance(error, InvalidParameterTypeException) and "type 'DOUBLE'" in str(error):
        what, _, _ = str(error).rpartition(": ")  # without the parameter's name once more
        return f"{what}: write it with a decimal point, as in 5.0"
    return reason(error)


def run_node(
    name: str,
    usage: str,
    run: Callable[[], None],
    arguments: Sequence[str] | None,
    *,
    own_signals: bool = False,
) -> int:
    """Start rclpy, call `run`, shut rclpy down, and return the process's exit status.

    If `run` raises one of `REFUSALS` or an RCLError, the message is logged and the status is 1.
    After a signal has ended the context, only an OSError counts as a failure: of a report that
    cannot be written, say.

    `name` is for the log, `usage` for `--help`; without `arguments` the process's own are taken.
    With `own_signals`, `run` handles SIGINT and SIGTERM itself; by default they end the context at
    once, after which nothing can be published.
    """
    status = start_rclpy(usage, arguments, own_signals=own_signals)
    if status is not None:
        return status
    # Not the node's logger: that one publishes to /rosout, which fails once the context has ended.
    logger = get_logger(name)
    try:
        run()
    except Exception as error:
        if rclpy.ok() or isinstance(error, OSError):
            if not isinstance(error, (*REFUSALS, rclpy_implementation.RCLError)):
                raise
            logger.fatal(refusal(error))
            return 1
    finally:
        rclpy.try_shutdown()
    return 0


def start_rclpy(
    usage: str, arguments: Sequence[str] | None, *, own_signals: bool = False
) -> int | None:
    """Initialize rclpy from the command line, or report what is wrong with it.

    SIGINT and SIGTERM end the process with status 0 until rclpy runs. From then on they end the
    context or, with `own_signals`, still the process, until the node handles them. Returns None if
    rclpy runs, else the exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    started = False

    def end(number: int, frame: FrameType | None) -> None:
        if not started:
            os._exit(0)
        if own_signals:  # else rclpy's handler, which calls this one, has ended the context
            sys.exit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        others = remove_ros_args(words)
        if {"-h", "--help"} & set(others):
            print(usage.strip())
            return 0
        if others:
            raise ValueError(
                f"unknown arguments {' '.join(others)!r}: parameters are given as --ros-args -p "
                "NAME:=VALUE (--help shows more)"
            )
        _end_with_parent()
        _avoid_full_shared_memory()
        handlers = SignalHandlerOptions.NO if own_signals else SignalHandlerOptions.ALL
        rclpy.init(args=words, signal_handler_options=handlers)
        started = True
        return None
    except rclpy_implementation.UnknownROSArgsError as error:
        print(f"error: unknown ROS arguments: {error}", file=sys.stderr)
        return 2
    except (rclpy_implementation.RCLError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if not started:
            for number, handler in before.items():
                signal.signal(number, handler)


def spin_until_interrupted(node: Node, ended: Callable[[], bool] = lambda: False) -> None:
    """Spin a node with `own_signals` until it has `ended`, or until SIGINT or SIGTERM."""
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not (ended() or interrupted.is_set()):
        executor.spin_once(timeout_sec=0.2)


def _end_with_parent() -> None:
    """Have the kernel send SIGINT when the parent dies, so that a killed launch ends its nodes."""
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent or sys.platform != "linux":
        return
    if parent == str(os.getppid()):  # else it was started by a debugger, say
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    if not Path("/proc", parent).exists():  # it has died since
        os._exit(0)


def _avoid_full_shared_memory() -> None:
    """Make Fast DDS use UDP alone, with a warning, if /dev/shm has no room for its segments."""
    profiles = [os.environ[name] for name in FASTDDS_VARIABLES if os.environ.get(name)]
    needed = _PROFILE_MEMORY if profiles else _SHARED_MEMORY
    transports = os.environ.get("FASTDDS_BUILTIN_TRANSPORTS", "")
    middleware = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return
    if free >= needed or transports.startswith("UDP") or "fastrtps" not in middleware:
        return
    for name in FASTDDS_VARIABLES:
        os.environ.pop(name, None)
    os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
    print(
        f"warning: /dev/shm has {free / 1e6:.1f} MB free and Fast DDS needs {needed / 1e6:.0f} MB: "
        "using UDP instead, which is slower. Delete stale /dev/shm/fastrtps_* files or enlarge it "
        "(docker run --ipc=host or --shm-size)",
        file=sys.stderr,
    )


def parameter_descriptor(
    description: str,
    range: tuple[int | float, int | float] | None = None,
    choices: Iterable[str] = (),
    *,
    read_only: bool = False,
    any_type: bool = False,
) -> ParameterDescriptor:
    """Return the ROS descriptor of a parameter.

    ROS checks the `range` of a number, both ends allowed, but not the `choices`. `any_type` accepts
    values of other types than the default's.
    """
    described = ParameterDescriptor(
        description=description,
        additional_constraints=", ".join(choices),
        read_only=read_only,
        dynamic_typing=any_type,
    )
    if range is not None:
        low, high = range
        if isinstance(low, float):
            described.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            described.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return described


def declare_read_only(node: Node, name: str, default: Any, description: str, **limits: Any) -> Any:
    """Declare a parameter that is set at the start; return its value.

    `limits` are `range`, `choices` and `any_type` of :func:`parameter_descriptor`.
    """
    described = parameter_descriptor(description, read_only=True, **limits)
    value, choices = node.declare_parameter(name, default, described).value, limits.get("choices")
    if choices:
        check_choice(name, value, choices)
    return value
