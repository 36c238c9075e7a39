"""The tracker on a camera's images, with RViz and the operator's page if wanted.

ros2 launch siamcar_ros tracker.launch.py                   # on /camera/image_raw
ros2 launch siamcar_ros tracker.launch.py namespace:=left   # on /left/camera/image_raw
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

from siamcar_ros.ros.launching import (
    end_all,
    is_true,
    node_environment,
    profile_argument,
    require_executable,
    required_argument,
    with_checked_arguments,
)

SHARE = FindPackageShare("siamcar_ros")

# Arguments that set a parameter of the node; an empty one leaves it as the parameter file says.
PARAMETERS: dict[str, tuple[type, str]] = {
    "config": (str, "Network: a name in config/networks or a YAML file of your own"),
    "weights": (str, "Weights file, instead of the one that the config names"),
    "device": (str, "Where the network runs: auto, cpu, cuda or cuda:N"),
    "image_transport": (
        str,
        "raw; or compressed, ffmpeg, foxglove: IMAGE/compressed ...",
    ),
    "qos_reliability": (str, "Requested from the camera: auto, reliable or best_effort"),
    "use_detections": (bool, "Subscribe to a detector's boxes"),
    "max_targets": (int, "Largest number of targets tracked at a time"),
    "autostart": (bool, "Configure and activate at the start; false waits for a lifecycle manager"),
    "use_sim_time": (bool, "Take the time from /clock"),
}

FLAGS = {"rviz": bool, "required": bool, "console": bool, "console_port": int}

ARGUMENTS = [
    DeclareLaunchArgument(
        "image", default_value="camera/image_raw", description="Image topic, in the namespace"
    ),
    DeclareLaunchArgument(
        "camera_info", default_value="camera/camera_info", description="CameraInfo topic, likewise"
    ),
    DeclareLaunchArgument(
        "detections", default_value="detections", description="Detection2DArray topic, likewise"
    ),
    DeclareLaunchArgument(
        "namespace",
        default_value="",
        description="Namespace of the node, and of its topics without a leading slash",
    ),
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
    required_argument(__file__),
    DeclareLaunchArgument("rviz", default_value="false", description="Start RViz as well"),
    DeclareLaunchArgument(
        "rviz_config",
        default_value=PathJoinSubstitution([SHARE, "config", "rviz", "tracker.rviz"]),
        description="RViz's configuration",
    ),
    DeclareLaunchArgument(
        "fixed_frame", default_value="camera", description="RViz's fixed frame: the images' frame"
    ),
    DeclareLaunchArgument(
        "console", default_value="false", description="Serve the operator's page (docs/console.md)"
    ),
    DeclareLaunchArgument(
        "console_host",
        default_value="127.0.0.1",
        description="Address of the page; 0.0.0.0 lets other machines connect, with a token",
    ),
    DeclareLaunchArgument("console_port", default_value="8484", description="Port of the page"),
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
                ("detections", LaunchConfiguration("detections")),
            ],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            additional_env=node_environment(context),
            output="screen",
            emulate_tty=True,
            on_exit=end_all("the tracker") if is_true(context, "required") else None,
        )
    ]


def start_rviz(context: LaunchContext) -> list[Node]:
    """RViz on the node's topics, if it is wanted."""
    if not is_true(context, "rviz"):
        return []
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
                ("/tracker/detections_3d", [name, "/detections_3d"]),
            ],
            additional_env=node_environment(context),
        )
    ]


def start_console(context: LaunchContext) -> list[Node]:
    """The operator's page, which finds the trackers by itself, if it is wanted."""
    if not is_true(context, "console"):
        return []
    host, port = LaunchConfiguration("console_host"), LaunchConfiguration("console_port")
    return [
        Node(
            package="siamcar_ros",
            executable="operator_console",
            namespace=LaunchConfiguration("namespace"),
            parameters=[
                {
                    "host": ParameterValue(host, value_type=str),
                    "port": ParameterValue(port, value_type=int),
                }
            ],
            additional_env=node_environment(context),
            output="screen",
            emulate_tty=True,
        )
    ]


def check(context: LaunchContext) -> None:
    """What the nodes need is there."""
    if is_true(context, "rviz"):
        require_executable("rviz2", "rviz2", "install it (ros-<distro>-rviz2) or give rviz:=false")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    description = LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=start_tracker),
            OpaqueFunction(function=start_rviz),
            OpaqueFunction(function=start_console),
        ]
    )
    types = {name: kind for name, (kind, _) in PARAMETERS.items() if kind is not str}
    return with_checked_arguments(description, types | FLAGS, check)
