"""Play a recorded bag to the live tracker, in simulated time, and score it.

ros2 launch siamcar_ros replay.launch.py bag:=drive image:=/camera/image_raw report:=live.json

The bag starts when the tracker is active. Tracking starts on the first true box, or on
`init:=x,y,w,h` in the first image, and again each time the bag starts over (`loop:=true`).
`siamcar replay` tracks through the same bag without dropping a frame; pass its report.json as
`replay_report` to compare. Takes the arguments of tracker.launch.py and evaluate.launch.py, except
that the clock is the bag's and the tracker that is scored is the one that is started, `name`.
"""

import shutil
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node

from siamcar_ros.ros.launching import (
    arguments,
    checked_launch,
    end_all,
    expanded_path,
    included,
    is_true,
    node_environment,
)

# Seconds before the bag's first message, for the player and the nodes to find each other.
SETTLE = "2.0"

ARGUMENTS = [
    DeclareLaunchArgument("bag", description="rosbag2 folder or file"),
    *arguments(
        image=("/camera/image_raw", "Image topic of the bag"),
        camera_info=("/camera/camera_info", "CameraInfo topic of the bag"),
        ground_truth=("/ground_truth", "Detection2D topic of the bag with the true boxes"),
        rate=("1.0", "Playback speed relative to real time", float),
        start=("0.0", "Seconds to skip at the start of the bag", float),
        loop=("false", "Start over at the end of the bag", bool),
        init=("ground_truth", "Box to start on: ground_truth, or x,y,w,h in the first image"),
        patience=("120.0", "Seconds to wait for the tracker to become active", float),
        image_transport=(
            "",
            "Transport of the bag's images: raw, compressed, ffmpeg or foxglove; empty: that of"
            " params_file, or raw for the image on which init was typed",
        ),
    ),
]


def play(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the player when the tracker is active; without `loop`, end the launch with it."""
    if event.returncode != 0:
        return end_all("wait_until_active")(event, context)
    loop = is_true(context, "loop")
    command = ["ros2", "bag", "play", expanded_path(context, "bag"), "--clock", "100"]
    command += ["--delay", SETTLE]
    command += ["--rate", LaunchConfiguration("rate")]
    command += ["--start-offset", LaunchConfiguration("start")]
    command += ["--loop"] if loop else []
    return [
        ExecuteProcess(
            cmd=command,
            additional_env=node_environment(context),
            output="screen",
            on_exit=None if loop else end_all("the player"),
        )
    ]


def check(context: LaunchContext) -> None:
    """Refuse a launch without its bag or the command that plays it."""
    bag = context.launch_configurations.get("bag", "")
    if bag and not Path(bag).expanduser().exists():
        raise RuntimeError(f"there is no bag {bag}")
    if shutil.which("ros2") is None:
        raise RuntimeError("the command `ros2` is not on the PATH: source your ROS installation")


def start_waiting(context: LaunchContext) -> list[Node]:
    """Wait for the tracker, and then play."""
    tracker = PathJoinSubstitution([LaunchConfiguration("namespace"), LaunchConfiguration("name")])
    return [
        Node(
            package="siamcar_ros",
            executable="wait_until_active",
            arguments=[tracker, "--timeout", LaunchConfiguration("patience")],
            additional_env=node_environment(context),
            output="screen",
            on_exit=play,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    return checked_launch(
        *ARGUMENTS,
        included("tracker.launch.py", use_sim_time="true", required="true"),
        included(
            "evaluate.launch.py",
            tracker=LaunchConfiguration("name"),
            use_sim_time="true",
            required="true",
        ),
        OpaqueFunction(function=start_waiting),
        check=check,
    )
