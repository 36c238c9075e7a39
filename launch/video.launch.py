"""The tracker on a video file, a camera, a folder of images or the rendered clip.

ros2 launch siamcar_ros video.launch.py source:=film.mp4 rviz:=true

Takes the arguments of tracker.launch.py as well.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from siamcar_ros.ros.launching import (
    end_all,
    is_tracker,
    profile_environment,
    with_checked_arguments,
)

ARGUMENTS = [
    DeclareLaunchArgument(
        "source",
        default_value="clip",
        description="Video file, camera number or device, sequence folder, or clip (rendered)",
    ),
    DeclareLaunchArgument(
        "rate", default_value="0.0", description="Frames a second; 0.0 takes the source's own"
    ),
    DeclareLaunchArgument("loop", default_value="false", description="Start again at the end"),
    DeclareLaunchArgument(
        "shutdown_at_end", default_value="true", description="End all when the source ends"
    ),
]


def start_source(context: LaunchContext) -> list[Node]:
    """The node that publishes the source's frames; its end is the end of all, if so wanted."""
    ending = IfCondition(LaunchConfiguration("shutdown_at_end")).evaluate(context)
    source = Node(
        package="siamcar_ros",
        executable="frame_source",
        name="frame_source",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {
                # A camera is given by its number, yet as text.
                "source": ParameterValue(LaunchConfiguration("source"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "loop": ParameterValue(LaunchConfiguration("loop"), value_type=bool),
                "frame_id": ParameterValue(LaunchConfiguration("fixed_frame"), value_type=str),
                "image_transport": "both",
                "wait_for_subscriber": True,
            }
        ],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("camera_info", LaunchConfiguration("camera_info")),
        ],
        additional_env=profile_environment(context),
        output="screen",
        emulate_tty=True,
        on_exit=end_all("the source has ended") if ending else None,
    )
    return [source]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    tracker = PathJoinSubstitution([FindPackageShare("siamcar_ros"), "launch", "tracker.launch.py"])
    description = LaunchDescription(
        [
            *ARGUMENTS,
            # First: it declares the arguments of both.
            IncludeLaunchDescription(PythonLaunchDescriptionSource(tracker)),
            RegisterEventHandler(
                OnProcessExit(target_action=is_tracker, on_exit=end_all("the tracker has ended"))
            ),
            OpaqueFunction(function=start_source),
        ]
    )
    return with_checked_arguments(description)
