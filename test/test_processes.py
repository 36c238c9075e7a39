"""Children end with their parent, however stubborn they are."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from siamcar_ros.processes import Child

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("grandchild", child.pid, flush=True)
time.sleep(600)
"""


def _module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    (folder / "a_child.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
    return "a_child"


def _gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_child_that_ignores_signals_is_killed_with_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = _module(tmp_path, monkeypatch, STUBBORN)
    monkeypatch.setattr("siamcar_ros.processes.PATIENCE", (0.2, 0.2, 5.0))
    with Child("stubborn", module, [], tmp_path / "log") as child:
        child.start()
        while "grandchild" not in child.tail():
            assert child.running
            time.sleep(0.02)
        grandchild = int(child.tail().split()[-1])
        assert not _gone(grandchild)
    assert not child.running
    deadline = time.monotonic() + 120  # loaded machines are slow
    while not _gone(grandchild):
        assert time.monotonic() < deadline, "the grandchild outlived its parents"
        time.sleep(0.02)


def test_a_childs_end_and_last_words_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "print('first'); print('last words'); raise SystemExit(3)"
    with Child("brief", _module(tmp_path, monkeypatch, text), [], tmp_path / "log") as child:
        child.start()
        deadline = time.monotonic() + 30
        while child.running and time.monotonic() < deadline:
            time.sleep(0.02)
        assert child.status == 3
        assert child.tail(1).strip() == "last words"


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)  # the interpreter hears it between two instructions


def test_a_child_that_is_just_being_started_is_ended_by_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(real(*arguments, **options))
        _interrupt()  # it runs, and its starter does not know it yet
        return started[0]

    module = _module(tmp_path, monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt), Child("new", module, [], tmp_path / "log") as child:
        child.start()
    assert started[0].returncode is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_kills_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module(tmp_path, monkeypatch, STUBBORN)
    child = Child("stubborn", module, [], tmp_path / "log")
    child.start()
    while "grandchild" not in child.tail():
        assert child.running
        time.sleep(0.02)
    grandchild = int(child.tail().split()[-1])
    monkeypatch.setattr(subprocess.Popen, "wait", lambda *_: _interrupt())
    with pytest.raises(KeyboardInterrupt):
        child.end()
    monkeypatch.undo()
    deadline = time.monotonic() + 120  # loaded machines are slow
    while child.running or not _gone(grandchild):
        assert time.monotonic() < deadline, "it outlived the second interrupt"
        time.sleep(0.02)
    assert child.status == -signal.SIGKILL
