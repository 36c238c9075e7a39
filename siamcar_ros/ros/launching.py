"""Helpers of the launch files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
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
from launch.utilities.type_utils import coerce_to_type
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from siamcar_ros.processes import PARENT_VARIABLE
from siamcar_ros.resources import FASTDDS_VARIABLES, fastdds_profile

_FORMS = {int: "a whole number", float: "a number", bool: "true or false"}


class Argument(DeclareLaunchArgument):
    """A launch argument of a type, which `checked_launch` checks; an empty value is of any type."""

    def __init__(
        self, name: str, default: str | Substitution, description: str, kind: type = str
    ) -> None:
        super().__init__(name, default_value=default, description=description)
        self.kind = kind


def arguments(**described: tuple[Any, ...]) -> list[Argument]:
    """Declare launch arguments: NAME=(default, description), or (default, description, type)."""
    return [Argument(name, *each) for name, each in described.items()]


def common_arguments(file: str) -> list[Argument]:
    """Declare what every launch file with a node of its own has.

    `fastdds_profile` is by default the one in the environment, or else the shipped one. `required`
    is true by default if `file` itself is launched, not included.
    """
    own = EnvironmentVariable(FASTDDS_VARIABLES[1], default_value=str(fastdds_profile() or ""))
    launched = any(Path(word).name == Path(file).name for word in sys.argv)
    return arguments(
        fastdds_profile=(
            EnvironmentVariable(FASTDDS_VARIABLES[0], default_value=own),
            "Fast DDS profile of the nodes, empty sets none; give the camera's driver the same one",
        ),
        required=(
            str(launched).lower(),
            "End the whole launch when the node ends, with an error if it failed; by default only"
            " if this file is not included by another",
            bool,
        ),
    )


def included(file: str, **given: str | Substitution) -> IncludeLaunchDescription:
    """Include another launch file of this package."""
    path = PathJoinSubstitution([FindPackageShare("siamcar_ros"), "launch", file])
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path), launch_arguments=given.items()
    )


def given_parameters(context: LaunchContext, declared: list[Argument]) -> dict[str, Any]:
    """Return a node's parameters that are launch arguments of the same name and are not empty."""
    return {
        each.name: ParameterValue(LaunchConfiguration(each.name), value_type=each.kind)
        for each in declared
        if LaunchConfiguration(each.name).perform(context)
    }


def expanded_path(context: LaunchContext, name: str) -> str:
    """Return an argument that is a path, with the `~` that shells leave alone expanded."""
    return str(Path(LaunchConfiguration(name).perform(context)).expanduser())


def remapped(*topics: str) -> list[tuple[str, LaunchConfiguration]]:
    """Return the remappings of topics to the launch arguments of the same names."""
    return [(topic, LaunchConfiguration(topic)) for topic in topics]


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
    return bool(coerce_to_type(context.launch_configurations.get(name) or "false", bool))


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


def checked_launch(
    *entities: LaunchDescriptionEntity,
    check: Callable[[LaunchContext], None] = lambda context: None,
) -> LaunchDescription:
    """Return the launch description, which checks what it needs before anything starts.

    A value of the wrong type is refused. An unknown name, which launch itself ignores, is warned
    about if it is close to a declared one; others may belong to a file that includes this one.
    `check` raises RuntimeError for anything else that is missing.
    """

    def checked(context: LaunchContext) -> None:
        declared = {each.name: each for each in description.get_launch_arguments()}
        for name, argument in declared.items():
            value = context.launch_configurations.get(name, "")
            kind = getattr(argument, "kind", str)
            if value and not _is_a(value, kind):
                raise RuntimeError(f"launch argument {name}:={value} is not {_FORMS[kind]}")
        check(context)
        # Of files that include one another only the outermost knows all arguments.
        if hasattr(context.locals, "siamcar_arguments_checked"):
            return
        context.extend_globals({"siamcar_arguments_checked": True})
        for word in context.argv:
            name = word.partition(":=")[0]
            near = get_close_matches(name, declared, n=1, cutoff=0.75)
            if near and name not in declared:
                get_logger("siamcar_ros").warning(
                    f"there is no launch argument {name!r}; did you mean {near[0]!r}?"
                    " --show-args lists them"
                )

    description = LaunchDescription([OpaqueFunction(function=checked), *entities])
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
    try:
        coerce_to_type(value, kind)  # as launch itself does, for a node's parameters
    except ValueError:
        return False
    return True
