"""The tracker on a camera's images, with RViz and the operator's page if wanted.

ros2 launch siamcar_ros tracker.launch.py                   # on /camera/image_raw
ros2 launch siamcar_ros tracker.launch.py namespace:=left   # on /left/camera/image_raw
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch.utilities.type_utils import coerce_to_type
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

from siamcar_ros.ros.launching import (
    arguments,
    checked_launch,
    common_arguments,
    end_all,
    expanded_path,
    given_parameters,
    is_true,
    node_environment,
    node_options,
    remapped,
    require_executable,
)

SHARE = FindPackageShare("siamcar_ros")

# Each sets the parameter of the same name; if it is empty, the parameter file does.
PARAMETERS = arguments(
    config=("", "Network: a name in config/networks or a YAML file of your own"),
    weights=("", "Weights file, instead of the one that the config names"),
    device=("", "Where the network runs: auto, cpu, cuda or cuda:N"),
    image_transport=("", "raw; or compressed, ffmpeg, foxglove: IMAGE/compressed ..."),
    qos_reliability=("", "Requested from the camera: auto, reliable or best_effort"),
    use_detections=("", "Subscribe to a detector's boxes", bool),
    annotations=("", "Publish NAME/annotations for Foxglove; needs foxglove_msgs", bool),
    max_targets=("", "Largest number of targets tracked at a time", int),
    autostart=("", "Configure and activate at the start; else a lifecycle manager does it", bool),
    use_sim_time=("", "Take the time from /clock", bool),
)

ARGUMENTS = [
    *arguments(
        image=("camera/image_raw", "Image topic, in the namespace"),
        camera_info=("camera/camera_info", "CameraInfo topic, likewise"),
        detections=("detections", "Detection2DArray topic, likewise"),
        namespace=("", "Namespace of the node, and of its topics without a leading slash"),
        name=("tracker", "Name of the node"),
        params_file=(
            PathJoinSubstitution([SHARE, "config", "tracker.yaml"]),
            "Parameters of the node; those that are given as arguments override it",
        ),
    ),
    *PARAMETERS,
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Logger's level",
    ),
    *common_arguments(__file__),
    *arguments(
        rviz=("false", "Start RViz as well", bool),
        rviz_config=(
            PathJoinSubstitution([SHARE, "config", "rviz", "tracker.rviz"]),
            "RViz's configuration",
        ),
        fixed_frame=("camera", "RViz's fixed frame: the images' frame"),
        console=("false", "Serve the operator's page (docs/console.md)", bool),
        console_host=(
            "127.0.0.1",
            "Address of the page; 0.0.0.0 lets other machines connect, with a token",
        ),
        console_port=("8484", "Port of the page", int),
    ),
]


def start_tracker(context: LaunchContext) -> list[LifecycleNode]:
    """Start the node; parameters given as arguments override those of the file."""
    return [
        LifecycleNode(
            executable="tracker_node",
            name=LaunchConfiguration("name"),
            parameters=[
                ParameterFile(expanded_path(context, "params_file"), allow_substs=True),
                given_parameters(context, PARAMETERS),
            ],
            remappings=remapped("image", "camera_info", "detections"),
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            on_exit=end_all("the tracker") if is_true(context, "required") else None,
            **node_options(context),
        )
    ]


def start_rviz(context: LaunchContext) -> list[Node]:
    """Start RViz on the node's topics, with `rviz`."""
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
                expanded_path(context, "rviz_config"),
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
    """Serve the operator's page, which finds the trackers by itself, with `console`."""
    if not is_true(context, "console"):
        return []
    given = {}
    for key, kind in (("host", str), ("port", int)):
        value = LaunchConfiguration(f"console_{key}")
        if value.perform(context):
            given[key] = ParameterValue(value, value_type=kind)
    return [Node(executable="operator_console", parameters=[given], **node_options(context))]


def check(context: LaunchContext) -> None:
    """Refuse a port that is none, and to start RViz if it is not installed."""
    port = context.launch_configurations.get("console_port") or "8484"
    if not 0 < coerce_to_type(port, int) < 1 << 16:
        raise RuntimeError(f"console_port:={port} is not a port: give a number from 1 to 65535")
    if is_true(context, "rviz"):
        require_executable("rviz2", "rviz2", "install it (ros-<distro>-rviz2) or give rviz:=false")


def generate_launch_description() -> LaunchDescription:
    return checked_launch(
        *ARGUMENTS,
        OpaqueFunction(function=start_tracker),
        OpaqueFunction(function=start_rviz),
        OpaqueFunction(function=start_console),
        check=check,
    )
