"""What the launch files share."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from launch import Action, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
from launch.logging import get_logger
from launch.substitutions import EnvironmentVariable
from launch_ros.actions import LifecycleNode

from siamcar_ros.resources import FASTDDS_VARIABLES, fastdds_profile


def profile_argument() -> DeclareLaunchArgument:
    """`fastdds_profile`: the one that the environment names, or else the shipped one."""
    own = EnvironmentVariable(FASTDDS_VARIABLES[1], default_value=str(fastdds_profile() or ""))
    return DeclareLaunchArgument(
        "fastdds_profile",
        default_value=EnvironmentVariable(FASTDDS_VARIABLES[0], default_value=own),
        description="Fast DDS profile of the nodes, empty sets none; give the camera's driver the"
        " same one",
    )


def is_tracker(action: Action) -> bool:
    """Whether a process is the tracker node."""
    return isinstance(action, LifecycleNode) and action.node_executable == "tracker_node"


def profile_environment(context: LaunchContext) -> dict[str, str]:
    """For `additional_env`: the Fast DDS profile of the argument `fastdds_profile`, if it has one.

    Set for the whole launch, it would reach the processes of the launch files that include this.
    """
    profile = context.launch_configurations.get("fastdds_profile", "")
    return dict.fromkeys(FASTDDS_VARIABLES, profile) if profile else {}


def end_all(
    reason: str,
) -> Callable[[ProcessExited, LaunchContext], list[LaunchDescriptionEntity]]:
    """For `on_exit`: end everything, unless it is ending already, as after Ctrl-C.

    A Shutdown during the shutdown is an error to launch_ros, which takes its own node down twice.
    """

    def ended(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        return [] if context.is_shutdown else [Shutdown(reason=reason)]

    return ended


def with_checked_arguments(description: LaunchDescription) -> LaunchDescription:
    """The description with a warning of misspelt arguments, which launch itself takes in silence.

    Only names close to one that is declared are told: others may be those of a launch file that
    includes this one.
    """

    def check(context: LaunchContext) -> None:
        # Files that include one another are checked by the outermost, which knows all arguments.
        if hasattr(context.locals, "siamcar_arguments_checked"):
            return
        context.extend_globals({"siamcar_arguments_checked": True})
        declared = {argument.name for argument in description.get_launch_arguments()}
        for word in context.argv:
            name = word.partition(":=")[0]
            near = get_close_matches(name, declared, n=1, cutoff=0.75)
            if near and name not in declared:
                get_logger("siamcar_ros").warning(
                    f"no launch argument is called {name!r}; did you mean {near[0]!r}?"
                    " --show-args lists them"
                )

    description.entities.insert(0, OpaqueFunction(function=check))
    return description
