"""Scores a running tracker against a ground-truth topic.

ros2 launch siamcar_ros evaluate.launch.py init:=ground_truth report:=live.json
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from siamcar_ros.ros.launching import (
    arguments,
    checked_launch,
    common_arguments,
    end_all,
    given_parameters,
    is_true,
    node_options,
    remapped,
)

# Each sets the parameter of the same name, unless it is empty.
PARAMETERS = arguments(
    tracker=("tracker", "Name of the tracker node"),
    init=(
        "",
        "Box to start the tracker on: x,y,w,h on the first image, ground_truth for the first true"
        " box; empty starts nothing",
    ),
    image_transport=("", "Of the image that a typed box is for, as for the tracker; empty: raw"),
    report=("", "JSON file to write at the end; empty: none"),
    replay_report=("", "report.json of `siamcar replay` on the same bag, to compare with"),
    period=("5.0", "Seconds between logged results", float),
    time_jump=("1.0", "Seconds by which stamps must go back to begin a new pass", float),
    use_sim_time=("false", "Take the time from /clock", bool),
)

ARGUMENTS = arguments(
    namespace=("", "Namespace of the node, and of its topics without a leading slash"),
    image=("camera/image_raw", "Image topic, in the namespace"),
    ground_truth=("ground_truth", "Detection2D topic of the truth, likewise"),
)


def start_evaluation(context: LaunchContext) -> list[Node]:
    """Start the node with the parameters that were given as arguments."""
    return [
        Node(
            executable="evaluate_node",
            name="evaluate_node",
            parameters=[given_parameters(context, PARAMETERS)],
            remappings=remapped("image", "ground_truth"),
            on_exit=end_all("evaluate_node") if is_true(context, "required") else None,
            **node_options(context),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    return checked_launch(
        *ARGUMENTS,
        *PARAMETERS,
        *common_arguments(__file__),
        OpaqueFunction(function=start_evaluation),
    )
