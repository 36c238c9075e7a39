"""A copy of the package with the code blocks of CONTRIBUTING.md applied to it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"<!-- (file|append|after): (\S+?)(?:: (.+?))? -->\n```\w+\n(.*?)\n```\n", re.DOTALL
)


def copy_package(folder: Path) -> Path:
    """Copy what a checkout needs to run; weights are linked."""
    shutil.copytree(
        ROOT / "siamcar_ros",
        folder / "siamcar_ros",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copytree(ROOT / "config", folder / "config")
    shutil.copy(ROOT / "package.xml", folder)
    for name in ("models", "films"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def apply(heading: str, folder: Path) -> list[str]:
    """Apply the blocks under a heading to a copy; return the files that were touched."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    touched = []
    for kind, name, line, code in _BLOCK.findall(section):
        path = folder / name
        if kind == "file":
            assert not path.exists(), f"{name} is there already"
            path.write_text(code + "\n", encoding="utf-8")
        else:
            content = path.read_text(encoding="utf-8")
            if kind == "append":
                content += f"\n\n{code}\n"
            else:
                assert content.count(line) == 1, f"{name} has no single line {line!r}"
                content = content.replace(line, f"{line}\n{code}")
            path.write_text(content, encoding="utf-8")
        touched.append(name)
    assert touched, f"no blocks under {heading!r}"
    return touched


def environment(folder: Path) -> dict[str, str]:
    """Variables with which Python takes the copy."""
    search = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": search}


def python(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` in the copy."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=280,
    )
