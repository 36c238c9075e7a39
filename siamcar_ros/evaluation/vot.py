"""The VOT toolkit's integration: the toolkit starts our tracker and talks TraX with it.

`siamcar evaluate vot WORKSPACE` writes the tracker into the workspace's trackers.ini; the toolkit
then starts `python -m siamcar_ros.evaluation.vot SPEC` itself, for each sequence anew. Needs the
`vot-trax` package here, and `vot-toolkit` where the toolkit runs.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from siamcar_ros.data import read_image
from siamcar_ros.evaluation.one_pass import Tracker
from siamcar_ros.evaluation.trackers import TrackerSpec
from siamcar_ros.files import replacing
from siamcar_ros.geometry import Image


def identifier(title: str) -> str:
    """The name by which the toolkit knows a tracker of that title."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", title)


def write_trackers_ini(workspace: Path, spec: TrackerSpec) -> Path:
    """Add a tracker to a VOT workspace's trackers.ini, replacing one of the same name.

    The command in it holds absolute paths, so that it runs in any working folder. Returns the path
    of trackers.ini.
    """
    if not (workspace / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{workspace} is no VOT workspace, which has a config.yaml; make one with "
            "`vot initialize`"
        )
    path = workspace / "trackers.ini"
    # The toolkit reads the file with interpolation, where a percent sign is written twice.
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(path)
    except configparser.Error as error:
        raise ValueError(f"{path}: {error}") from None
    network = Path(spec.network)
    described = replace(
        spec,
        network=str(network.expanduser().resolve()) if network.suffix else spec.network,
        weights=None if spec.weights is None else str(Path(spec.weights).resolve()),
        files=tuple(str(Path(file).resolve()) for file in spec.files),
    )
    command = [sys.executable, "-m", "siamcar_ros.evaluation.vot", json.dumps(asdict(described))]
    if ":" in spec.kind:  # a module of one's own, which may lie in the working folder
        command.append(str(Path.cwd()))
    config[identifier(spec.title)] = {
        "label": spec.title.replace("%", "%%"),
        "protocol": "trax",
        "command": shlex.join(command).replace("%", "%%"),
    }
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        config.write(file)
    return path


def serve(tracker: Tracker, name: str) -> None:
    """Answer the toolkit's requests until it quits."""
    from trax import Image as TraxImage
    from trax import Rectangle, Region, TraxStatus
    from trax.server import Server

    with Server([Region.RECTANGLE], [TraxImage.PATH], tracker_name=name) as server:
        while True:
            request = server.wait()
            if request.type == TraxStatus.INITIALIZE:
                region, _ = request.objects[0]
                box = region.bounds()
                tracker.init(_image(request.image), box)
                score = 1.0
            elif request.type == TraxStatus.FRAME:
                result = tracker.update(_image(request.image))
                box = tuple(map(float, result.box))
                score = float(getattr(result, "score", 1.0))
            else:
                return
            server.status([(Rectangle.create(*box), {"confidence": score})])


def _image(channels: Any) -> Image:
    path = Path(channels["color"].path())
    image = read_image(path)
    if image is None:
        raise ValueError(f"{path} does not decode")
    return image


if __name__ == "__main__":
    facts = json.loads(sys.argv[1])
    sys.path[:0] = sys.argv[2:]
    spec = TrackerSpec(**{**facts, "files": tuple(facts["files"])})
    serve(spec.build(), spec.title)
