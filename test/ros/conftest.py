"""A tracker node in a process of its own, for each test that asks, in a ROS domain of its own."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from node_harness import NodeProcess, Robot

# Not to be heard by, nor to hear, what else runs here.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

_MISSING = [name for name in ("rclpy", "siamcar_ros.srv") if importlib.util.find_spec(name) is None]
if _MISSING:
    collect_ignore_glob = ["test_node*.py"]


def pytest_report_header() -> list[str]:
    return [f"node tests left out, not installed: {', '.join(_MISSING)}"] if _MISSING else []


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compact network with weights from a fixed seed: its speed is real, its opinion is not."""
    import torch

    from siamcar_ros.model import build_model, save_weights

    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    model = build_model("compact")
    for _ in range(20):  # so that the batch normalisations have seen pixels
        model(255 * torch.rand(2, 3, 255, 255), model.template(255 * torch.rand(2, 3, 127, 127)))
    save_weights(model, folder / "weights.safetensors", {})
    file = folder / "compact.yaml"
    file.write_text(
        "network: compact\nweights: weights.safetensors\n"
        "tracker: {window_influence: 0.9, lost_below: 0.0, uncertain_below: 0.0}\n"
    )
    return file


@pytest.fixture
def start_node(config: Path, tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Start tracker_node with parameters; it is ended with the test."""
    from node_harness import NodeProcess

    started: list[NodeProcess] = []

    def start(*ros_args: str, **parameters: object) -> NodeProcess:
        log = tmp_path / f"node{len(started)}.log"
        values: dict[str, object] = {"config": config, "backend": "torch", "threads": 1} | parameters
        started.append(NodeProcess(log, values, *ros_args))
        return started[-1]

    yield start
    for node in started:
        node.end()


@pytest.fixture
def robot() -> Iterator[Robot]:
    """A camera and an operator."""
    from node_harness import Robot

    robot = Robot()
    yield robot
    robot.close()


@pytest.fixture
def node(start_node: Callable[..., NodeProcess], robot: Robot) -> NodeProcess:
    """An active node with default parameters."""
    node = start_node()
    robot.client.wait_until_active()
    return node
