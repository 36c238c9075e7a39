"""A simulated camera on a pan-tilt mount follows a car: follow.launch.py without launch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from siamcar_ros.ros.live_run import failure, node_process, require_running


def follow(output: Path, tracker: Mapping[str, object], rate: float) -> None:
    """Run tracker, controller and simulation; print the summary.

    Args:
        output: folder for follow.png, .mp4 and .json, and the logs of the processes.
        tracker: parameters of the tracker node; empty ones are left out.
        rate: frames per second.

    Raises:
        LiveRunError: one of the processes failed.
        OSError: they cannot be started.
    """
    output.mkdir(parents=True, exist_ok=True)
    report = output / "follow.json"
    report.unlink(missing_ok=True)
    parameters = {
        "tracker_node": tracker,
        "pan_tilt_controller": {"pan_joint": "pan", "tilt_joint": "tilt"},
        "pan_tilt_simulation": {"report": str(output), "rate": rate},
    }
    remapped = ("-r", "rates:=pan_tilt_controller/rates")
    with ExitStack() as stack:
        nodes = []
        for module, given in parameters.items():
            title = f"the {module.replace('_', ' ')}"
            child = node_process(
                title, module, given, *remapped, folder=output, namespace="/follow"
            )
            nodes.append(stack.enter_context(child))
            child.start()
        *others, simulation = nodes
        print("following a car for 26 s; watch it on /follow/tracker/debug_image", flush=True)
        while simulation.running:
            require_running(*others)
            time.sleep(0.1)
        if simulation.status or not report.exists():
            raise failure(f"{simulation.name} failed", simulation)
        for line in simulation.log.read_text(errors="replace").splitlines():
            print("  " + line.rpartition("]: ")[2])
