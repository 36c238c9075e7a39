"""The executable `operator_console`: a web page on which an operator picks targets.

    ros2 run siamcar_ros operator_console --ros-args -p host:=127.0.0.1 -p port:=8484

Then open http://127.0.0.1:8484. The page shows the images of any tracker node in the ROS graph,
starts targets where a box is drawn or a point is tapped, and follows and stops them. See
docs/console.md. Requires aiohttp (the extra `console`).
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from urllib.parse import quote

from rclpy.node import Node

try:
    from aiohttp import web

    from siamcar_ros.ros.console.server import LOOPBACK, Console
except ModuleNotFoundError as missing:
    if missing.name != "aiohttp":
        raise
    sys.exit("error: operator_console needs aiohttp: pip install aiohttp")
from siamcar_ros.ros.command_line import declare_read_only, run_node
from siamcar_ros.ros.console.camera import Camera

_SERVICE = "siamcar_ros/srv/InitTarget"
_LEAST_TOKEN = 16  # characters


class OperatorConsole(Node):
    """Holds the parameters and finds the tracker nodes; it subscribes to nothing itself."""

    def __init__(self) -> None:
        # It is not spun, so it offers no services.
        super().__init__("operator_console", start_parameter_services=False)
        parameter = partial(declare_read_only, self)
        self.host = parameter(
            "host", "127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines connect."
        )
        self.port = parameter("port", 8484, "TCP port to listen on.", range=(1, 65535))
        self.token = parameter(
            "token",
            "",
            f"Secret of {_LEAST_TOKEN} characters or more that a page must send; empty: a random "
            "one if other machines can connect, otherwise none.",
        )
        trackers = parameter(
            "trackers", "", "Names of the tracker nodes, separated by commas; empty: all."
        )
        self.rate = parameter("rate", 15.0, "Pictures per second at most.", range=(0.1, 100.0))
        if self.token and len(self.token) < _LEAST_TOKEN:
            raise ValueError(f"token has fewer than {_LEAST_TOKEN} characters: make it longer")
        self.local = self.host in LOOPBACK
        if not self.token and not self.local:
            self.token = secrets.token_urlsafe(16)
        names = [each.strip() for each in trackers.split(",") if each.strip()]
        self._named = [self.resolve_topic_name(each) for each in names]

    @property
    def address(self) -> str:
        """The URL of the page, including the token."""
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/" + (f"#{quote(self.token)}" if self.token else "")

    def find(self) -> list[str]:
        """Return the full names of the tracker nodes."""
        if self._named:
            return self._named
        return sorted(
            name.rpartition("/")[0]
            for name, kinds in self.get_service_names_and_types()
            if _SERVICE in kinds
        )


async def _serve() -> None:
    """Serve until SIGINT or SIGTERM; raise OSError if the address is not available."""
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    node = OperatorConsole()
    console = Console(node.find, Camera, token=node.token, local=node.local, rate=node.rate)
    runner = web.AppRunner(console.app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, node.host, node.port).start()
        except OSError as error:
            why = f"cannot listen on {node.host}, port {node.port} ({error.strerror})"
            raise OSError(f"{why}: set the parameters host and port to others") from error
        node.get_logger().info(f"open {node.address}")
        await interrupted.wait()
    finally:
        await runner.cleanup()


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the process's exit status."""
    usage = __doc__ or ""
    return run_node(
        "operator_console", usage, lambda: asyncio.run(_serve()), args, own_signals=True
    )


if __name__ == "__main__":
    sys.exit(main())
