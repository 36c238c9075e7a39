"""The README says what the code does: parameters, commands, files."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import yaml

from siamcar_ros.cli import COMMANDS, load_command
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


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z]+)\b", README)) <= targets


def test_the_launch_files_exist() -> None:
    files = set(re.findall(r"ros2 launch siamcar_ros (\S+)", README))
    assert files
    for name in files:
        assert (ROOT / "launch" / name).is_file()


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


def test_the_frame_sources_parameters_are_in_its_page() -> None:
    code = (ROOT / "siamcar_ros/ros/frame_source.py").read_text(encoding="utf-8")
    declared = re.findall(r' parameter\(\s*"(\w+)"', code)
    page = (ROOT / "docs/node.md").read_text(encoding="utf-8").split("## frame_source")[1]
    listed = re.findall(r"^\| `(\w+)` \|", page.split("\n## ")[0], re.M)
    assert listed
    assert sorted(listed) == sorted(declared)
