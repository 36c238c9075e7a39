"""The subscription to the camera's images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from sensor_msgs.msg import CompressedImage, Image

_POLICY = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


class ImageSubscription:
    """Subscribes to a topic, or to its `compressed`, keeping the newest message only.

    A publisher with an incompatible quality of service is logged with what to change. "auto" asks
    for reliable and changes to best effort if a publisher offers no more. (On many links a large
    best-effort image is lost with any of its fragments, so best effort is not the first choice.)

    Args:
        transport: "raw" or "compressed".
        reliability: "reliable", "best_effort" or "auto".
        on_message: called with each message.
        topic: the base topic.
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
        self._type = CompressedImage if transport == "compressed" else Image
        self._auto = reliability == "auto"
        self._on_message = on_message
        # Like image_transport: a remapping of the base topic applies to the compressed one, too.
        base = node.resolve_topic_name(topic)
        self.topic = f"{base}/compressed" if transport == "compressed" else base
        self._subscribe("reliable" if self._auto else reliability)

    @property
    def publishers(self) -> int:
        """The number of publishers of the topic, compatible or not."""
        return int(self._node.count_publishers(self.topic))

    def destroy(self) -> None:
        """Destroy the subscription."""
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self, reliability: str) -> None:
        self._reliability = reliability
        self._subscription = self._node.create_subscription(
            self._type,
            self.topic,
            self._on_message,
            QoSProfile(depth=1, reliability=_POLICY[reliability]),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible),
        )
        self._node.get_logger().info(f"subscribed to {self.topic} ({reliability})")

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
            self._subscribe("best_effort")
        else:
            logger.error(
                f"a publisher of {self.topic} offers best effort, this node asks for reliable: "
                "none of its images will arrive; set the parameter qos_reliability to auto or "
                "best_effort, or make the publisher reliable"
            )
