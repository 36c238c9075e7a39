"""Scores a running tracker against a ground-truth topic.

ros2 launch siamcar_ros evaluate.launch.py init:=ground_truth report:=live.json
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from siamcar_ros.ros.launching import (
    arguments,
    end_all,
    given_parameters,
    is_true,
    node_options,
    profile_argument,
    required_argument,
    with_checked_arguments,
)

# Arguments that set a parameter of the node, unless they are empty.
PARAMETERS = {
    "tracker": str,
    "init": str,
    "image_transport": str,
    "report": str,
    "replay_report": str,
    "period": float,
    "time_jump": float,
    "use_sim_time": bool,
}

ARGUMENTS = [
    *arguments(
        namespace=("", "Namespace of the node, and of its topics without a leading slash"),
        image=("camera/image_raw", "Image topic, in the namespace"),
        ground_truth=("ground_truth", "Detection2D topic of the truth, likewise"),
        tracker=("tracker", "Name of the tracker node"),
        init=(
            "",
            "Box to start the tracker on: x,y,w,h on the first image, ground_truth for the first"
            " true box; empty starts nothing",
        ),
        image_transport=(
            "",
            "Of the image that a typed box is for: raw or compressed; empty: raw",
        ),
        report=("", "JSON file to write at the end; empty: none"),
        replay_report=("", "report.json of `siamcar replay` on the same bag, to compare with"),
        period=("5.0", "Seconds between logged results"),
        time_jump=("1.0", "Seconds by which stamps must go back to begin a new pass"),
        use_sim_time=("false", "Take the time from /clock"),
    ),
    profile_argument(),
    required_argument(__file__),
]


def start_evaluation(context: LaunchContext) -> list[Node]:
    """Start the node with the parameters that were given as arguments."""
    return [
        Node(
            executable="evaluate_node",
            name="evaluate_node",
            parameters=[given_parameters(context, PARAMETERS)],
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("ground_truth", LaunchConfiguration("ground_truth")),
            ],
            on_exit=end_all("evaluate_node") if is_true(context, "required") else None,
            **node_options(context),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the launch description."""
    description = LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start_evaluation)])
    return with_checked_arguments(description, PARAMETERS | {"required": bool})
