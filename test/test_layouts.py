"""The layouts for RViz and Foxglove show topics that are published, and fields that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from siamcar_ros.bags import replay_output
from siamcar_ros.bags.messages import message, typestore

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: What the node publishes beside the topics of its README, and what others do.
OTHERS = {"/camera/image_raw", "/diagnostics"}
NODE = {f"/tracker/{name}" for name in re.findall(r"^\| `~/(\w+)` \|", README, re.M)}
REPLAY = {
    replay_output.TRACKS_TOPIC,
    replay_output.ANNOTATIONS_TOPIC,
    f"{replay_output.IMAGE_TOPIC}/compressed",
}


def strings(value: Any) -> list[str]:
    """Every text in a JSON value, keys included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(("name", "published"), [("replay", REPLAY), ("live", NODE | OTHERS)])
def test_foxglove_layouts(name: str, published: set[str]) -> None:
    layout = json.loads((ROOT / "config/foxglove" / f"{name}.json").read_text())
    paths = [text for text in strings(layout) if text.startswith("/")]
    assert {path.split(".")[0] for path in paths} <= published
    panels = [text for text in strings(layout["layout"]) if "!" in text]
    assert sorted(panels) == sorted(layout["configById"])
    for config in layout["configById"].values():
        # With it, Foxglove shows no image of a camera that is not calibrated.
        assert "calibrationTopic" not in config.get("imageMode", {})
        # Foxglove reads an empty limit as 0.
        assert "" not in (config.get("minYValue"), config.get("maxYValue"))
    for path in paths:
        topic, *fields = path.split(".")
        if not fields:
            continue
        name = "TrackArray" if topic.endswith("/tracks") else "TrackStatus"
        kind = f"siamcar_ros/msg/{name}"
        value = message(kind)
        for field in fields:
            name, listed = re.fullmatch(r"(\w+?)(\[0\])?", field).groups()  # type: ignore[union-attr]
            value = getattr(value, name)
            value = message("siamcar_ros/msg/Track") if listed else value
        assert isinstance(value, float | int)


def test_the_rviz_layout() -> None:
    layout = yaml.safe_load((ROOT / "config/rviz/tracker.rviz").read_text())
    displays = layout["Visualization Manager"]["Displays"]
    topics = {each["Topic"]["Value"] for each in displays if "Topic" in each}
    assert topics <= NODE | {"/tracker/detections_3d"}
    launch = (ROOT / "launch/tracker.launch.py").read_text()
    assert set(re.findall(r'"(/tracker/\w+)"', launch)) == topics, "each follows the node's name"


def test_annotations_are_those_of_foxglove() -> None:
    """Field names and their order, as in foxglove_msgs 3.0 to 3.2."""
    fields = {
        name: [field for field, _ in typestore().fielddefs[f"foxglove_msgs/msg/{name}"][1]]
        for name in ("ImageAnnotations", "PointsAnnotation", "TextAnnotation", "Color", "Point2")
    }
    assert fields == {
        "ImageAnnotations": ["circles", "points", "texts"],
        "PointsAnnotation": [
            "timestamp",
            "type",
            "points",
            "outline_color",
            "outline_colors",
            "fill_color",
            "thickness",
        ],
        "TextAnnotation": [
            "timestamp",
            "position",
            "text",
            "font_size",
            "text_color",
            "background_color",
        ],
        "Color": ["r", "g", "b", "a"],
        "Point2": ["x", "y"],
    }
