"""The package as installed: the command, the shipped files, one version everywhere."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

import siamcar_ros
from siamcar_ros import cli, resources

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "siamcar_ros"


def run(*command: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that sees the package in `path` alone, not the checkout or the install."""
    environment = {key: value for key, value in os.environ.items() if key != "AMENT_PREFIX_PATH"}
    environment["PYTHONPATH"] = str(path) if path else ""
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` puts on the path, without its dependencies."""
    if importlib.util.find_spec("pip") is None or importlib.util.find_spec("setuptools") is None:
        pytest.skip("pip or setuptools is not installed")
    folder = tmp_path_factory.mktemp("pip")
    source = folder / "source"
    # Away from the checkout, in which pip's own build/ would mix with colcon's.
    for name in ("siamcar_ros", "config", "films", "models", "msg"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    for name in ("pyproject.toml", "setup.py", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    (source / "README.md").write_text("siamcar_ros\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    made = run(
        *pip, "--no-build-isolation", "--no-deps", "--target", str(folder / "site"), str(source),
        cwd=folder,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder / "site"


@pytest.mark.slow
def test_installed_command_lists_its_subcommands(installed: Path, tmp_path: Path) -> None:
    shown = run(
        sys.executable, str(installed / "bin" / "siamcar"), "--help", cwd=tmp_path, path=installed
    )
    assert shown.returncode == 0, shown.stderr
    for name in cli.COMMANDS:
        assert re.search(rf"^  {name}\s", shown.stdout, re.MULTILINE)


@pytest.mark.slow
def test_installed_package_finds_its_files(installed: Path, tmp_path: Path) -> None:
    program = (
        "from siamcar_ros.resources import resource_path as find\n"
        "print(find('config/networks/compact.yaml'), find('models'), sep='\\n')"
    )
    shown = run(sys.executable, "-c", program, cwd=tmp_path, path=installed)
    assert shown.returncode == 0, shown.stderr
    for line in shown.stdout.splitlines():
        assert Path(line).is_relative_to(installed), line
        assert Path(line).exists()


@pytest.mark.slow
def test_every_shipped_file_is_installed(installed: Path) -> None:
    for folder in ("config", "films", "models", "msg"):
        here = {each.relative_to(ROOT) for each in (ROOT / folder).rglob("*") if each.is_file()}
        data = installed / "siamcar_ros" / "_data"
        there = {each.relative_to(data) for each in (data / folder).rglob("*") if each.is_file()}
        assert there == here


@pytest.mark.slow
def test_every_module_is_installed(installed: Path) -> None:
    kinds = ("*.py", "*.jinja", "page/*")
    here = {each.relative_to(ROOT) for kind in kinds for each in PACKAGE.rglob(kind)}
    place = installed / "siamcar_ros"
    there = {each.relative_to(installed) for kind in kinds for each in place.rglob(kind)}
    assert here - there == set(), "a folder of modules without __init__.py?"


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from siamcar_ros.cli import main; main(['--help'])\n"
        "print([each for each in ('torch', 'cv2', 'numpy', 'rclpy') if each in sys.modules])"
    )
    shown = run(sys.executable, "-c", program, cwd=ROOT)
    assert shown.stdout.splitlines()[-1] == "[]", shown.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: siamcar {name}" in capsys.readouterr().out


def test_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tarck"]) == 2
    assert "no command 'tarck'" in capsys.readouterr().err


def test_user_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing:
        def add_arguments(self, parser: object) -> None: ...

        def run(self, args: object) -> int:
            raise FileNotFoundError("no video clip.mp4")

    monkeypatch.setattr(cli, "load_command", lambda name: Failing())
    monkeypatch.delenv("SIAMCAR_TRACEBACK", raising=False)
    assert cli.main(["track"]) == 2
    assert capsys.readouterr().err == "siamcar: error: no video clip.mp4\n"


def test_a_missing_package_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_command(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

    monkeypatch.setattr(cli, "load_command", load_command)
    assert cli.main(["train"]) == 2
    told = capsys.readouterr().err
    assert "needs the Python package 'torch', not installed: pip install 'siamcar_ros[tor" in told
    assert 'for the Python of a ROS installation: pip install torch "numpy<2"' in told


@pytest.mark.parametrize("unbuffered", ["1", ""])
@pytest.mark.parametrize("words", [("--help",), ("track", "--help")])
def test_a_reader_that_goes_away_is_no_error(words: tuple[str, ...], unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "siamcar_ros.cli", *words],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert done.stderr == b""


def test_help_without_an_output_is_no_error() -> None:
    command = f"'{sys.executable}' -m siamcar_ros.cli --help >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["../pyproject.toml", "/etc/passwd", "config/../../secret"])
def test_resources_stay_inside_the_package(name: str) -> None:
    with pytest.raises(ValueError, match="relative to the package"):
        resources.resource_path(name)


def test_missing_resource_names_where_it_was_looked_for() -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(ROOT))):
        resources.resource_path("config/networks/nothing.yaml")


@pytest.mark.parametrize("free", [1 << 26, 1 << 30])
def test_the_shared_memory_profile_needs_room(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    profile = resources.fastdds_profile()
    assert (profile is not None) == (free == 1 << 30)
    assert profile is None or profile.is_file()


def test_one_version_everywhere() -> None:
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    manifest = ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert project is not None
    assert project[1] == manifest == siamcar_ros.__version__


def imported(file: Path) -> set[str]:
    """Top-level packages that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


# What the package does without, or asks for with `pip install` when it is needed.
OPTIONAL = {
    "av",
    "backports",
    "bondpy",
    "compression",
    "foxglove_msgs",
    "lz4",
    "onnx",
    "onnxruntime",
}
OPTIONAL |= {"onnxscript", "openvino", "optuna", "pymavlink", "ray", "rosbags", "safetensors"}
OPTIONAL |= {"sqlalchemy", "torch", "trax", "triton"}
APT = {"cv2": "python3-opencv"}


def test_package_xml_names_what_is_imported() -> None:
    """So that `rosdep install` and apt suffice for the node and the commands that track."""
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {each.text for each in manifest if each.tag in ("depend", "exec_depend")}
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    names = set().union(*map(imported, files)) - set(sys.stdlib_module_names) - OPTIONAL
    names -= {"siamcar_ros"}
    missing = {n for n in names if not declared & {n, APT.get(n, f"python3-{n}")}}
    assert not missing


def test_no_module_hides_the_generated_interfaces() -> None:
    for name in ("msg", "srv", "action"):
        assert not (PACKAGE / name).exists()
        assert not (PACKAGE / f"{name}.py").exists()
