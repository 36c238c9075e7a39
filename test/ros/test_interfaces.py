"""The messages that are spoken: what others must agree with, field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

packages = pytest.importorskip("ament_index_python.packages")

# The type hashes of the released vision_msgs 4.1.1: a message with another hash is another message.
VISION_MSGS = {
    "Point2D": "eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247",
    "Pose2D": "b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648",
    "BoundingBox2D": "008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f",
    "ObjectHypothesis": "51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90",
    "ObjectHypothesisWithPose": "41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc",
    "Detection2D": "0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea",
    "Detection2DArray": "214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
}


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
def test_vision_msgs_hash(name: str) -> None:
    described = description("vision_msgs", "msg", name)
    hashes = {each["type_name"]: each["hash_string"] for each in described["type_hashes"]}
    assert hashes[f"vision_msgs/msg/{name}"] == f"RIHS01_{VISION_MSGS[name]}"


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


def test_interfaces_are_found_beside_the_handwritten_modules() -> None:
    import siamcar_ros.msg
    import siamcar_ros.resources

    assert siamcar_ros.resources.resource_path("config/networks/compact.yaml").is_file()
    assert hasattr(siamcar_ros.msg, "TrackStatus")
