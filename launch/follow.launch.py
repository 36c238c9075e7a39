"""A simulated camera on a pan-tilt mount follows a car: tracker, controller and simulation.

ros2 launch siamcar_ros follow.launch.py report:=follow_output

Takes the arguments of tracker.launch.py as well. It ends with the simulation.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from siamcar_ros.ros.launching import end_all, node_environment, with_checked_arguments

ARGUMENTS = [
    DeclareLaunchArgument(
        "report",
        default_value="follow_output",
        description="Folder for follow.png, .mp4 and .json; empty: none",
    ),
    DeclareLaunchArgument("rate", default_value="30.0", description="Frames per second"),
    DeclareLaunchArgument(
        "duration", default_value="26.0", description="Seconds; the car is hidden once in 26"
    ),
]


def start_loop(context: LaunchContext) -> list[Node]:
    """The simulation, and the controller that turns its camera."""
    space, tracker = LaunchConfiguration("namespace"), LaunchConfiguration("name")
    common = {
        "package": "siamcar_ros",
        "namespace": space,
        "additional_env": node_environment(context),
        "output": "screen",
        "emulate_tty": True,
    }
    controller = Node(
        executable="pan_tilt_controller",
        name="pan_tilt_controller",
        parameters=[{"tracker": tracker, "pan_joint": "pan", "tilt_joint": "tilt"}],
        on_exit=end_all("the controller"),
        **common,
    )
    simulation = Node(
        executable="pan_tilt_simulation",
        name="pan_tilt_simulation",
        parameters=[
            {
                "tracker": tracker,
                "report": ParameterValue(LaunchConfiguration("report"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "duration": ParameterValue(LaunchConfiguration("duration"), value_type=float),
            }
        ],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("camera_info", LaunchConfiguration("camera_info")),
            ("rates", "pan_tilt_controller/rates"),
        ],
        on_exit=end_all("the simulation"),
        **common,
    )
    return [controller, simulation]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    tracker = PathJoinSubstitution([FindPackageShare("siamcar_ros"), "launch", "tracker.launch.py"])
    description = LaunchDescription(
        [
            *ARGUMENTS,
            # Included first, as it declares arguments that start_loop reads.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(tracker),
                launch_arguments={"required": "true"}.items(),
            ),
            OpaqueFunction(function=start_loop),
        ]
    )
    return with_checked_arguments(description, {"rate": float, "duration": float})
