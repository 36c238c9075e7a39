"""The node's health as /diagnostics tells it."""

from __future__ import annotations

from dataclasses import dataclass

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue


@dataclass(frozen=True)
class Health:
    """What is known of the node at one moment.

    Attributes:
        active: whether the node takes images.
        topic: of the images, resolved.
        publishers: of that topic.
        silence: seconds since the last image, or since activation.
        silence_allowed: before that is worth a warning.
        used: images that could be used since the last report.
        failed: images that could not.
        trouble: what was wrong with the last of them.
        busy: seconds that the tracker has been at one image or request.
        busy_allowed: before it counts as stuck.
        values: further figures, by name.
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
    values: dict[str, object]

    @property
    def silent(self) -> bool:
        """Whether images are missing, and nothing else is the matter."""
        troubled = self.failed or self.busy > self.busy_allowed
        return self.active and not troubled and self.silence > self.silence_allowed

    def summary(self) -> tuple[bytes, str]:
        """The level, of DiagnosticStatus, and a line that says why."""
        if not self.active:
            return DiagnosticStatus.OK, "inactive"
        if self.busy > self.busy_allowed:
            return DiagnosticStatus.ERROR, f"the tracker is stuck: busy for {self.busy:.1f} s"
        if self.failed:
            level = DiagnosticStatus.WARN if self.used else DiagnosticStatus.ERROR
            return level, f"{self.failed} images not used: {self.trouble}"
        if self.silent:
            return (
                DiagnosticStatus.WARN,
                f"no image on {self.topic} for {self.silence:.1f} s ({self.publishers} publishers)",
            )
        return DiagnosticStatus.OK, "running"


def diagnostic_array(stamp: Time, node_name: str, hardware: str, health: Health) -> DiagnosticArray:
    """The message for /diagnostics; hardware: the device in use."""
    level, line = health.summary()
    values = [KeyValue(key=key, value=_text(value)) for key, value in health.values.items()]
    status = DiagnosticStatus(
        level=level, name=f"{node_name}: tracker", message=line, hardware_id=hardware, values=values
    )
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp
    return array


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
