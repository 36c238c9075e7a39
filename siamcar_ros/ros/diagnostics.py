"""The node's counters, and its health as `/diagnostics` reports it."""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

# Seconds that the tracker may spend on one image or request before it counts as stuck.
STUCK_AFTER = 5.0


@dataclass
class Counters:
    """Counts of images since the node was configured; each is written by one thread only."""

    received: int = 0
    refused: int = 0  # because of their header or size
    out_of_order: int = 0  # dropped because of their stamps
    dropped: int = 0  # replaced by a newer one before the tracker took them
    tracked: int = 0  # including those by which a target caught up
    used: int = 0  # tracked, or looked at while there was no target
    failed: int = 0  # could not be decoded, or the tracker raised an error
    trouble: str = ""  # what was wrong with the last image that was refused or failed


@dataclass(frozen=True)
class Health:
    """The state of the node at one moment. Times are in seconds."""

    active: bool
    topic: str  # of the images, resolved
    publishers: int  # of that topic
    silence: float  # since the last image, or since activation
    silence_allowed: float  # before a warning
    used: int  # images since the last report
    failed: int  # images refused or failed since the last report
    trouble: str  # what was wrong with the last of them
    busy: float  # time that the tracker has been working on one image or request
    twins: int  # nodes that have this node's name

    @property
    def silent(self) -> bool:
        """Whether no images arrive and nothing else is wrong."""
        troubled = self.failed or self.busy > STUCK_AFTER
        return self.active and not troubled and self.silence > self.silence_allowed

    def summary(self) -> tuple[bytes, str]:
        """Return a level of DiagnosticStatus and a line that says why."""
        if not self.active:
            return DiagnosticStatus.OK, "inactive"
        if self.busy > STUCK_AFTER:
            return DiagnosticStatus.ERROR, f"the tracker is stuck: busy for {self.busy:.1f} s"
        if self.failed:
            level = DiagnosticStatus.WARN if self.used else DiagnosticStatus.ERROR
            return level, f"{self.failed} images not used: {self.trouble}"
        if self.twins > 1:
            line = f"{self.twins} nodes have this name: each acts on every call"
            return DiagnosticStatus.WARN, line
        if self.silent:
            silence = f"{self.silence:.1f} s ({self.publishers} publishers)"
            return DiagnosticStatus.WARN, f"no image on {self.topic} for {silence}"
        return DiagnosticStatus.OK, "running"


def count_nodes(node: Node, name: str) -> int:
    """Return how many nodes that `node` sees have this full name."""
    names = node.get_node_names_and_namespaces()
    return sum(f"{namespace.rstrip('/')}/{each}" == name for each, namespace in names)
