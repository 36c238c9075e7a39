"""The launch files, where launch_ros is installed: what they declare and what they would start."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# Not "launch": the folder of launch files answers to that name.
pytest.importorskip("launch_ros", reason="launch_ros comes with a ROS installation only")

from launch import LaunchContext, LaunchDescription
from launch.actions import Shutdown
from launch.events.process import ProcessExited
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from launch_ros.actions import Node
from launch_ros.utilities import evaluate_parameters

from siamcar_ros.resources import FASTDDS_VARIABLES

LAUNCH = Path(__file__).parent.parent / "launch"
FILES = sorted(LAUNCH.glob("*.launch.py"))


def read(name: str) -> LaunchDescription:
    return get_launch_description_from_python_launch_file(str(LAUNCH / f"{name}.launch.py"))


def nodes(name: str, arguments: dict[str, str], *typed: str) -> tuple[LaunchContext, list[Node]]:
    """The nodes that would start, with the context in which their substitutions are performed."""
    context = LaunchContext(argv=typed)
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


def profiles(started: list[Node], context: LaunchContext) -> dict[str, dict[str, str]]:
    """What each node is told in its environment."""
    return {
        each.node_executable: {
            perform_substitutions(context, name): perform_substitutions(context, value)
            for name, value in each.additional_env or []
        }
        for each in started
    }


WITH_RVIZ = {"tracker_node", "rviz2"}


@pytest.mark.parametrize(
    ("name", "executables"),
    [
        ("tracker", WITH_RVIZ),
        ("video", WITH_RVIZ | {"frame_source"}),
        ("replay", WITH_RVIZ | {"evaluate_node"}),
    ],
)
def test_the_nodes_alone_get_the_profile_of_the_environment(
    name: str, executables: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FASTDDS_VARIABLES[0], raising=False)
    monkeypatch.setenv(FASTDDS_VARIABLES[1], "/etc/own.xml")
    context, started = nodes(name, {"rviz": "true", "bag": "drive"})
    told = profiles(started, context)
    for executable in executables:
        assert told[executable] == dict.fromkeys(FASTDDS_VARIABLES, "/etc/own.xml")
    assert FASTDDS_VARIABLES[0] not in context.environment


@pytest.mark.parametrize("room", [True, False])
def test_the_shipped_profile_is_set_where_it_has_room(
    room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=2**30 if room else 2**26)
    monkeypatch.setattr("siamcar_ros.resources.shutil.disk_usage", lambda path: free)
    for variable in FASTDDS_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    context, started = nodes("tracker", {})
    told = profiles(started, context)["tracker_node"]
    assert set(told) == set(FASTDDS_VARIABLES if room else ())
    assert all(Path(each).name == "shared_memory.xml" for each in told.values())
    assert all(Path(each).is_file() for each in told.values())


def test_video_starts_source_and_tracker_on_the_same_topic() -> None:
    context, started = nodes("video", {"source": "0", "image": "/desk/image"})
    by_name = {each.node_executable: each for each in started}
    assert set(by_name) == {"tracker_node", "frame_source"}
    assert {remappings(each, context)["image"] for each in started} == {"/desk/image"}
    # A camera's number stays text: the parameter is a string.
    assert parameters(by_name["frame_source"], context)["source"] == "0"


@pytest.mark.parametrize(
    ("name", "arguments"), [("video", {}), ("replay", {"bag": "drive"}), ("tracker", {})]
)
def test_the_end_of_the_tracker_ends_what_was_started_for_it(
    name: str, arguments: dict[str, str]
) -> None:
    context, started = nodes(name, arguments)

    def follows(action: Node) -> list[Any]:
        event = ProcessExited(
            returncode=1, action=action, name="", cmd=[], cwd=None, env=None, pid=1
        )
        handlers = [each for each in context._event_handlers if each.matches(event)]
        return [action for each in handlers for action in each.handle(event, context)]

    by_name = {each.node_executable: each for each in started}
    ends = [] if name == "tracker" else [Shutdown]
    assert [type(each) for each in follows(by_name["tracker_node"])] == ends
    if name == "video":
        assert follows(by_name["frame_source"]) == []
    # After Ctrl-C all processes end, and a second Shutdown would be an error.
    context._set_is_shutdown(True)
    assert follows(by_name["tracker_node"]) == []


def test_the_end_of_the_source_ends_all_but_once() -> None:
    context, started = nodes("video", {})
    (source,) = (each for each in started if each.node_executable == "frame_source")
    ended = source._ExecuteLocal__on_exit
    assert [type(each) for each in ended(None, context)] == [Shutdown]
    context._set_is_shutdown(True)
    assert ended(None, context) == []


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the launch files' own logger is told."""
    told: list[str] = []
    logger = SimpleNamespace(warning=told.append)
    monkeypatch.setattr("siamcar_ros.ros.launching.get_logger", lambda name: logger)
    return told


@pytest.mark.parametrize("name", ["tracker", "video", "evaluate"])
def test_a_misspelt_argument_is_told_once(name: str, warnings: list[str]) -> None:
    # "vehicle" may be an argument of a launch file that includes this one.
    nodes(name, {}, "imge:=/front/image", "vehicle:=seven", "namespace:=/front")
    assert warnings == [
        "no launch argument is called 'imge'; did you mean 'image'? --show-args lists them"
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_argument_is_taken_for_another(file: Path, warnings: list[str]) -> None:
    name = file.name.removesuffix(".launch.py")
    typed = [f"{argument.name}:=1" for argument in read(name).get_launch_arguments()]
    nodes(name, {"bag": "drive"}, *typed)
    assert warnings == []
