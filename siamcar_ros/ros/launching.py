"""Helpers of the launch files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
)
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.logging import get_logger
from launch.substitution import Substitution
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from siamcar_ros.resources import FASTDDS_VARIABLES, fastdds_profile
from siamcar_ros.ros.command_line import PARENT_VARIABLE

_TRUE, _FALSE = ("true", "1"), ("false", "0")
_FORMS = {int: "a whole number", float: "a number", bool: "true or false"}


def arguments(**described: tuple[str | Substitution, str]) -> list[DeclareLaunchArgument]:
    """Declare launch arguments: NAME=(default, description)."""
    return [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in described.items()
    ]


def profile_argument() -> DeclareLaunchArgument:
    """Declare `fastdds_profile`; default is the one in the environment, or else the shipped one."""
    own = EnvironmentVariable(FASTDDS_VARIABLES[1], default_value=str(fastdds_profile() or ""))
    return DeclareLaunchArgument(
        "fastdds_profile",
        default_value=EnvironmentVariable(FASTDDS_VARIABLES[0], default_value=own),
        description="Fast DDS profile of the nodes, empty sets none; give the camera's driver the"
        " same one",
    )


def required_argument(file: str) -> DeclareLaunchArgument:
    """Declare `required`; default is true if `file` itself is launched, not included."""
    launched = any(Path(word).name == Path(file).name for word in sys.argv)
    return DeclareLaunchArgument(
        "required",
        default_value=str(launched).lower(),
        description="End the whole launch when the node ends, with an error if it failed; by"
        " default only if this file is not included by another",
    )


def included(file: str, **given: str | Substitution) -> IncludeLaunchDescription:
    """Include another launch file of this package."""
    path = PathJoinSubstitution([FindPackageShare("siamcar_ros"), "launch", file])
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path), launch_arguments=given.items()
    )


def given_parameters(context: LaunchContext, types: Mapping[str, type]) -> dict[str, Any]:
    """Return a node's parameters that are launch arguments of the same name and are not empty."""
    return {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in types.items()
        if LaunchConfiguration(name).perform(context)
    }


def node_options(context: LaunchContext) -> dict[str, Any]:
    """Return the options that all nodes of this package are started with."""
    return {
        "package": "siamcar_ros",
        "namespace": LaunchConfiguration("namespace"),
        "additional_env": node_environment(context),
        "output": "screen",
        "emulate_tty": True,
    }


def node_environment(context: LaunchContext) -> dict[str, str]:
    """Return `additional_env` for a node: the Fast DDS profile, and the launch to end with.

    The profile is not set for the whole launch, where it would reach the processes of launch files
    that include this one.
    """
    profile = context.launch_configurations.get("fastdds_profile", "")
    environment = dict.fromkeys(FASTDDS_VARIABLES, profile) if profile else {}
    return environment | {PARENT_VARIABLE: str(os.getpid())}


def is_true(context: LaunchContext, name: str) -> bool:
    """Return the value of a boolean launch argument."""
    return context.launch_configurations.get(name, "").lower() in _TRUE


def end_all(
    what: str,
) -> Callable[[ProcessExited, LaunchContext], list[LaunchDescriptionEntity]]:
    """Return an `on_exit` that ends the whole launch, with an error status if the process failed.

    It does nothing if the launch is ending already, as after Ctrl-C: a Shutdown during the shutdown
    is an error to launch_ros.
    """

    def ended(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        if context.is_shutdown:
            return []
        if event.returncode:
            # An exception is the only way to make `ros2 launch` return 1; it shuts everything down.
            raise RuntimeError(f"{what} failed with status {event.returncode}: see its output")
        return [Shutdown(reason=f"{what} has ended")]

    return ended


def with_checked_arguments(
    description: LaunchDescription,
    types: Mapping[str, type],
    check: Callable[[LaunchContext], None] = lambda context: None,
) -> LaunchDescription:
    """Check what the launch needs before anything starts.

    A value of the wrong type is refused. An unknown name, which launch itself ignores, is warned
    about if it is close to a declared one; others may belong to a file that includes this one.

    Args:
        description: what is launched.
        types: of the arguments; those of text may be left out.
        check: raises RuntimeError for anything else that is missing.
    """

    def checked(context: LaunchContext) -> None:
        for name, kind in types.items():
            value = context.launch_configurations.get(name, "")
            if value and not _is_a(value, kind):
                raise RuntimeError(f"launch argument {name}:={value} is not {_FORMS[kind]}")
        check(context)
        # Of files that include one another only the outermost knows all arguments.
        if hasattr(context.locals, "siamcar_arguments_checked"):
            return
        context.extend_globals({"siamcar_arguments_checked": True})
        declared = {argument.name for argument in description.get_launch_arguments()}
        for word in context.argv:
            name = word.partition(":=")[0]
            near = get_close_matches(name, declared, n=1, cutoff=0.75)
            if near and name not in declared:
                get_logger("siamcar_ros").warning(
                    f"there is no launch argument {name!r}; did you mean {near[0]!r}?"
                    " --show-args lists them"
                )

    description.entities.insert(0, OpaqueFunction(function=checked))
    return description


def require_executable(package: str, executable: str, remedy: str) -> None:
    """Raise RuntimeError, with the remedy, if a package's executable is not installed."""
    try:
        found = Path(get_package_prefix(package), "lib", package, executable).is_file()
    except PackageNotFoundError:
        found = False
    if not found:
        raise RuntimeError(f"{package} is not installed: {remedy}")


def _is_a(value: str, kind: type) -> bool:
    if kind is bool:
        return value.lower() in _TRUE + _FALSE
    try:
        kind(value)
    except ValueError:
        return False
    return True
