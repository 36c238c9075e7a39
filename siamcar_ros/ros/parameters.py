"""The node's parameters: one table that declares, checks and documents them.

`python -m siamcar_ros.ros.parameters` prints the table as Markdown (needs no ROS).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamcar_ros.data.image_messages import ImageDecoder
from siamcar_ros.options import check_choice, parse_numbers, setting
from siamcar_ros.runtime import BACKENDS, PRECISIONS
from siamcar_ros.tracking.interface import TrackerParams

if TYPE_CHECKING:
    from rclpy.node import Node

Value = bool | int | float | str

TRANSPORTS = ("raw", "compressed", "ffmpeg", "foxglove")
_LONGEST_NAME = 256


def _fixed(default: Value, description: str, **limits: Any) -> Any:
    """A parameter that is set at the start and read-only from then on."""
    return setting(default, description, read_only=True, **limits)


@dataclass(frozen=True)
class NodeSettings(TrackerParams):
    """The values of all parameters at one moment; the metadata of its fields declares them.

    The tracker's knobs are live, and their defaults come from the network's config.
    """

    autostart: bool = _fixed(
        True, "Configure and activate at the start; false waits for a lifecycle manager."
    )
    config: str = _fixed(
        "compact", "Network: a name in config/networks (compact, resnet50, ...) or a YAML file."
    )
    weights: str = _fixed("", "Weights file; empty takes the one that the config names.")
    device: str = _fixed("auto", "Where the network runs: auto, cpu, cuda or cuda:N.")
    backend: str = _fixed(
        "auto", "What runs the network; auto takes the fastest.", choices=("auto", *BACKENDS)
    )
    precision: str = _fixed(
        "auto",
        "Arithmetic of the network; auto takes the fastest.",
        choices=("auto", *PRECISIONS),
    )
    threads: int = _fixed(
        0, "CPU threads of the network; 0 lets the backend choose.", range=(0, 256)
    )
    max_targets: int = _fixed(1, "Largest number of targets tracked at a time.", range=(1, 64))
    image_transport: str = _fixed(
        "raw",
        "Subscribe to `image` (raw), `image/compressed`, `image/ffmpeg` or `image/foxglove`; the "
        "last two carry H.264, H.265, AV1 or VP9.",
        choices=TRANSPORTS,
    )
    use_detections: bool = _fixed(
        False,
        "Subscribe to `detections`: a point takes the detection that contains it, a lost target "
        "is searched for in them (with redetect and search_regions), and `start_class` starts "
        "targets.",
    )
    qos_reliability: str = _fixed(
        "auto",
        "Reliability requested from the image publisher; auto requests reliable, and best effort "
        "if the publisher offers no more.",
        choices=("auto", "reliable", "best_effort"),
    )
    image_depth: str = _fixed(
        "auto",
        "How 16-bit images are scaled to 8 bits: auto (from the significant bits), bits:N, "
        "percentile, percentile:LOW,HIGH or range:LOW,HIGH.",
    )
    max_megapixels: int = _fixed(
        100,
        "Compressed images with more pixels are refused before they are decompressed.",
        range=(1, 1000),
    )
    annotations: bool = _fixed(
        False, "Publish ~/annotations for Foxglove; needs the package foxglove_msgs."
    )
    events_executor: bool = _fixed(False, "Spin with rclpy's experimental EventsExecutor.")

    class_id: str = setting("target", "hypothesis.class_id of the published detections.")
    start_class: str = setting(
        "",
        "With use_detections: while fewer than max_targets are tracked and none is lost, start the "
        "best detection of this class; empty starts none.",
    )
    start_score: float = setting(0.5, "Minimum score of such a detection.", range=(0.0, 1.0))
    ring_seconds: float = setting(
        10.0,
        "Seconds for which images are kept, so that a box or a point can refer to a past one.",
        range=(0.0, 600.0),
    )
    ring_memory_mb: int = setting(
        1000,
        "Memory for these images in MB, at most a quarter of what is free at the start; the newest "
        "image is always kept.",
        range=(1, 65536),
    )
    time_jump: float = setting(
        1.0,
        "Seconds by which the stamp of an image may run ahead of 20 times the real time since the "
        "image before it. A single image that is further ahead, or that goes back, is dropped; "
        "three in a row are a jump, and one that goes back (a bag that starts over) stops the "
        "tracks.",
        range=(0.0, 3600.0),
    )
    max_failures: int = setting(
        10, "Tracker errors in a row after which the tracks are stopped.", range=(1, 100000)
    )
    image_timeout: float = setting(
        2.0,
        "Seconds without an image after which diagnostics warn and no target is started.",
        range=(0.1, 3600.0),
    )
    status_rate: float = setting(
        1.0,
        "Rate of diagnostics, and of ~/status while nothing is tracked, in Hz.",
        range=(0.1, 50.0),
    )
    debug_rate: float = setting(
        30.0, "Maximum rate of ~/debug_image in Hz; 0 is unlimited.", range=(0.0, 1000.0)
    )
    debug_scale: float = setting(
        1.0, "Size of ~/debug_image relative to the camera's image.", range=(0.05, 1.0)
    )
    marker_depth: float = setting(
        5.0, "Length of the target's frustum in meters.", range=(0.01, 10000.0)
    )
    image_rectified: bool = setting(
        False, "Images are rectified: rays use P of camera_info instead of K, D and R."
    )

    depth: str = _fixed(
        "",
        "Topic of depth images registered to the camera (16UC1 in mm, 32FC1 in m), for "
        "~/detections_3d; empty: none.",
    )
    depth_slop: float = setting(
        0.02,
        "Seconds by which the stamps of an image and its depth image may differ.",
        range=(0.0, 1.0),
    )
    target_height: float = setting(
        0.0,
        "Height of the targets in meters, from which their distance follows where depth does not "
        "give it; 0: unknown.",
        range=(0.0, 1000.0),
    )
    ground_plane: str = setting(
        "",
        "The ground in the camera's optical frame, for distances where nothing else gives one: "
        "NX,NY,NZ,D with N p = D for its points p in meters (0,1,0,1.2: a level camera 1.2 m above "
        "it); empty: unknown.",
    )
    target_tf: bool = _fixed(
        False, "Publish a frame target_ID on /tf for each target of ~/detections_3d."
    )
    camera_rates: str = _fixed(
        "",
        "Topic of the camera's angular velocity; a target is then searched for where the camera's "
        "turn has moved it. Empty: none.",
    )
    camera_rates_type: str = _fixed(
        "imu",
        "Type of camera_rates: imu (sensor_msgs/Imu) or vector (geometry_msgs/Vector3Stamped, "
        "rad/s).",
        choices=("imu", "vector"),
    )
    camera_rates_rpy: str = _fixed(
        "",
        "ROLL,PITCH,YAW of the camera's optical frame in the frame of camera_rates, in radians as "
        "in URDF; empty: from /tf_static.",
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            if choices := each.metadata.get("choices"):
                check_choice(each.name, getattr(self, each.name), choices)
        checked_name("class_id", self.class_id)
        checked_name("start_class", self.start_class)
        ImageDecoder(self.image_depth)  # raises ValueError
        if self.annotations and find_spec("foxglove_msgs") is None:
            raise ValueError(
                "annotations needs foxglove_msgs, which is not installed: "
                "sudo apt install ros-$ROS_DISTRO-foxglove-msgs"
            )
        plane = numbers("ground_plane", self.ground_plane, 4)
        if plane and not (any(plane[:3]) and plane[3]):
            raise ValueError("ground_plane needs a normal and a distance that are not zero")
        numbers("camera_rates_rpy", self.camera_rates_rpy, 3)
        super().__post_init__()

    @property
    def tracker(self) -> TrackerParams:
        """The tracker's knobs among the parameters."""
        return TrackerParams(**{name: getattr(self, name) for name in TrackerParams.names()})

    def changed(self, values: Mapping[str, Any]) -> NodeSettings:
        """Return these settings with some values replaced; unknown names are ignored."""
        known = {each.name for each in fields(self)}
        return replace(self, **{name: value for name, value in values.items() if name in known})


def declare(node: Node) -> NodeSettings:
    """Declare all parameters on `node` and return their values, overrides included."""
    from siamcar_ros.ros.command_line import parameter_descriptor
    from siamcar_ros.tracking import read_config

    def declared(name: str, default: Value) -> Any:
        described = parameter_descriptor(**NodeSettings.__dataclass_fields__[name].metadata)
        return node.declare_parameter(name, default, described).value

    defaults = dict(vars(NodeSettings()))
    # First, because the config holds the defaults of the tracker's knobs.
    values = {name: declared(name, defaults[name]) for name in ("config", "weights")}
    defaults |= vars(read_config(values["config"], weights_file(values["weights"])).params)
    others = (name for name in defaults if name not in values)
    return NodeSettings(**values, **{name: declared(name, defaults[name]) for name in others})


def checked_name(what: str, text: str) -> str:
    """Return `text` if it is at most 256 bytes of printable characters.

    Raises ValueError otherwise: names are logged, drawn, and sent with every frame.
    """
    size = len(text.encode())
    if size > _LONGEST_NAME:
        raise ValueError(f"{what} has {size} bytes, more than the limit of {_LONGEST_NAME}")
    if not text.isprintable():
        raise ValueError(f"{what} {text!r} contains characters that cannot be printed")
    return text


def numbers(what: str, text: str, count: int) -> tuple[float, ...]:
    """Return the numbers of a parameter that may be empty; none if it is."""
    return parse_numbers(what, text, count) if text.strip() else ()


def weights_file(text: str) -> Path | None:
    """Return the parameter `weights` as a path; None if it is empty."""
    return Path(text).expanduser() if text else None


def markdown() -> str:
    """Return all parameters as a Markdown table."""
    rows = [
        "| parameter | default | allowed | changes at run time | what it does |",
        "|---" * 5 + "|",
    ]
    knobs = TrackerParams.names()
    for each in sorted(fields(NodeSettings), key=lambda each: each.name in knobs):
        meta = each.metadata
        default = "from config" if each.name in knobs else _literal(each.default)
        change = "no" if meta.get("read_only") else "yes"
        rows.append(
            f"| `{each.name}` | {default} | {_limits_text(meta)} | {change} "
            f"| {meta['description']} |"
        )
    return "\n".join(rows)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else "empty"


def _limits_text(meta: Mapping[str, Any]) -> str:
    if "choices" in meta:
        return ", ".join(meta["choices"])
    if "range" in meta:
        return f"{meta['range'][0]:g} to {meta['range'][1]:g}"
    return ""


if __name__ == "__main__":
    print(markdown())
