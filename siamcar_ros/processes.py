"""Child processes that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

PARENT_VARIABLE = "SIAMCAR_PARENT_PID"
"""Environment variable with the id of the process with which a node is to end."""

# Seconds to wait after SIGINT, SIGTERM and SIGKILL before the next one is sent.
PATIENCE = (5.0, 2.0, 5.0)
# Sent by Ctrl-C, by `kill`, and by a terminal that is closed.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child:
    """A Python module that runs in its own process, with its output in a file.

    Leaving its context ends it, by SIGINT first and by SIGKILL if that does not help. Start it
    inside the context, so that no signal can arrive while it runs outside of one:

        with Child("the node", "siamcar_ros.ros.tracker_node", [], log) as child:
            child.start()

    Args:
        name: for messages.
        module: run as `python -m module`.
        arguments: its command line.
        log: file for its output.
    """

    def __init__(self, name: str, module: str, arguments: list[str], log: Path) -> None:
        self.name, self.log = name, log
        self._command = [sys.executable, "-m", module, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """Start the process, from the main thread; signals that arrive meanwhile come afterwards.

        Raises:
            OSError: the log cannot be written, or no process can be started.
        """
        held: list[int] = []
        with (
            self.log.open("wb") as output,
            signals_handled(ENDINGS, lambda number, _: held.append(number)),
        ):
            # in its own session, so that Ctrl-C in the terminal reaches only this process
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | {PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        for number in dict.fromkeys(held):
            signal.raise_signal(number)

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status; None until the process has ended."""
        return self._process.poll() if self._process is not None else None

    def tail(self, lines: int = 12) -> str:
        """Return the last lines of its output."""
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in text[-lines:])

    def end(self) -> None:
        """End the process and everything that it started; at once if this, too, is interrupted."""
        process = self._process
        if process is None:
            return
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
        try:
            for number, wait in zip(signals, PATIENCE, strict=True):
                if not self.running:
                    break
                _signal_session(process.pid, number)
                try:
                    process.wait(wait)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            _signal_session(process.pid, signal.SIGKILL)


@contextmanager
def unwind_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block, so that the children in it are ended.

    They raise SystemExit with the status that a shell reports for them, as SIGINT raises
    KeyboardInterrupt. A signal that is ignored, as under nohup, stays ignored.
    """

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    kinds = [kind for kind in ENDINGS if signal.getsignal(kind) is signal.SIG_DFL]
    with signals_handled(kinds, leave):
        yield


@contextmanager
def signals_handled(
    kinds: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Let `handler` take these signals in the block; the previous handlers take over after it."""
    before = [signal.signal(kind, handler) for kind in kinds]
    try:
        yield
    finally:
        for kind, previous in zip(kinds, before, strict=True):
            signal.signal(kind, previous)


def _signal_session(leader: int, number: signal.Signals) -> None:
    """Send a signal to the process group of `leader`, if there is one left."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return
