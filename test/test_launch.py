"""The launch files, where launch_ros is installed: what they declare and what they would start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

# Not "launch": the folder of launch files answers to that name.
pytest.importorskip("launch_ros", reason="launch_ros comes with a ROS installation only")

from launch import LaunchContext, LaunchDescription
from launch.actions import Shutdown
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch.utilities import perform_substitutions
from launch_ros.actions import Node
from launch_ros.utilities import evaluate_parameters

from siamcar_ros.processes import PARENT_VARIABLE
from siamcar_ros.resources import FASTDDS_VARIABLES

pytestmark = pytest.mark.slow

LAUNCH = Path(__file__).parent.parent / "launch"
FILES = sorted(LAUNCH.glob("*.launch.py"))


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with RViz, the command ros2 and a bag called drive."""
    prefix = tmp_path / "prefix"
    for file in ("share/ament_index/resource_index/packages/rviz2", "lib/rviz2/rviz2", "bin/ros2"):
        (prefix / file).parent.mkdir(parents=True)
        (prefix / file).touch(mode=0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{os.environ['AMENT_PREFIX_PATH']}:{prefix}")
    monkeypatch.setenv("PATH", f"{prefix / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "drive").mkdir()
    monkeypatch.chdir(tmp_path)
    return prefix


def read(name: str) -> LaunchDescription:
    return get_launch_description_from_python_launch_file(str(LAUNCH / f"{name}.launch.py"))


def nodes(
    name: str, arguments: dict[str, str], *typed: str, started: list[Node] | None = None
) -> tuple[LaunchContext, list[Node]]:
    """The nodes that would start, with the context in which their substitutions are performed."""
    context = LaunchContext(argv=typed)
    context.launch_configurations.update(arguments)
    started = [] if started is None else started

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
        "image": "camera/image_raw",  # in the node's namespace
        "camera_info": "camera/camera_info",
        "detections": "detections",
    }
    assert parameters(started[0], context) == {}


def test_arguments_become_parameters_of_their_own_type() -> None:
    given = {"device": "cpu", "max_targets": "3", "autostart": "false", "image": "/front/image"}
    context, (tracker,) = nodes("tracker", given)
    assert parameters(tracker, context) == {"device": "cpu", "max_targets": 3, "autostart": False}
    assert remappings(tracker, context)["image"] == "/front/image"


@pytest.mark.parametrize("value", ["true", "TRUE", "1", "yes"])
def test_truth_is_written_as_launch_takes_it(value: str) -> None:
    context, started = nodes("tracker", {"use_sim_time": value, "rviz": value})
    assert parameters(started[0], context) == {"use_sim_time": True}
    assert len(started) == 2


def test_rviz_follows_the_name_of_the_node() -> None:
    context, (_, rviz) = nodes("tracker", {"rviz": "true", "name": "left_tracker"})
    assert rviz.node_executable == "rviz2"
    assert remappings(rviz, context)["/tracker/debug_image"] == "left_tracker/debug_image"


def test_the_console_is_started_where_it_is_wanted() -> None:
    given = {"console": "true", "console_host": "0.0.0.0", "console_port": "9000"}
    context, started = nodes("video", given)
    (console,) = (each for each in started if each.node_executable == "operator_console")
    assert parameters(console, context) == {"host": "0.0.0.0", "port": 9000}


def test_an_empty_port_of_the_console_is_the_nodes_own() -> None:
    context, (_, console) = nodes("tracker", {"console": "true", "console_port": ""})
    assert parameters(console, context) == {"host": "127.0.0.1"}


def test_home_is_found_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").write_text("tracker: {ros__parameters: {device: cpu}}\n")
    given = {"params_file": "~/own.yaml", "rviz_config": "~/own.rviz", "rviz": "true"}
    context, started = nodes("replay", given | {"bag": "~/drive"})
    tracker, rviz, *_ = started
    assert parameters(tracker, context)["use_sim_time"] is True  # and the file has been read
    words = [perform_substitutions(context, word) for word in rviz.cmd]
    assert str(tmp_path / "own.rviz") in words


def test_the_topics_of_a_bag_are_in_no_namespace() -> None:
    context, started = nodes("replay", {"bag": "drive", "namespace": "left"})
    topics: dict[str, str] = {}
    for node in started[:2]:  # the tracker and evaluate_node
        topics |= remappings(node, context)
    assert topics == {
        "image": "/camera/image_raw",
        "camera_info": "/camera/camera_info",
        "ground_truth": "/ground_truth",
        "detections": "detections",
    }


def profiles(started: list[Node], context: LaunchContext) -> dict[str, dict[str, str]]:
    """What each node is told in its environment."""
    return {
        each.node_executable: {
            perform_substitutions(context, name): perform_substitutions(context, value)
            for name, value in each.additional_env or []
            if perform_substitutions(context, name) != PARENT_VARIABLE
        }
        for each in started
    }


WITH_RVIZ = {"tracker_node", "rviz2"}


@pytest.mark.parametrize(
    ("name", "executables"),
    [
        ("tracker", WITH_RVIZ),
        ("video", WITH_RVIZ | {"frame_source"}),
        ("replay", WITH_RVIZ | {"evaluate_node", "wait_until_active"}),
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
    ("given", "expected"),
    [({}, "auto"), ({"init": "none"}, ""), ({"init": "412,230,60,80"}, "412,230,60,80")],
)
def test_the_source_of_a_video_starts_the_tracker(given: dict[str, str], expected: str) -> None:
    context, started = nodes("video", {"name": "left", **given})
    (source,) = (each for each in started if each.node_executable == "frame_source")
    values = parameters(source, context)
    assert (values["init"], values["tracker"]) == (expected, "left")


def exited(returncode: int) -> Any:
    return SimpleNamespace(returncode=returncode)


@pytest.mark.parametrize(
    ("name", "executable", "given"),
    [
        ("video", "tracker_node", {}),
        ("video", "frame_source", {}),
        ("replay", "tracker_node", {"bag": "drive"}),
        ("replay", "evaluate_node", {"bag": "drive"}),
        ("tracker", "tracker_node", {"required": "true"}),
        ("evaluate", "evaluate_node", {"required": "true"}),
    ],
)
def test_the_end_of_a_node_that_is_needed_ends_the_launch(
    name: str, executable: str, given: dict[str, str]
) -> None:
    context, started = nodes(name, given)
    (node,) = (each for each in started if each.node_executable == executable)
    ended = node._ExecuteLocal__on_exit
    assert [type(each) for each in ended(exited(0), context)] == [Shutdown]
    with pytest.raises(RuntimeError, match="failed with status 1"):  # so `ros2 launch` returns 1
        ended(exited(1), context)
    # After Ctrl-C all processes end, and a second Shutdown would be an error.
    context._set_is_shutdown(True)
    assert ended(exited(-2), context) == []


@pytest.mark.parametrize("name", ["tracker", "evaluate"])
def test_the_end_of_a_node_ends_no_launch_that_includes_its_file(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def required() -> str:
        _, (node,) = nodes(name, {})
        return "yes" if node._ExecuteLocal__on_exit else "no"

    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "robot_bringup", "robot.launch.py"])
    assert required() == "no"
    monkeypatch.setattr(sys, "argv", ["ros2", "launch", "siamcar_ros", f"{name}.launch.py"])
    assert required() == "yes"


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("tracker", {"max_targets": "abc"}, "max_targets:=abc is not a whole number"),
        ("tracker", {"autostart": "maybe"}, "autostart:=maybe is not true or false"),
        ("tracker", {"use_sim_time": "tRUE"}, "use_sim_time:=tRUE is not true or false"),
        ("tracker", {"rviz": "perhaps"}, "rviz:=perhaps is not true or false"),
        ("tracker", {"console": "web"}, "console:=web is not true or false"),
        ("tracker", {"console_port": "http"}, "console_port:=http is not a whole number"),
        ("tracker", {"console_port": "99999"}, "console_port:=99999 is not a port: give a"),
        ("video", {"rate": "fast"}, "rate:=fast is not a number"),
        ("video", {"autostart": "maybe"}, "autostart:=maybe is not true or false"),
        ("evaluate", {"period": "often"}, "period:=often is not a number"),
        ("replay", {"bag": "drive", "period": "often"}, "period:=often is not a number"),
        ("replay", {"bag": "nowhere"}, "there is no bag nowhere"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_starts(
    name: str, given: dict[str, str], reason: str
) -> None:
    started: list[Node] = []
    with pytest.raises(RuntimeError, match=reason):
        nodes(name, given, started=started)
    assert started == []


@pytest.mark.parametrize(
    ("name", "missing", "reason"),
    [
        ("tracker", "lib/rviz2/rviz2", "rviz2 is not installed"),
        ("video", "share/ament_index/resource_index/packages/rviz2", "rviz2 is not installed"),
        ("replay", "bin/ros2", "`ros2` is not on the PATH"),
    ],
)
def test_a_missing_program_is_named_before_anything_starts(
    name: str,
    missing: str,
    reason: str,
    installed: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (installed / missing).unlink()
    monkeypatch.setenv("PATH", str(installed / "bin"))
    started: list[Node] = []
    with pytest.raises(RuntimeError, match=reason):
        nodes(name, {"bag": "drive", "rviz": "true"}, started=started)
    assert started == []


PROGRAM = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch import LaunchDescription

file, *words = sys.argv[1:]
arguments = [word.split(":=", 1) for word in words]
service = LaunchService(argv=words)
source = PythonLaunchDescriptionSource(file)
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""


def launched(folder: Path, *words: str) -> subprocess.Popen[str]:
    """`ros2 launch siamcar_ros tracker.launch.py WORDS`."""
    pytest.importorskip("siamcar_ros.srv")
    command = [sys.executable, "-c", PROGRAM, str(LAUNCH / "tracker.launch.py"), *words]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "ROS_LOG_DIR": str(folder)},
    )


def test_a_node_that_cannot_start_makes_the_launch_fail(tmp_path: Path) -> None:
    process = launched(tmp_path, "config:=no_such_network", "namespace:=/l1")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "no_such_network" in output
    assert "the tracker failed with status 1" in output


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_node_ends_with_the_launch(tmp_path: Path, number: signal.Signals) -> None:
    process = launched(tmp_path, "autostart:=false", f"namespace:=/l{number}")
    assert process.stdout is not None
    line = ""
    while "process started with pid" not in line:
        line = process.stdout.readline()
        assert line, "the launch ended"
    node = int(line.rpartition("[")[2].rstrip("]\n"))
    time.sleep(3)  # into its start, or behind it
    process.send_signal(number)
    process.wait(60)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{node}").exists():
        assert time.monotonic() < deadline, "the node outlived the launch"
        time.sleep(0.05)


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
        "there is no launch argument 'imge'; did you mean 'image'? --show-args lists them"
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_argument_is_taken_for_another(file: Path, warnings: list[str]) -> None:
    name = file.name.removesuffix(".launch.py")
    typed = [f"{argument.name}:=1" for argument in read(name).get_launch_arguments()]
    nodes(name, {"bag": "drive"}, *typed)
    assert warnings == []
