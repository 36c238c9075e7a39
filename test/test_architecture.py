"""The rooms stand in one line: a module imports from its own room and from those before it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "siamcar_ros"

# Rooms in one group do not import each other.
ORDER: tuple[tuple[str, ...], ...] = (
    ("__init__", "geometry", "files", "resources", "options", "networks", "processes"),
    ("model",),
    ("runtime",),
    ("tracking",),
    ("data",),
    ("evaluation",),
    ("training",),
    ("bags",),
    ("ros",),
    ("demo", "speed"),
    ("commands",),
    ("cli",),
)
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def modules() -> dict[str, Path]:
    """The package's modules by their dotted names."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: set[str]) -> Iterator[tuple[str, bool]]:
    """The package's modules that a module imports, and whether it does so when it is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing = {
        node
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for node in ast.walk(test)
    }
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if node in typing:
            continue
        at_load = node not in inner
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_load) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if whole in known:
                    yield whole, at_load
                elif base in known:
                    yield base, at_load


MODULES = modules()
IMPORTS = {name: set(imported(name, path, set(MODULES))) for name, path in MODULES.items()}


def room(module: str) -> str:
    """A module's room; `python -m` starts a room from above all of them."""
    if module.endswith(".__main__"):
        return "cli"
    return module.split(".")[1] if "." in module else "__init__"


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in MODULES} <= set(RANK)


def test_arrows_point_down() -> None:
    wrong = sorted(
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other, _ in others
        if room(name) != room(other)
        and RANK[room(other)] >= RANK[room(name)]
        and not (RANK[room(other)] == RANK[room(name)] == 0)
    )
    assert not wrong


def test_the_page_shows_the_rooms_in_this_order() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("\n## The rooms\n")[1].split("\n## ")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    shown = [name for cell in first_cells for name in re.findall(r"`(\w+)", cell)]
    places = [RANK[name] for name in shown]
    assert places == sorted(places)
    helpers = {"__init__", "files", "resources", "options", "networks", "processes"}
    missing = set(RANK) - set(shown) - helpers
    assert not missing


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "CONTRIBUTING.md"])
def test_modules_that_pages_name_exist(page: str) -> None:
    text = (PACKAGE.parent / page).read_text(encoding="utf-8")
    text = re.sub(r"<!-- file: .*?```\n.*?```", "", text, flags=re.DOTALL)
    rooms = "|".join(path.name for path in PACKAGE.iterdir() if path.is_dir())
    named = set(re.findall(rf"(?<![\w./])(?:siamcar_ros/)?((?:{rooms})/[a-z_]+(?:\.py)?)\b", text))
    named -= {name for name in named if (PACKAGE.parent / name).exists()}
    for name in named:
        assert (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists(), name


def test_no_module_is_imported_in_a_circle() -> None:
    """Rooms' `__init__` modules export their parts' names, and so do not count among them."""
    graph = {
        name: {
            other
            for other, at_load in others
            if at_load and not (MODULES[other].name == "__init__.py" and name.startswith(other))
        }
        for name, others in IMPORTS.items()
    }
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", [n for n in MODULES if room(n) != "ros"])
def test_only_ros_imports_rclpy(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    names = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not {one for one in names if one.split(".")[0] == "rclpy"}
