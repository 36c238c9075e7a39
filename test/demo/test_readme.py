"""The README says what the code does: parameters, commands, files."""

from __future__ import annotations

import argparse
import ast
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from siamcar_ros.cli import COMMANDS, load_command
from siamcar_ros.ros.pan_tilt import PanTiltSettings
from siamcar_ros.ros.parameters import markdown

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "models").glob("*.md")),
]


def test_the_parameters_are_those_that_the_node_declares() -> None:
    """After a change: paste what `python -m siamcar_ros.ros.parameters` prints."""
    found = re.search(r"<!-- parameters:.*?-->\n(.*?)\n<!-- end of parameters -->", README, re.S)
    assert found, "the marks around the table are gone"
    assert found[1].strip() == markdown().strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_siamcar_and_their_options_exist(page: Path) -> None:
    """In the indented lines and fenced blocks; a line that ends in a backslash goes on."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    shown = re.findall(r"^(?: {4,}|.*; )?siamcar ([a-z-]+)( .*)?$", text, re.M)
    assert shown or page != ROOT / "README.md", "no command is shown"
    for name, rest in shown:
        assert name in COMMANDS
        parser = argparse.ArgumentParser()
        load_command(name).add_arguments(parser)
        known = {option for action in parser._actions for option in action.option_strings}
        given = re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", rest.partition("#")[0].partition(";")[0])
        assert set(given) <= known, f"siamcar {name}"


def test_the_service_call_is_a_valid_request() -> None:
    call = re.search(r"init_target siamcar_ros/srv/InitTarget \"(\{.*?\})\"", README, re.S)
    assert call
    request = yaml.safe_load(call[1])
    assert set(request) == {"bbox", "id"}  # a stamp would be of an image that no reader has
    assert set(request["bbox"]) == {"center", "size_x", "size_y"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_make_targets_and_launch_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^    |`)make ([a-z]+)\b", text, re.M)) <= targets
    for name in re.findall(r"ros2 launch siamcar_ros ([\w.]+)", text):
        assert (ROOT / "launch" / name).is_file(), name


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    lines = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_inside_the_repository_is_dead(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        target, _, heading = link.partition("#")
        if target.startswith("http"):
            continue
        aimed = page.parent / target if target else page
        assert aimed.exists(), f"{page.name} links to {link}"
        if heading:
            assert heading in headings(aimed), f"{page.name} links to {link}"


def test_the_readmes_pictures_are_small() -> None:
    size = sum(path.stat().st_size for path in (ROOT / "docs").glob("demo*.png"))
    assert 0 < size < 600_000


def parameters(node: str) -> dict[str, Any]:
    """The parameters that a node declares, and their defaults."""
    tree = ast.parse((ROOT / f"siamcar_ros/ros/{node}.py").read_text(encoding="utf-8"))
    found = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "parameter":
            name, default, *_ = map(ast.unparse, call.args)
            found[ast.literal_eval(name)] = ast.literal_eval(default.replace("CLIP", "'clip'"))
    return found | (vars(PanTiltSettings()) if node == "pan_tilt_controller" else {})


@pytest.mark.parametrize(
    ("page", "nodes"),
    [
        ("node", ["frame_source", "evaluate_node"]),
        ("pan_tilt", ["pan_tilt_controller", "pan_tilt_simulation"]),
        ("console", ["operator_console"]),
        ("mavlink", ["mavlink_camera"]),
    ],
)
def test_the_parameters_of_the_other_nodes_are_in_their_pages(page: str, nodes: list[str]) -> None:
    """With their defaults."""
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| parameter \| default \|.*\n.*\n((?:\|.*\n)+)", text, re.M)
    angles = {"π": math.pi, "-π": -math.pi, "π/2": math.pi / 2, "-π/2": -math.pi / 2}
    for node, table in zip(nodes, tables, strict=True):
        listed: dict[str, str] = {}
        for row in table.splitlines():
            names, default = (cell.strip() for cell in row.split(" |")[:2])
            defaults = default.strip("| ").split(", ")
            found = re.findall(r"`(\w+)`", names)
            listed |= dict(zip(found, defaults * (len(found) // len(defaults)), strict=True))
        for name, default in parameters(node).items():
            shown = listed.pop(name).strip("`").replace("empty", "")
            if isinstance(default, str):
                assert shown == default, name
            else:
                assert angles.get(shown, yaml.safe_load(shown)) == default, name
        assert not listed
