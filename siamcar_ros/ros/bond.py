"""The heartbeat by which nav2's lifecycle manager notices that a node has died."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node


def form_bond(node: Node) -> Any:
    """Begin to send heartbeats on the topic `bond`, as nav2's nodes do while they are active.

    Returns:
        the bond, to be ended with `shutdown()`; None if bondpy is not installed.
    """
    try:
        from bondpy.bondpy import Bond
    except ImportError:
        node.get_logger().info(
            "no bond with a lifecycle manager: bondpy is not installed; nav2's needs bond_timeout 0"
        )
        return None
    bond = Bond(node, "bond", node.get_name())
    bond.start()
    return bond
