"""Scores a running tracker against a ground-truth topic.

ros2 launch siamcar_ros evaluate.launch.py init:=ground_truth report:=live.json
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from siamcar_ros.ros.launching import (
    end_all,
    is_true,
    node_environment,
    profile_argument,
    required_argument,
    with_checked_arguments,
)

# Arguments that set a parameter of the node, unless they are empty: type, default, description.
PARAMETERS: dict[str, tuple[type, str, str]] = {
    "tracker": (str, "tracker", "Name of the tracker node"),
    "init": (
        str,
        "",
        "Box to start the tracker on: x,y,w,h on the first image, ground_truth for the first true"
        " box; empty starts nothing",
    ),
    "image_transport": (
        str,
        "",
        "Of the image that a typed box is for: raw or compressed; empty: raw",
    ),
    "report": (str, "", "JSON file to write at the end; empty: none"),
    "replay_report": (str, "", "report.json of `siamcar replay` on the same bag, to compare with"),
    "period": (float, "5.0", "Seconds between logged results"),
    "time_jump": (float, "1.0", "Seconds by which stamps must go back to begin a new pass"),
    "use_sim_time": (bool, "false", "Take the time from /clock"),
}

ARGUMENTS = [
    DeclareLaunchArgument(
        "namespace",
        default_value="",
        description="Namespace of the node, and of its topics without a leading slash",
    ),
    DeclareLaunchArgument(
        "image", default_value="camera/image_raw", description="Image topic, in the namespace"
    ),
    DeclareLaunchArgument(
        "ground_truth",
        default_value="ground_truth",
        description="Detection2D topic of the truth, likewise",
    ),
    *(
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (_, default, text) in PARAMETERS.items()
    ),
    profile_argument(),
    required_argument(__file__),
]


def start_evaluation(context: LaunchContext) -> list[Node]:
    """The node, with the parameters that were given as arguments."""
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _, _) in PARAMETERS.items()
        if LaunchConfiguration(name).perform(context)
    }
    return [
        Node(
            package="siamcar_ros",
            executable="evaluate_node",
            name="evaluate_node",
            namespace=LaunchConfiguration("namespace"),
            parameters=[given],
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("ground_truth", LaunchConfiguration("ground_truth")),
            ],
            additional_env=node_environment(context),
            output="screen",
            emulate_tty=True,
            on_exit=end_all("evaluate_node") if is_true(context, "required") else None,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    description = LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start_evaluation)])
    types = {name: kind for name, (kind, _, _) in PARAMETERS.items() if kind is not str}
    return with_checked_arguments(description, types | {"required": bool})
