"""A tracker node in a process of its own, for each test that asks, in a ROS domain of its own."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from node_harness import Robot

# Not to be heard by, nor to hear, what else runs here.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

_number = itertools.count()
_MISSING = [name for name in ("rclpy", "siamcar_ros.srv") if importlib.util.find_spec(name) is None]
if _MISSING:
    collect_ignore_glob = ["test_node*.py", "test_evaluate_node.py"]


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
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.5
    for _ in range(4):  # so that the batch normalisations have seen pixels
        model(255 * torch.rand(1, 3, 255, 255), model.template(255 * torch.rand(1, 3, 127, 127)))
    save_weights(model, folder / "weights.safetensors", {})
    file = folder / "compact.yaml"
    file.write_text(
        "network: compact\nweights: weights.safetensors\n"
        "tracker: {window_influence: 0.9, lost_below: 0.0, uncertain_below: 0.0}\n"
    )
    return file


class _Starter:
    """Starts nodes, each with a robot and a namespace of its own."""

    def __init__(self, config: Path, folder: Path, prefix: str) -> None:
        self._config = config
        self._folder = folder
        self._prefix = prefix
        self._robots: list[Robot] = []

    @property
    def namespace(self) -> str:
        """Of the node that is started next."""
        return f"/{self._prefix}{len(self._robots)}"

    def __call__(self, *ros_args: str, **parameters: object) -> Robot:
        from node_harness import NodeProcess, Robot

        namespace = self.namespace
        values: dict[str, object] = {"config": self._config, "backend": "torch", "threads": 1}
        values["image_timeout"] = 30.0  # a loaded machine is slow
        log = self._folder / f"{namespace[1:]}.log"
        process = NodeProcess(log, namespace, values | parameters, *ros_args)
        self._robots.append(Robot(process))
        return self._robots[-1]

    def end(self) -> None:
        for robot in self._robots:
            robot.close()
            robot.process.end()


@pytest.fixture
def start(config: Path, tmp_path: Path) -> Iterator[Callable[..., Robot]]:
    """Start tracker_node with parameters; it is ended with the test."""
    starter = _Starter(config, tmp_path, f"n{next(_number)}_")
    yield starter
    starter.end()


@pytest.fixture(scope="session")
def _shared(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    starter = _Starter(config, tmp_path_factory.mktemp("shared"), "shared")
    yield starter()
    starter.end()


@pytest.fixture
def robot(_shared: Robot) -> Iterator[Robot]:
    """An active node that has seen no image yet; its process serves several tests."""
    from lifecycle_msgs.msg import Transition
    from node_harness import PATIENCE, Robot

    robot = Robot(_shared.process)
    robot.client.wait_until_active(PATIENCE)
    yield robot
    robot.stop_camera()
    assert robot.change_state(Transition.TRANSITION_DEACTIVATE)
    assert robot.change_state(Transition.TRANSITION_ACTIVATE)
    robot.close()
