"""The launch files, where launch_ros is installed: what they declare and what they would start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

# Not "launch": the folder of launch files answers to that name.
pytest.importorskip("launch_ros", reason="launch_ros comes with a ROS installation only")

from launch import LaunchContext, LaunchDescription
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from launch_ros.actions import Node
from launch_ros.utilities import evaluate_parameters

LAUNCH = Path(__file__).parent.parent / "launch"
FILES = sorted(LAUNCH.glob("*.launch.py"))


def read(name: str) -> LaunchDescription:
    return get_launch_description_from_python_launch_file(str(LAUNCH / f"{name}.launch.py"))


def nodes(name: str, arguments: dict[str, str]) -> tuple[LaunchContext, list[Node]]:
    """The nodes that would start, with the context in which their substitutions are performed."""
    context = LaunchContext(argv=[])
    context.launch_configurations.update(arguments)
    started: list[Node] = []

    def visit(entity: Any) -> None:
        if isinstance(entity, Node):
            if entity.condition is None or entity.condition.evaluate(context):
                started.append(entity)
            return
        if getattr(entity, "condition", None) and not entity.condition.evaluate(context):
            return
        for child in entity.visit(context) or []:
            visit(child)

    visit(read(name))
    return context, started


def remappings(node: Node, context: LaunchContext) -> dict[str, str]:
    return {
        perform_substitutions(context, list(source)): perform_substitutions(context, list(target))
        for source, target in node._Node__remappings
    }


def parameters(node: Node, context: LaunchContext) -> dict[str, Any]:
    """The parameters given as values, not those of the file."""
    given: dict[str, Any] = {}
    for each in evaluate_parameters(context, node._Node__parameters):
        if isinstance(each, dict):
            given |= each
    return given


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_argument_is_described(file: Path) -> None:
    description = get_launch_description_from_python_launch_file(str(file))
    arguments = description.get_launch_arguments()
    assert arguments
    for argument in arguments:
        assert argument.description != "no description given", argument.name


def test_tracker_alone_by_default() -> None:
    context, started = nodes("tracker", {})
    assert [each.node_executable for each in started] == ["tracker_node"]
    assert remappings(started[0], context) == {
        "image": "/camera/image",
        "camera_info": "/camera/camera_info",
    }
    assert parameters(started[0], context) == {}


def test_arguments_become_parameters_of_their_own_type() -> None:
    given = {"device": "cpu", "max_targets": "3", "autostart": "false", "image": "/front/image"}
    context, (tracker,) = nodes("tracker", given)
    assert parameters(tracker, context) == {"device": "cpu", "max_targets": 3, "autostart": False}
    assert remappings(tracker, context)["image"] == "/front/image"


def test_rviz_follows_the_name_of_the_node() -> None:
    context, (_, rviz) = nodes("tracker", {"rviz": "true", "name": "left_tracker"})
    assert rviz.node_executable == "rviz2"
    assert remappings(rviz, context)["/tracker/debug_image"] == "left_tracker/debug_image"


def test_the_profile_of_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/etc/own.xml")
    context, _ = nodes("tracker", {})
    assert context.environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/etc/own.xml"


def test_the_shipped_profile_is_set_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    context, _ = nodes("tracker", {})
    profile = Path(context.environment["FASTRTPS_DEFAULT_PROFILES_FILE"])
    assert profile.name == "shared_memory.xml"
    assert profile.is_file()


def test_video_starts_source_and_tracker_on_the_same_topic() -> None:
    context, started = nodes("video", {"source": "0", "image": "/desk/image"})
    by_name = {each.node_executable: each for each in started}
    assert set(by_name) == {"tracker_node", "frame_source"}
    assert {remappings(each, context)["image"] for each in started} == {"/desk/image"}
    # A camera's number stays text: the parameter is a string.
    assert parameters(by_name["frame_source"], context)["source"] == "0"
