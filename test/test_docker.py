"""The Dockerfiles, which no test can build: their instructions, files and commands exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docker").glob("Dockerfile*"))
INSTRUCTIONS = {"FROM", "RUN", "COPY", "WORKDIR", "ARG", "ENV", "ENTRYPOINT", "CMD"}


def instructions(file: Path) -> list[tuple[str, str]]:
    """Each instruction and its arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", file.read_text(encoding="utf-8"), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_dockerfile(file: Path) -> None:
    parsed = instructions(file)
    assert parsed[0][0] == "FROM"
    assert {word for word, _ in parsed} <= INSTRUCTIONS
    for word, rest in parsed:
        if word == "RUN":
            subprocess.run(["bash", "-n"], input=rest, text=True, check=True)
        if word in ("ENTRYPOINT", "CMD"):
            command = json.loads(rest)
            assert all(isinstance(part, str) for part in command)
            script = ROOT / "launch" / command[-1]
            assert word == "ENTRYPOINT" or script.is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_its_commands_are_those_of_the_readme(file: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    runs = " ".join(rest for word, rest in instructions(file) if word == "RUN")
    made = set(re.findall(r"\bmake ([a-z]+)", runs.replace("recommends make", "")))
    assert made == {"build"}
    assert "`make build` and `source tools/env.sh`" in readme
    for option in re.findall(r"\b(SIAMCAR_\w+)=", runs):
        assert option in (ROOT / "tools" / "setup").read_text(encoding="utf-8")
    head = file.read_text(encoding="utf-8")
    assert "no image has been built from this file" in " ".join(head.replace("#", " ").split())
    launched = re.search(r"ros2 launch siamcar_ros (\S+) (.*)", head)
    assert launched
    text = (ROOT / "launch" / launched[1]).read_text(encoding="utf-8")
    for argument in re.findall(r"(\w+):=", launched[2]):
        assert re.search(rf'\b{argument}(=\(|")', text), argument
