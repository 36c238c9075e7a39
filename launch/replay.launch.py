"""Plays a recorded bag to the live tracker, in simulated time, and scores it.

ros2 launch siamcar_ros replay.launch.py bag:=drive image:=/camera/image_raw report:=live.json

The bag starts when the tracker is active. The tracker is started on the first true box, or on
`init:=x,y,w,h` on the first image, and again each time the bag starts over (`loop:=true`).
`siamcar replay` tracks through the same bag without dropping a frame; give its report.json as
`replay_report` to see both. Takes the arguments of tracker.launch.py and evaluate.launch.py, but
uses the bag's time and scores the tracker that it starts.
"""

import shutil
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from siamcar_ros.ros.launching import end_all, is_true, node_environment, with_checked_arguments

# Seconds before the bag's first message, for the player and the nodes to find each other.
SETTLE = "2.0"

# Of this file and of those that it includes: all are checked before anything starts.
TYPES = {
    "rate": float,
    "start": float,
    "loop": bool,
    "patience": float,
    "period": float,
    "time_jump": float,
}

ARGUMENTS = [
    DeclareLaunchArgument("bag", description="rosbag2 folder or file"),
    DeclareLaunchArgument(
        "image", default_value="/camera/image_raw", description="Image topic of the bag"
    ),
    DeclareLaunchArgument("rate", default_value="1.0", description="Speed of the bag's clock"),
    DeclareLaunchArgument(
        "start", default_value="0.0", description="Seconds of the bag to leave out at its beginning"
    ),
    DeclareLaunchArgument("loop", default_value="false", description="Start over at the end"),
    DeclareLaunchArgument(
        "init",
        default_value="ground_truth",
        description="Box to start on: ground_truth, or x,y,w,h on the first image",
    ),
    DeclareLaunchArgument(
        "patience", default_value="120.0", description="Seconds to wait for the tracker"
    ),
    DeclareLaunchArgument(
        "image_transport",
        default_value="",
        description="Of the bag's images: raw or compressed; empty: as params_file says",
    ),
]


def included(name: str, **arguments: object) -> IncludeLaunchDescription:
    """Another launch file of this package."""
    path = PathJoinSubstitution([FindPackageShare("siamcar_ros"), "launch", name])
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path), launch_arguments=arguments.items()
    )


def play(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The player, once the tracker is active; without `loop` its end ends the launch."""
    if event.returncode != 0:
        return end_all("wait_until_active")(event, context)
    loop = is_true(context, "loop")
    command = ["ros2", "bag", "play", LaunchConfiguration("bag"), "--clock", "100"]
    command += ["--delay", SETTLE]
    command += ["--rate", LaunchConfiguration("rate")]
    command += ["--start-offset", LaunchConfiguration("start")]
    command += ["--loop"] if loop else []
    ending = None if loop else end_all("the player")
    environment = node_environment(context)
    return [
        ExecuteProcess(cmd=command, additional_env=environment, output="screen", on_exit=ending)
    ]


def check(context: LaunchContext) -> None:
    """What is to be started is there."""
    bag = context.launch_configurations.get("bag", "")
    if bag and not Path(bag).exists():
        raise RuntimeError(f"there is no bag {bag}")
    if shutil.which("ros2") is None:
        raise RuntimeError("the command `ros2` is not on the PATH: source your ROS installation")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    waiting = Node(
        package="siamcar_ros",
        executable="wait_until_active",
        arguments=[
            PathJoinSubstitution([LaunchConfiguration("namespace"), LaunchConfiguration("name")]),
            "--timeout",
            LaunchConfiguration("patience"),
        ],
        output="screen",
    )
    description = LaunchDescription(
        [
            *ARGUMENTS,
            included("tracker.launch.py", use_sim_time="true", required="true"),
            included(
                "evaluate.launch.py",
                tracker=LaunchConfiguration("name"),
                use_sim_time="true",
                required="true",
            ),
            waiting,
            RegisterEventHandler(OnProcessExit(target_action=waiting, on_exit=play)),
        ]
    )
    return with_checked_arguments(description, TYPES, check)
