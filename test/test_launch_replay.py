"""replay.launch.py and evaluate.launch.py, where launch_ros is installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("launch_ros", reason="launch_ros comes with a ROS installation only")

from launch import LaunchContext
from launch.actions import ExecuteProcess, Shutdown
from launch.utilities import perform_substitutions
from launch_ros.utilities import evaluate_parameters

from siamcar_ros.resources import FASTDDS_VARIABLES

pytestmark = pytest.mark.slow

LAUNCH = Path(__file__).parent.parent / "launch"


def module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_launch", LAUNCH / f"{name}.launch.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def context(description: Any, **arguments: str) -> LaunchContext:
    """With the arguments given and the others' defaults."""
    made = LaunchContext(argv=[])
    made.launch_configurations.update(arguments)
    for argument in description.get_launch_arguments():
        if argument.name not in made.launch_configurations and argument.default_value is not None:
            value = perform_substitutions(made, argument.default_value)
            made.launch_configurations[argument.name] = value
    return made


def command(process: ExecuteProcess, made: LaunchContext) -> str:
    return " ".join(perform_substitutions(made, part) for part in process.cmd)


def test_the_bag_is_played_with_its_clock_and_its_end_is_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/robot")
    replay = module("replay")
    given = {"bag": "~/drive", "rate": "0.5", "start": "12.5", "fastdds_profile": "/own.xml"}
    made = context(replay.generate_launch_description(), **given)
    (process,) = replay.play(SimpleNamespace(returncode=0), made)
    told = command(process, made)
    assert told.startswith("ros2 bag play /home/robot/drive --clock 100")
    assert "--rate 0.5 --start-offset 12.5" in told
    assert "--loop" not in told
    told_to = [perform_substitutions(made, value) for _, value in process.additional_env]
    assert told_to == ["/own.xml", "/own.xml", str(os.getpid())]
    (ending,) = process._ExecuteLocal__on_exit(SimpleNamespace(returncode=0), made)
    assert isinstance(ending, Shutdown)


def test_a_looped_bag_ends_nothing() -> None:
    replay = module("replay")
    made = context(replay.generate_launch_description(), bag="drive", loop="true")
    (process,) = replay.play(SimpleNamespace(returncode=0), made)
    assert command(process, made).endswith("--loop")
    assert process._ExecuteLocal__on_exit is None  # launch fails on an empty list


def test_without_an_active_tracker_nothing_is_played() -> None:
    replay = module("replay")
    made = context(replay.generate_launch_description(), bag="drive")
    with pytest.raises(RuntimeError, match="wait_until_active failed with status 1"):
        replay.play(SimpleNamespace(returncode=1), made)
    made._set_is_shutdown(True)  # Ctrl-C while it waited
    assert replay.play(SimpleNamespace(returncode=130), made) == []


def test_the_bag_must_be_named() -> None:
    arguments = {
        a.name: a for a in module("replay").generate_launch_description().get_launch_arguments()
    }
    assert arguments["bag"].default_value is None
    assert {"image", "init", "report", "replay_report", "device"} <= set(arguments)


def test_evaluate_node_gets_its_parameters_by_type() -> None:
    description = module("evaluate").generate_launch_description()
    made = context(description, init="412,230,60,80", report="live.json", period="2")
    (node,) = module("evaluate").start_evaluation(made)
    assert node.node_executable == "evaluate_node"
    given: dict[str, Any] = {}
    for each in evaluate_parameters(made, node._Node__parameters):
        given |= each
    assert given["init"] == "412,230,60,80"
    assert given["report"] == "live.json"
    assert given["period"] == 2.0
    assert given["use_sim_time"] is False
    assert given["tracker"] == "tracker"
    assert "image_transport" not in given, "the node's own default"


def test_evaluate_node_alone_gets_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in FASTDDS_VARIABLES:
        monkeypatch.setenv(variable, "/own.xml")
    evaluate = module("evaluate")
    made = context(evaluate.generate_launch_description())
    (node,) = evaluate.start_evaluation(made)
    told = [perform_substitutions(made, value) for _, value in node.additional_env]
    assert told == ["/own.xml", "/own.xml", str(os.getpid())]


def test_the_parameter_file_says_what_the_bags_images_are() -> None:
    arguments = {
        a.name: a for a in module("replay").generate_launch_description().get_launch_arguments()
    }
    default = arguments["image_transport"].default_value
    assert perform_substitutions(LaunchContext(argv=[]), default) == ""
