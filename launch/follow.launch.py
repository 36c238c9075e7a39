"""A simulated camera on a pan-tilt mount follows a car: tracker, controller and simulation.

ros2 launch siamcar_ros follow.launch.py report:=follow_output

Takes the arguments of tracker.launch.py as well. It ends with the simulation.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from siamcar_ros.ros.launching import (
    arguments,
    checked_launch,
    end_all,
    given_parameters,
    included,
    node_options,
    remapped,
)

# Parameters of the simulation.
PARAMETERS = arguments(
    report=("follow_output", "Folder for follow.png, .mp4 and .json; empty: none"),
    rate=("30.0", "Frames per second", float),
    duration=("26.0", "Seconds; the car is hidden once in 26", float),
)


def start_loop(context: LaunchContext) -> list[Node]:
    """Start the simulation, and the controller that turns its camera."""
    tracker = {"tracker": LaunchConfiguration("name")}
    controller = Node(
        executable="pan_tilt_controller",
        name="pan_tilt_controller",
        parameters=[tracker | {"pan_joint": "pan", "tilt_joint": "tilt"}],
        on_exit=end_all("the controller"),
        **node_options(context),
    )
    simulation = Node(
        executable="pan_tilt_simulation",
        name="pan_tilt_simulation",
        parameters=[tracker | given_parameters(context, PARAMETERS)],
        remappings=[*remapped("image", "camera_info"), ("rates", "pan_tilt_controller/rates")],
        on_exit=end_all("the simulation"),
        **node_options(context),
    )
    return [controller, simulation]


def generate_launch_description() -> LaunchDescription:
    return checked_launch(
        *PARAMETERS,
        # Included first, as it declares arguments that start_loop reads.
        included("tracker.launch.py", required="true"),
        OpaqueFunction(function=start_loop),
    )
