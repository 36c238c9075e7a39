"""A simulated camera on a pan-tilt mount follows a car: follow.launch.py without launch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from siamcar_ros.processes import Child

_SPACE = "/follow"


class FollowError(RuntimeError):
    """A process failed; the message says which, with its last words."""


def follow(output: Path, tracker: Mapping[str, object], rate: float) -> None:
    """Run tracker, controller and simulation; print the summary.

    Args:
        output: folder for follow.png, .mp4 and .json, and the logs of the processes.
        tracker: parameters of the tracker node; empty ones are left out.
        rate: frames per second.

    Raises:
        FollowError: one of the processes failed.
        OSError: they cannot be started.
    """
    output.mkdir(parents=True, exist_ok=True)
    told = output / "follow.json"
    told.unlink(missing_ok=True)
    joints = {"pan_joint": "pan", "tilt_joint": "tilt"}
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(_node(output, module, parameters))
            for module, parameters in (
                ("tracker_node", {key: value for key, value in tracker.items() if value != ""}),
                ("pan_tilt_controller", joints),
                ("pan_tilt_simulation", {"report": output, "rate": float(rate)}),
            )
        ]
        for each in nodes:
            each.start()
        print("the camera follows the car, on /follow/tracker/debug_image; 26 s", flush=True)
        simulation = nodes[-1]
        while simulation.running:
            for each in nodes[:-1]:
                if not each.running:
                    raise FollowError(f"{each.name} ended; its last words:\n{each.tail()}")
            time.sleep(0.1)
        if simulation.status or not told.exists():
            raise FollowError(f"{simulation.name} failed; its last words:\n{simulation.tail()}")
        for line in simulation.log.read_text(errors="replace").splitlines():
            print("  " + line.rpartition("]: ")[2])


def _node(folder: Path, module: str, parameters: Mapping[str, object]) -> Child:
    arguments = ["--ros-args", "-r", f"__ns:={_SPACE}", "-r", "rates:=pan_tilt_controller/rates"]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={value}"]
    name = module.replace("_", " ")
    return Child(f"the {name}", f"siamcar_ros.ros.{module}", arguments, folder / f"{module}.log")
