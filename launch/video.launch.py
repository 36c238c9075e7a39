"""The tracker on a video file, a camera, a stream, a folder of images or the film that ships.

ros2 launch siamcar_ros video.launch.py source:=film.mp4 init:=412,230,60,80 rviz:=true

The first frame is published when the tracker is active, and the next ones when it has been started
on the target that `init` names. Takes the arguments of tracker.launch.py as well.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from siamcar_ros.ros.launching import end_all, is_true, node_environment, with_checked_arguments

ARGUMENTS = [
    DeclareLaunchArgument(
        "source",
        default_value="clip",
        description="Video file, sequence folder, camera number or device, stream (rtsp://...,"
        " http://...), or clip, which ships",
    ),
    DeclareLaunchArgument(
        "init",
        default_value="auto",
        description="Target to track from the first frame on: x,y,w,h in its pixels, ground_truth,"
        " draw (in a window), or none; auto: the ground truth if the source has one, else none",
    ),
    DeclareLaunchArgument(
        "rate", default_value="0.0", description="Frames per second; 0.0 is the source's rate"
    ),
    DeclareLaunchArgument("loop", default_value="false", description="Start again at the end"),
    DeclareLaunchArgument(
        "shutdown_at_end", default_value="true", description="End the launch when the source ends"
    ),
]


def start_source(context: LaunchContext) -> list[Node]:
    """The node that publishes the source's frames; its end ends the launch, if that is wanted."""
    init = LaunchConfiguration("init").perform(context)
    source = Node(
        package="siamcar_ros",
        executable="frame_source",
        name="frame_source",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {
                # A camera's number is text, too.
                "source": ParameterValue(LaunchConfiguration("source"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "loop": ParameterValue(LaunchConfiguration("loop"), value_type=bool),
                "frame_id": ParameterValue(LaunchConfiguration("fixed_frame"), value_type=str),
                "image_transport": "both",
                "init": ParameterValue("" if init == "none" else init, value_type=str),
                "tracker": ParameterValue(LaunchConfiguration("name"), value_type=str),
                "wait_for_subscriber": True,
            }
        ],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("camera_info", LaunchConfiguration("camera_info")),
        ],
        additional_env=node_environment(context),
        output="screen",
        emulate_tty=True,
        on_exit=end_all("the source") if is_true(context, "shutdown_at_end") else None,
    )
    return [source]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    tracker = PathJoinSubstitution([FindPackageShare("siamcar_ros"), "launch", "tracker.launch.py"])
    description = LaunchDescription(
        [
            *ARGUMENTS,
            # First: it declares the arguments of both.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(tracker),
                launch_arguments={"required": "true"}.items(),
            ),
            OpaqueFunction(function=start_source),
        ]
    )
    types = {"rate": float, "loop": bool, "shutdown_at_end": bool}
    return with_checked_arguments(description, types)
