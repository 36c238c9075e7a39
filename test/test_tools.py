"""The set-up's own decisions: which ROS, which requirements, what is mended, what is refused."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
BASH = shutil.which("bash")

needs_bash = pytest.mark.skipif(BASH is None, reason="bash is not installed")


def bash(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script with nothing of ROS in its environment but what is given."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | variables
    return subprocess.run(
        [str(BASH), "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )


def find_ros(**variables: str) -> subprocess.CompletedProcess[str]:
    return bash(f"source '{ROOT}/tools/common.sh'; find_ros", **variables)


def make_prefix(folder: Path) -> Path:
    (folder / "share" / "rclpy").mkdir(parents=True)
    (folder / "share" / "rclpy" / "package.xml").touch()
    (folder / "setup.bash").touch()
    return folder


@needs_bash
def test_the_sourced_ros_is_used(tmp_path: Path) -> None:
    overlay, distribution = tmp_path / "overlay", make_prefix(tmp_path / "jazzy")
    found = find_ros(ROS_DISTRO="jazzy", AMENT_PREFIX_PATH=f"{overlay}:{distribution}")
    assert found.stdout == str(distribution)


@needs_bash
def test_a_named_ros_counts_more_than_the_sourced_one(tmp_path: Path) -> None:
    sourced, named = make_prefix(tmp_path / "jazzy"), make_prefix(tmp_path / "own")
    found = find_ros(ROS_DISTRO="jazzy", AMENT_PREFIX_PATH=str(sourced), SIAMCAR_ROS=str(named))
    assert found.stdout == str(named)


@needs_bash
def test_none_asks_for_the_wheels(tmp_path: Path) -> None:
    sourced = make_prefix(tmp_path / "jazzy")
    found = find_ros(ROS_DISTRO="jazzy", AMENT_PREFIX_PATH=str(sourced), SIAMCAR_ROS="none")
    assert (found.returncode, found.stdout) == (0, "")


@needs_bash
def test_a_named_ros_must_be_one(tmp_path: Path) -> None:
    found = find_ros(SIAMCAR_ROS=str(tmp_path))
    assert found.returncode == 1
    assert f"SIAMCAR_ROS={tmp_path} has no setup.bash" in found.stderr


@needs_bash
@pytest.mark.parametrize("named", [True, False])
def test_humble_is_refused_with_what_to_do(tmp_path: Path, named: bool) -> None:
    prefix = make_prefix(tmp_path / "humble")
    (prefix / "setup.bash").write_text("export ROS_DISTRO=humble\n")
    sourced = {"ROS_DISTRO": "humble", "AMENT_PREFIX_PATH": str(prefix)}
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    given = {"SIAMCAR_ROS": str(prefix)} if named else sourced
    refused = bash(f"'{tmp_path}/tools/setup'", **given)
    assert refused.returncode == 1
    assert "Jazzy or later is needed" in refused.stderr
    assert "SIAMCAR_ROS=none" in refused.stderr


@needs_bash
def test_an_index_for_pytorch_has_its_own_version() -> None:
    def constrained(**variables: str) -> list[str]:
        shown = bash(f"source '{ROOT}/tools/common.sh'; constraints", **variables)
        return [line.split("==")[0] for line in shown.stdout.splitlines() if "==" in line]

    assert constrained() == ["torch", "empy"]
    assert constrained(SIAMCAR_TORCH_INDEX="https://example.org/cpu") == ["empy"]


@needs_bash
def test_an_environment_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "precious").touch()
    refused = bash(f"'{tmp_path}/tools/setup'", SIAMCAR_ROS="none")
    assert refused.returncode == 1
    assert "was not made by this script" in refused.stderr
    assert (tmp_path / ".venv" / "precious").exists()


@needs_bash
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_env_says_what_to_do_before_the_build(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "env.sh", tmp_path / "tools")
    refused = bash(f"{shell} -c 'source {tmp_path}/tools/env.sh'")
    assert refused.returncode != 0
    assert f"run 'make build' in {tmp_path} first" in refused.stderr


def make_checkout(folder: Path) -> None:
    """What tools/env.sh reads of a built checkout."""
    for name in ("tools", "install", ".venv"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "tools" / "env.sh", folder / "tools")
    for name in ("install/local_setup.bash", ".venv/stamp", ".venv/ros-prefix"):
        (folder / name).touch()


@needs_bash
@pytest.mark.parametrize("sourced", [True, False])
def test_env_sources_ros_unless_it_is_sourced(tmp_path: Path, sourced: bool) -> None:
    """ROS's container images set ROS_DISTRO, and leave the rest to their entrypoint."""
    make_checkout(tmp_path)
    prefix = make_prefix(tmp_path / "jazzy")
    (prefix / "setup.bash").write_text("echo sourced\n")
    (tmp_path / ".venv" / "ros-prefix").write_text(str(prefix))
    given = {"AMENT_PREFIX_PATH": f"/overlay:{prefix}"} if sourced else {}
    told = bash(f"source '{tmp_path}/tools/env.sh'", ROS_DISTRO="jazzy", **given)
    assert (told.returncode, told.stdout) == (0, "" if sourced else "sourced\n"), told.stderr


@needs_bash
def test_a_missing_command_is_noticed_beside_those_that_are_there() -> None:
    def found(names: str) -> bool:
        return bash(f"source '{ROOT}/tools/common.sh'; has_commands {names}").returncode == 0

    assert found("sh cat")
    assert not found("sh no_such_command cat")


@needs_bash
@pytest.mark.parametrize("function", [True, False])
def test_ctrl_c_ends_what_a_step_runs(tmp_path: Path, function: bool) -> None:
    script = tmp_path / "slow"
    script.write_text("echo $$ > pid; exec sleep 600\n")
    step = "slow() { sh slow; }; step Waiting log slow" if function else "step Waiting log sh slow"
    with subprocess.Popen(
        [str(BASH), "-c", f"source '{ROOT}/tools/common.sh'; {step}"],
        cwd=tmp_path,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as shell:
        pid = tmp_path / "pid"
        while not (pid.exists() and pid.read_text().endswith("\n")):
            assert shell.poll() is None
            time.sleep(0.02)
        os.killpg(shell.pid, signal.SIGINT)  # as the terminal does
        assert shell.wait(60) != 0
    deadline = time.monotonic() + 60
    while (status := Path(f"/proc/{int(pid.read_text())}/stat")).exists():
        if status.read_text().split()[2] == "Z":
            break
        assert time.monotonic() < deadline, "it outlived the step"
        time.sleep(0.02)


NAMES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


@needs_bash
@pytest.mark.parametrize(
    ("free", "given", "profile"),
    [
        (1 << 20, {}, "shipped"),
        (1 << 16, {}, ""),
        (1 << 20, {NAMES[0]: "/own.xml"}, "/own.xml"),
        (1 << 16, {NAMES[1]: "/own.xml"}, "/own.xml"),
    ],
)
def test_env_sets_the_profile_under_both_names_where_it_has_room(
    tmp_path: Path, free: int, given: dict[str, str], profile: str
) -> None:
    make_checkout(tmp_path)
    (tmp_path / "bin").mkdir()
    df = tmp_path / "bin" / "df"
    df.write_text(f"#!/bin/sh\necho Filesystem\necho tmpfs 0 0 {free} 0% /dev/shm\n")
    df.chmod(0o755)
    shown = " ".join(f'"${{{name}-}}"' for name in NAMES)
    told = bash(
        f"PATH={tmp_path}/bin:$PATH; source '{tmp_path}/tools/env.sh'; printf '%s\n' {shown}",
        **given,
    )
    shipped = f"{tmp_path}/config/fastdds/shared_memory.xml"
    expected = shipped if profile == "shipped" else profile
    assert told.stdout.splitlines() == [expected, expected], told.stderr


def test_requirements_are_those_of_pyproject() -> None:
    listed = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "requirements.py"), "torch", "sweep"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    names = {line.split(">")[0].split("=")[0] for line in listed}
    assert {"torch", "numpy", "optuna"} <= names
    assert "pytest" not in names


def executable(folder: Path, module: str, kind: str = "command") -> Path:
    """What the build makes of a module's main, with a Python whose path no `#!` line can hold."""
    python = folder / " ".join(["a long path"] * 12) / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    program = (ROOT / "tools" / "executable.py.in").read_text()
    values = {"Python3_EXECUTABLE": str(python)}
    values |= {"EXECUTABLE_MODULE": module, "EXECUTABLE_KIND": kind}
    for name, value in values.items():
        assert f"@{name}@" in program
        program = program.replace(f"@{name}@", value)
    path = folder / "program"
    path.write_text(program)
    path.chmod(0o755)
    return path


def test_every_module_of_ros_that_runs_a_node_is_installed_as_one() -> None:
    installed = re.findall(
        r"^install_executable\((\w+) siamcar_ros\.ros\.\1 \S+ node\)$",
        (ROOT / "CMakeLists.txt").read_text(),
        re.MULTILINE,
    )
    nodes = {
        file.stem
        for file in (ROOT / "siamcar_ros" / "ros").glob("*.py")
        if re.search(r"^def main\(.*\b(run_node|start_rclpy)\(", file.read_text(), re.M | re.S)
    }
    assert set(installed) == nodes


@pytest.mark.parametrize(
    ("kind", "interrupted", "status", "said"),
    [
        ("command", "importing", 130, ""),
        ("command", "at work", 0, "done\n"),
        ("node", "importing", 0, ""),
    ],
)
def test_an_executable_ends_without_a_traceback(
    tmp_path: Path, kind: str, interrupted: str, status: int, said: str
) -> None:
    """At once while it imports; a command's main then has KeyboardInterrupt as usual."""
    (tmp_path / "slow.py").write_text(
        "import sys, time\n"
        "def wait(at):\n"
        "    print(at, flush=True)\n"
        "    time.sleep(60 if at == sys.argv[1] else 0)\n"
        "wait('importing')\n"
        "def main():\n"
        "    try:\n"
        "        wait('at work')\n"
        "    except KeyboardInterrupt:\n"
        "        print('done')\n"
        "    return 0\n"
    )
    program = executable(tmp_path, "slow", kind)
    with subprocess.Popen(
        [str(program), interrupted],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while process.stdout.readline().strip() != interrupted:
            pass
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (status, said, "")


def test_an_executable_may_start_worker_processes(tmp_path: Path) -> None:
    """Spawned ones import the program that started them."""
    (tmp_path / "many.py").write_text(
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "def main():\n"
        "    with ProcessPoolExecutor(2, mp_context=get_context('spawn')) as pool:\n"
        "        print(*pool.map(abs, (-1, -2)))\n"
        "    return 0\n"
    )
    program = executable(tmp_path, "many")
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 2\n", "")


def test_wheels_are_pointed_at_this_pythons_headers(tmp_path: Path) -> None:
    point_at_headers = runpy.run_path(str(ROOT / "tools" / "mend_ros_wheels.py"))[
        "point_at_headers"
    ]
    file = tmp_path / "share" / "std_msgs" / "cmake" / "export.cmake"
    file.parent.mkdir(parents=True)
    built = "/opt/python/cp311-cp311"
    file.write_text(
        f'INCLUDES "{built}/include/python3.11;'
        f'{built}/lib/python3.11/site-packages/numpy/_core/include;/usr/include"\n'
    )
    assert point_at_headers(tmp_path) == 1
    assert file.read_text() == (
        f'INCLUDES "{sysconfig.get_path("include")};{np.get_include()};/usr/include"\n'
    )
    assert point_at_headers(tmp_path) == 0
