"""The tracker on a camera's images, with RViz if wanted.

ros2 launch siamcar_ros tracker.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

from siamcar_ros.ros.launching import (
    profile_argument,
    profile_environment,
    with_checked_arguments,
)

SHARE = FindPackageShare("siamcar_ros")

# Arguments that set a parameter of the node; empty ones leave it to the parameter file.
PARAMETERS: dict[str, tuple[type, str]] = {
    "config": (str, "Network: a name in config/networks or a YAML file of your own"),
    "weights": (str, "Weights file, instead of the one that the config names"),
    "device": (str, "Where the network runs: auto, cpu, cuda or cuda:N"),
    "image_transport": (str, "raw, or compressed to subscribe to IMAGE/compressed"),
    "qos_reliability": (str, "Asked of the camera: auto, reliable or best_effort"),
    "max_targets": (int, "Targets followed at a time"),
    "autostart": (bool, "Configure and activate at once; false waits for a lifecycle manager"),
    "use_sim_time": (bool, "Take the time from /clock"),
}

ARGUMENTS = [
    DeclareLaunchArgument("image", default_value="/camera/image", description="Image topic"),
    DeclareLaunchArgument(
        "camera_info", default_value="/camera/camera_info", description="CameraInfo topic"
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node"),
    DeclareLaunchArgument("name", default_value="tracker", description="Name of the node"),
    DeclareLaunchArgument(
        "params_file",
        default_value=PathJoinSubstitution([SHARE, "config", "tracker.yaml"]),
        description="Parameters of the node",
    ),
    *(
        DeclareLaunchArgument(
            name, default_value="", description=f"{text}; empty: as params_file says"
        )
        for name, (_, text) in PARAMETERS.items()
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Logger's level",
    ),
    profile_argument(),
    DeclareLaunchArgument("rviz", default_value="false", description="Start RViz as well"),
    DeclareLaunchArgument(
        "rviz_config",
        default_value=PathJoinSubstitution([SHARE, "config", "rviz", "tracker.rviz"]),
        description="RViz's configuration",
    ),
    DeclareLaunchArgument(
        "fixed_frame", default_value="camera", description="RViz's fixed frame: the images' frame"
    ),
]


def start_tracker(context: LaunchContext) -> list[LifecycleNode]:
    """The node, with the parameters that were given as arguments over those of the file."""
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in PARAMETERS.items()
        if LaunchConfiguration(name).perform(context)
    }
    return [
        LifecycleNode(
            package="siamcar_ros",
            executable="tracker_node",
            name=LaunchConfiguration("name"),
            namespace=LaunchConfiguration("namespace"),
            parameters=[
                ParameterFile(LaunchConfiguration("params_file"), allow_substs=True),
                given,
            ],
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("camera_info", LaunchConfiguration("camera_info")),
            ],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            additional_env=profile_environment(context),
            output="screen",
            emulate_tty=True,
        )
    ]


def start_rviz(context: LaunchContext) -> list[Node]:
    """RViz on the node's topics."""
    name = LaunchConfiguration("name")
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=LaunchConfiguration("namespace"),
            arguments=[
                "-d",
                LaunchConfiguration("rviz_config"),
                "-f",
                LaunchConfiguration("fixed_frame"),
            ],
            # The configuration names the topics of a node /tracker.
            remappings=[
                ("/tracker/debug_image", [name, "/debug_image"]),
                ("/tracker/markers", [name, "/markers"]),
            ],
            additional_env=profile_environment(context),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    description = LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=start_tracker),
            OpaqueFunction(function=start_rviz, condition=IfCondition(LaunchConfiguration("rviz"))),
        ]
    )
    return with_checked_arguments(description)
