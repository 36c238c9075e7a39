"""Child processes that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

# Seconds after an interrupt, a termination and a kill before the next one.
PATIENCE = (5.0, 2.0, 5.0)
# What ends a process from outside: Ctrl-C, `kill`, a terminal that is closed.
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child:
    """One Python module running as a process of its own, its output in a file.

    As a context it is ended on leaving: interrupted first, killed when that does not help. It is
    started inside its context, so that no signal finds it running and out of reach:

        with Child("the node", "siamcar_ros.ros.tracker_node", [], log) as child:
            child.start()

    Args:
        name: for messages.
        module: run as `python -m module`.
        arguments: its command line.
        log: file that takes its output.
        environment: of the process; None is this one's own.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: list[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._environment = environment
        self._command = [sys.executable, "-m", module, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def start(self) -> None:
        """Start the process; a signal that comes meanwhile is heard right after.

        Raises:
            OSError: the log cannot be written, or there are no processes to be had.
        """
        with self.log.open("wb") as output, _undisturbed():
            # in a session of its own, so that an interrupt at the terminal reaches only us
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether the process still runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status; None until it has ended."""
        return self._process.poll() if self._process is not None else None

    def tail(self, lines: int = 12) -> str:
        """The last lines of its output."""
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in text[-lines:])

    def end(self) -> None:
        """End the process and all that it started, at once where this, too, is interrupted."""
        process = self._process
        if process is None:
            return
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
        try:
            for sign, wait in zip(signals, PATIENCE, strict=True):
                if not self.running:
                    break
                _signal_session(process.pid, sign)
                try:
                    process.wait(wait)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            _signal_session(process.pid, signal.SIGKILL)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Leave the block, children and all, where a signal would end the process on the spot.

    SIGTERM and SIGHUP raise SystemExit with the status that a shell gives for them, as SIGINT
    raises KeyboardInterrupt; one that is ignored, as nohup has it, stays so.
    """

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    kinds = [kind for kind in _ENDINGS if signal.getsignal(kind) is signal.SIG_DFL]
    before = [signal.signal(kind, leave) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _signal_session(leader: int, sign: signal.Signals) -> None:
    """To all processes of the session that `leader` has opened, where there are any left."""
    try:
        os.killpg(leader, sign)
    except ProcessLookupError:
        return


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back the signals that end a process until the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's alone
        return
    held: list[int] = []
    before = [signal.signal(kind, lambda number, _: held.append(number)) for kind in _ENDINGS]
    try:
        yield
    finally:
        for kind, handler in zip(_ENDINGS, before, strict=True):
            signal.signal(kind, handler)
    for number in dict.fromkeys(held):
        signal.raise_signal(number)
