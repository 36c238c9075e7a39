"""The tracker on a video file, a camera, a stream, a folder of images or the film that ships.

ros2 launch siamcar_ros video.launch.py source:=film.mp4 init:=412,230,60,80 rviz:=true

The first frame is published when the tracker is active, and the next ones when it has been started
on the target that `init` names. Takes the arguments of tracker.launch.py as well.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from siamcar_ros.ros.launching import (
    arguments,
    checked_launch,
    end_all,
    given_parameters,
    included,
    is_true,
    node_options,
    remapped,
)

# Parameters of the source. A camera's number is text, too.
PARAMETERS = arguments(
    source=(
        "clip",
        "Video file, sequence folder, camera number or device, stream (rtsp://..., http://...), or"
        " clip, which ships",
    ),
    rate=("0.0", "Frames per second; 0.0 is the source's rate", float),
    loop=("false", "Start again at the end", bool),
)

ARGUMENTS = arguments(
    init=(
        "auto",
        "Target to track from the first frame on: x,y,w,h in its pixels, ground_truth, draw (in a"
        " window), or none; auto: the ground truth if the source has one, else none",
    ),
    shutdown_at_end=("true", "End the launch when the source ends", bool),
)


def start_source(context: LaunchContext) -> list[Node]:
    """Start the node that publishes the frames; with `shutdown_at_end` the launch ends with it."""
    init = LaunchConfiguration("init").perform(context)
    return [
        Node(
            executable="frame_source",
            name="frame_source",
            parameters=[
                given_parameters(context, PARAMETERS),
                {
                    "frame_id": ParameterValue(LaunchConfiguration("fixed_frame"), value_type=str),
                    "image_transport": "both",
                    "init": ParameterValue("" if init == "none" else init, value_type=str),
                    "tracker": ParameterValue(LaunchConfiguration("name"), value_type=str),
                    "wait_for_subscriber": True,
                },
            ],
            remappings=remapped("image", "camera_info"),
            on_exit=end_all("the source") if is_true(context, "shutdown_at_end") else None,
            **node_options(context),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    return checked_launch(
        *PARAMETERS,
        *ARGUMENTS,
        # Included first, as it declares arguments that start_source reads.
        included("tracker.launch.py", required="true"),
        OpaqueFunction(function=start_source),
    )
