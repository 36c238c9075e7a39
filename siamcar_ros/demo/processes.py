"""Child processes that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

# Seconds after an interrupt, a termination and a kill before the next one.
PATIENCE = (5.0, 2.0, 5.0)


class Child:
    """One Python module running as a process of its own, its output in a file.

    As a context it is ended on leaving: interrupted first, killed when that does not help.

    Args:
        name: for messages.
        module: run as `python -m module`.
        arguments: its command line.
        log: file that takes its output.
    """

    def __init__(self, name: str, module: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            # in a session of its own, so that an interrupt at the terminal reaches only us
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def running(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def tail(self, lines: int = 12) -> str:
        """The last lines of its output."""
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in text[-lines:])

    def end(self) -> None:
        """End the process and all that it started."""
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
        for sign, wait in zip(signals, PATIENCE, strict=True):
            if not self.running:
                break
            self._signal(sign)
            try:
                self._process.wait(wait)
            except subprocess.TimeoutExpired:
                continue
        self._signal(signal.SIGKILL)

    def _signal(self, sign: signal.Signals) -> None:
        """To the whole session, whose number is the process's own."""
        try:
            os.killpg(self._process.pid, sign)
        except ProcessLookupError:
            return
