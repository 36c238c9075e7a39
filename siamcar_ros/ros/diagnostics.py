"""The node's counters, and its health as `/diagnostics` reports it."""

from __future__ import annotations

from dataclasses import dataclass

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from siamcar_ros.msg import TrackStatus


@dataclass
class Counters:
    """Counts of images since the node was configured; each is written by one thread only.

    Attributes:
        received: all.
        refused: cannot be decoded, as their header or size tells.
        out_of_order: dropped because of their stamps.
        dropped: replaced by a newer one before the tracker took them.
        tracked: the tracker ran on them; includes those by which a target caught up.
        used: tracked, or looked at while there was no target.
        failed: could not be decoded, or the tracker raised an error.
        trouble: what was wrong with the last image that was refused or failed, in words.
    """

    received: int = 0
    refused: int = 0
    out_of_order: int = 0
    dropped: int = 0
    tracked: int = 0
    used: int = 0
    failed: int = 0
    trouble: str = ""

    def fill(self, status: TrackStatus) -> TrackStatus:
        """Write the counters into a status message and return it."""
        status.frames_received = self.received
        status.frames_tracked = self.tracked
        status.frames_dropped = self.dropped + self.out_of_order
        status.frames_failed = self.failed + self.refused
        return status


@dataclass(frozen=True)
class Health:
    """The state of the node at one moment.

    Attributes:
        active: the node is active.
        topic: resolved name of the image topic.
        publishers: number of publishers of that topic.
        silence: seconds since the last image, or since activation.
        silence_allowed: seconds of silence before a warning.
        used: images used since the last report.
        failed: images refused or failed since the last report.
        trouble: what was wrong with the last of them.
        busy: seconds that the tracker has been working on one image or request.
        busy_allowed: seconds before it counts as stuck.
        twins: number of nodes that have this node's name.
        values: further figures by name.
    """

    active: bool
    topic: str
    publishers: int
    silence: float
    silence_allowed: float
    used: int
    failed: int
    trouble: str
    busy: float
    busy_allowed: float
    twins: int
    values: dict[str, object]

    @property
    def silent(self) -> bool:
        """Whether images are missing and nothing else is wrong."""
        troubled = self.failed or self.busy > self.busy_allowed
        return self.active and not troubled and self.silence > self.silence_allowed

    def summary(self) -> tuple[bytes, str]:
        """Return a level of DiagnosticStatus and a line that says why."""
        if not self.active:
            return DiagnosticStatus.OK, "inactive"
        if self.busy > self.busy_allowed:
            return DiagnosticStatus.ERROR, f"the tracker is stuck: busy for {self.busy:.1f} s"
        if self.failed:
            level = DiagnosticStatus.WARN if self.used else DiagnosticStatus.ERROR
            return level, f"{self.failed} images not used: {self.trouble}"
        if self.twins > 1:
            return (
                DiagnosticStatus.WARN,
                f"{self.twins} nodes have this name: each acts on every call",
            )
        if self.silent:
            return (
                DiagnosticStatus.WARN,
                f"no image on {self.topic} for {self.silence:.1f} s ({self.publishers} publishers)",
            )
        return DiagnosticStatus.OK, "running"


def count_nodes(node: Node, name: str) -> int:
    """Return how many nodes that `node` sees have this full name."""
    names = node.get_node_names_and_namespaces()
    return sum(f"{namespace.rstrip('/')}/{each}" == name for each, namespace in names)


def diagnostic_array(stamp: Time, node_name: str, hardware: str, health: Health) -> DiagnosticArray:
    """Return the message for /diagnostics; `hardware` is the device in use."""
    level, line = health.summary()
    told = {"image topic": health.topic} | health.values
    values = [KeyValue(key=key, value=_text(value)) for key, value in told.items()]
    status = DiagnosticStatus(
        level=level, name=f"{node_name}: tracker", message=line, hardware_id=hardware, values=values
    )
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
