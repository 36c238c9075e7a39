"""From the first moment on, an executable ends cleanly and says what it does without."""

from __future__ import annotations

import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("siamcar_ros.srv")

from siamcar_ros.resources import FASTDDS_VARIABLES
from siamcar_ros.ros import command_line

pytestmark = pytest.mark.slow
LAUNCH = Path(__file__).parent.parent.parent / "launch"


def executable(name: str) -> str:
    packages = pytest.importorskip("ament_index_python.packages")
    path = Path(packages.get_package_prefix("siamcar_ros"), "lib", "siamcar_ros", name)
    if not path.is_file():
        pytest.skip("the package is not built")
    return str(path)


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.py")), ids=lambda path: path.name)
def test_launch_files_import_what_the_package_has(path: Path) -> None:
    """Read, not run: launch_ros comes with a ROS installation only."""
    shared = ast.parse(Path(command_line.__file__).with_name("launching.py").read_text())
    defined = {each.name for each in shared.body if isinstance(each, ast.FunctionDef)}
    used = {
        name.name
        for each in ast.parse(path.read_text()).body
        if isinstance(each, ast.ImportFrom) and each.module == "siamcar_ros.ros.launching"
        for name in each.names
    }
    assert used
    assert used <= defined


@pytest.mark.parametrize("name", ["tracker_node", "frame_source", "evaluate_node"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_ends_it_with_status_0(name: str, number: signal.Signals) -> None:
    command = [executable(name), "--ros-args", "-r", f"__ns:=/early{number}"]
    moments = random.Random(name)
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        # not before Python has reached the first line of the program
        wait_for_program(process.pid)
        time.sleep(moments.uniform(0.0, 4.0))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors


START = """
import sys, rclpy
from siamcar_ros.ros import command_line, tracker_node
def start():
    {before}
    raise {error}("no")
tracker_node._run = start
tracker = sys.argv.pop() == "tracker_node"
sys.exit(tracker_node.main() if tracker else command_line.run_node("other", "", start, None))
"""


@pytest.mark.parametrize("name", ["tracker_node", "other"])
@pytest.mark.parametrize("error", ["ValueError", "RuntimeError", "OSError"])
@pytest.mark.parametrize("ended", [True, False])
def test_an_error_that_follows_from_the_end_of_the_context_is_none(
    name: str, error: str, ended: bool
) -> None:
    """rclpy reports it as whatever it was about to do: an action server raises ValueError.

    An OSError is not one of these: something could not be written.
    """
    silent = ended and error != "OSError"
    script = START.format(before="rclpy.shutdown()" if ended else "", error=error)
    done = subprocess.run(
        [sys.executable, "-c", script, name], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == (0 if silent else 1), done.stderr
    assert ("no" in done.stderr.split()) == (not silent)
    assert ("Traceback" in done.stderr) == (not ended and error == "RuntimeError")


def wait_for_program(pid: int) -> None:
    """Return once the process catches SIGINT itself."""
    deadline = time.monotonic() + 60
    mask = 1 << (signal.SIGTERM - 1)
    while time.monotonic() < deadline:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        caught = next(line for line in lines if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) & mask:
            return
        time.sleep(0.01)
    raise AssertionError("the program does not start")


@pytest.mark.parametrize(
    ("free", "profile", "transports", "told"),
    [
        (1 << 20, False, "", True),
        (8 << 20, False, "", False),
        (8 << 20, True, "", True),
        (1 << 30, True, "", False),
        (0, False, "UDPv4", False),
    ],
)
def test_a_full_shared_memory_is_avoided_and_reported(
    free: int,
    profile: bool,
    transports: str,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment = dict.fromkeys(FASTDDS_VARIABLES, "/own.xml") if profile else {}
    if transports:
        environment["FASTDDS_BUILTIN_TRANSPORTS"] = transports
    monkeypatch.setattr(command_line, "os", SimpleNamespace(environ=environment))
    usage = SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(command_line, "shutil", usage)
    before = dict(environment)
    command_line._avoid_full_shared_memory()
    if told:
        assert environment == {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}
        assert "using UDP instead" in capsys.readouterr().err
    else:
        assert environment == before
        assert capsys.readouterr().err == ""


def test_a_node_starts_with_a_full_shared_memory(tmp_path: Path) -> None:
    """In a mount namespace of its own, where /dev/shm holds 64 kB."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], check=False).returncode:
        pytest.skip("this user cannot make a mount namespace")
    script = (
        "mount -t tmpfs -o size=64k tmpfs /dev/shm && "
        f"exec {sys.executable} -m siamcar_ros.ros.frame_source --ros-args "
        "-r __ns:=/full -p rate:=1000.0"
    )
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "/dev/shm has 0.1 MB free" in done.stderr
    assert "the source has ended" in done.stderr


def test_temporary_files_are_removed_at_the_end(tmp_path: Path) -> None:
    """Where the cache cannot be written, a temporary folder takes its place."""
    cache, temporary = tmp_path / "file", tmp_path / "tmp"
    cache.write_text("not a folder")
    temporary.mkdir()
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "siamcar_ros.ros.tracker_node", "--ros-args"]
    command += ["-r", "__ns:=/temporary"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "activate: done" in line:
            process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, "".join(lines)
    assert "ended cleanly" in lines[-1]
    assert not list(temporary.glob("siamcar_ros_*"))
