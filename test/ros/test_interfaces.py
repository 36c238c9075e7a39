"""The messages that are spoken: what others must agree with, field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from siamcar_ros.bags.messages import typestore

packages = pytest.importorskip("ament_index_python.packages")

VISION_MSGS = [name for name in typestore().fielddefs if name.startswith("vision_msgs/")]


def share(package: str) -> Path:
    try:
        return Path(packages.get_package_share_directory(package))
    except packages.PackageNotFoundError:
        pytest.skip(f"{package} is not built: source tools/env.sh")


def description(package: str, kind: str, name: str) -> dict[str, Any]:
    file = share(package) / kind / f"{name}.json"
    if not file.is_file():
        pytest.skip("this ROS distribution builds no type descriptions")
    described: dict[str, Any] = json.loads(file.read_text())
    return described


def fields(described: dict[str, Any]) -> list[str]:
    return [each["name"] for each in described["type_description"]["fields"]]


@pytest.mark.parametrize("name", VISION_MSGS)
def test_vision_msgs_are_those_of_bags(name: str) -> None:
    """test/bags compares the hashes of these with the released ones."""
    described = description(*name.split("/"))
    hashes = {each["type_name"]: each["hash_string"] for each in described["type_hashes"]}
    assert hashes[name] == typestore().hash_rihs01(name)


def test_init_target_request_and_response() -> None:
    from siamcar_ros.srv import InitTarget

    assert list(InitTarget.Request.get_fields_and_field_types().items()) == [
        ("header", "std_msgs/Header"),
        ("bbox", "vision_msgs/BoundingBox2D"),
        ("id", "string"),
        ("class_id", "string"),
    ]
    assert list(InitTarget.Response.get_fields_and_field_types().items()) == [
        ("success", "boolean"),
        ("message", "string"),
        ("id", "string"),
        ("bbox", "vision_msgs/BoundingBox2D"),
    ]


def test_track_target_takes_what_init_target_takes() -> None:
    from siamcar_ros.action import TrackTarget
    from siamcar_ros.srv import InitTarget

    goal = TrackTarget.Goal.get_fields_and_field_types()
    assert goal.pop("lost_timeout") == "double"
    assert goal == InitTarget.Request.get_fields_and_field_types()
    outcomes = [TrackTarget.Result.STOPPED, TrackTarget.Result.LOST]
    outcomes += [TrackTarget.Result.REPLACED, TrackTarget.Result.REFUSED]
    assert outcomes == [0, 1, 2, 3]


def test_track_status_names_the_states() -> None:
    from siamcar_ros.msg import TrackStatus

    states = [TrackStatus.IDLE, TrackStatus.TRACKING, TrackStatus.UNCERTAIN, TrackStatus.LOST]
    assert states == [0, 1, 2, 3]


def test_track_status_survives_serialization() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    from siamcar_ros.msg import TrackStatus

    status = TrackStatus(state=TrackStatus.LOST, targets=2, frames_received=2**40)
    status.header.frame_id = "camera"
    assert deserialize_message(serialize_message(status), TrackStatus) == status


def test_interfaces_are_found_beside_the_handwritten_modules() -> None:
    import siamcar_ros.msg
    import siamcar_ros.resources

    assert siamcar_ros.resources.resource_path("config/networks/compact.yaml").is_file()
    assert hasattr(siamcar_ros.msg, "TrackStatus")
