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
    end_all,
    given_parameters,
    included,
    is_true,
    node_options,
    with_checked_arguments,
)

# Arguments that set a parameter of the source. A camera's number is text, too.
PARAMETERS = {"source": str, "rate": float, "loop": bool}

ARGUMENTS = arguments(
    source=(
        "clip",
        "Video file, sequence folder, camera number or device, stream (rtsp://..., http://...), or"
        " clip, which ships",
    ),
    init=(
        "auto",
        "Target to track from the first frame on: x,y,w,h in its pixels, ground_truth, draw (in a"
        " window), or none; auto: the ground truth if the source has one, else none",
    ),
    rate=("0.0", "Frames per second; 0.0 is the source's rate"),
    loop=("false", "Start again at the end"),
    shutdown_at_end=("true", "End the launch when the source ends"),
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
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("camera_info", LaunchConfiguration("camera_info")),
            ],
            on_exit=end_all("the source") if is_true(context, "shutdown_at_end") else None,
            **node_options(context),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the launch description."""
    description = LaunchDescription(
        [
            *ARGUMENTS,
            # Included first, as it declares arguments that start_source reads.
            included("tracker.launch.py", required="true"),
            OpaqueFunction(function=start_source),
        ]
    )
    return with_checked_arguments(description, PARAMETERS | {"shutdown_at_end": bool})
