"""The subscription to the camera's images."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions

from siamcar_ros.ros.messages import OVERRIDABLE

RELIABILITY = {
    "reliable": ReliabilityPolicy.RELIABLE,
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
}

# By transport: package and type of its messages. A packet of a video needs the ones before it.
_TYPES = {
    "raw": ("sensor_msgs", "Image"),
    "compressed": ("sensor_msgs", "CompressedImage"),
    "ffmpeg": ("ffmpeg_image_transport_msgs", "FFMPEGPacket"),
    "foxglove": ("foxglove_msgs", "CompressedVideo"),
}
VIDEO = ("ffmpeg", "foxglove")
_VIDEO_DEPTH = 60


class ImageSubscription:
    """Subscribes to an image topic, or to TOPIC/TRANSPORT for other transports than raw.

    The queue holds one image, or 60 packets of a video. A publisher with an incompatible quality of
    service is logged with what to change. "auto" requests reliable and changes to best effort if a
    publisher offers no more. (On many links a large best-effort image is lost with any of its
    fragments, so best effort is not the first choice.)

    `transport` is one of `parameters.TRANSPORTS`, `topic` the base topic.
    """

    def __init__(
        self,
        node: Node,
        *,
        transport: str,
        reliability: str,
        on_message: Callable[[Any], None],
        topic: str = "image",
    ) -> None:
        self._node = node
        package, name = _TYPES[transport]
        try:
            self._type = getattr(import_module(f"{package}.msg"), name)
        except ImportError as error:
            raise ValueError(
                f"image_transport {transport} needs the package {package}, which is not installed"
            ) from error
        self._depth = _VIDEO_DEPTH if transport in VIDEO else 1
        self._auto = reliability == "auto"
        self._on_message = on_message
        # Like image_transport: a remapping of the base topic applies to the others, too.
        base = node.resolve_topic_name(topic)
        self.topic = base if transport == "raw" else f"{base}/{transport}"
        self._subscribe("reliable" if self._auto else reliability, OVERRIDABLE)

    @property
    def publishers(self) -> int:
        """The number of publishers of the topic, compatible or not."""
        return int(self._node.count_publishers(self.topic))

    def destroy(self) -> None:
        """Destroy the subscription."""
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self, reliability: str, overridable: QoSOverridingOptions) -> None:
        profile = QoSProfile(depth=self._depth, reliability=RELIABILITY[reliability])
        self._reliability = reliability  # for `_on_incompatible`, which may be called at once
        self._subscription = self._node.create_subscription(
            self._type,
            self.topic,
            self._on_message,
            profile,
            qos_overriding_options=overridable,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible),
        )
        self._reliability = profile.reliability.name.lower()  # as overridden
        self._node.get_logger().info(f"subscribed to {self.topic} ({self._reliability})")

    def _on_incompatible(self, event: QoSRequestedIncompatibleQoSInfo) -> None:
        logger = self._node.get_logger()
        policy = event.last_policy_kind
        if policy != QoSPolicyKind.RELIABILITY:
            name = qos_policy_name_from_kind(policy)
            logger.error(
                f"a publisher of {self.topic} offers an incompatible {name}: none of its images "
                "will arrive; change its quality of service"
            )
        elif self._auto and self._reliability == "reliable":
            logger.info(f"a publisher of {self.topic} offers only best effort: changing to that")
            self.destroy()
            # The first subscription declared its reliability as a parameter, which says reliable
            # and would override this one.
            others = QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH))
            self._subscribe("best_effort", others)
        else:
            logger.error(
                f"a publisher of {self.topic} offers best effort, this node asks for reliable: "
                "none of its images will arrive; set the parameter qos_reliability to auto or "
                "best_effort, or make the publisher reliable"
            )
