"""The managed node."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import State
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ROSInterruptException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from siamcar_ros.files import reason
from siamcar_ros.ros.action import TrackAction
from siamcar_ros.ros.camera_motion import CameraMotion
from siamcar_ros.ros.detections import Detections
from siamcar_ros.ros.diagnostics import Counters, Health, count_nodes
from siamcar_ros.ros.image_input import ImageInput
from siamcar_ros.ros.loading import evict, load_tracker
from siamcar_ros.ros.messages import OVERRIDABLE, checked_overrides
from siamcar_ros.ros.outputs import Outputs
from siamcar_ros.ros.parameters import NodeSettings, declare
from siamcar_ros.ros.ring import FrameRing, free_memory
from siamcar_ros.ros.services import TargetServices
from siamcar_ros.ros.targets import Tracked
from siamcar_ros.ros.worker import TrackWorker
from siamcar_ros.runtime import Network

_MEGA = 1_000_000
_FREE_MEMORY = free_memory()
# Seconds that the worker has to finish its frame when the node is cleaned up.
_CLOSE_TIMEOUT = 1.0
# Seconds between log lines while the network is being loaded.
_LOADING_PERIOD = 10.0


class TrackerNode(LifecycleNode):
    """Tracks targets in a camera's images.

    Unconfigured, it has its parameters, and services that say what is missing. Configuring loads
    the network and warms it up; activating subscribes to the images; deactivating ends all tracks
    and forgets the images and camera_info; cleaning up frees the tracker. Callbacks only store
    images and answer requests; the worker's thread tracks and publishes.

    Attributes:
        settings: of all parameters; replaced as a whole when one changes.
        camera_info: the newest; None while there is none.
        ring: the recent images.
        counters: of images since the node was configured.
        detections: of a detector; None without one, and while the node is not active.
        camera_motion: likewise, from the parameter `camera_rates`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("tracker", **options)
        self.settings = declare(self)
        self.camera_info: CameraInfo | None = None
        self.ring = FrameRing(**_ring_limits(self.settings))
        self.counters = self._reported = Counters()
        self.detections: Detections | None = None
        self.camera_motion: CameraMotion | None = None
        self._worker: TrackWorker | None = None
        self._network: Network | None = None
        self._outputs: Outputs | None = None
        self._images: ImageInput | None = None
        self._active = ExitStack()  # ends what an active node has
        self._silent = False
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._action = TrackAction(self, TargetServices(self))
        with checked_overrides():
            self._diagnostics = self.create_publisher(
                DiagnosticArray, "/diagnostics", 10, qos_overriding_options=OVERRIDABLE
            )
        # The steady clock: simulated time may stand still, and that is worth a report.
        steady, period = Clock(clock_type=ClockType.STEADY_TIME), 1 / self.settings.status_rate
        self._timer = self.create_timer(period, self._report, clock=steady)
        self._answer_illegal_transitions()

    def start(self) -> bool:
        """Configure and activate; return False if that fails, which is logged."""
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def close(self) -> bool:
        """End the worker's thread; return False if it did not end in time."""
        return self._worker is None or self._worker.close(_CLOSE_TIMEOUT)

    def ready(self) -> tuple[TrackWorker, ImageInput]:
        """Return what an active node has; raise ValueError if it is not active."""
        if self._worker is None or self._images is None:
            if self._state_machine.current_state[0] == State.PRIMARY_STATE_FINALIZED:
                raise ValueError("the node has been shut down: start a new one")
            raise ValueError(
                "the node is not active: ros2 lifecycle set "
                f"{self.get_fully_qualified_name()} "
                + ("configure" if self._worker is None else "activate")
            )
        return self._worker, self._images

    def forget(self, reason: str) -> None:
        """Forget all images and what belongs to them, and end all tracks."""
        self.ring.clear()
        if self.camera_motion is not None:
            self.camera_motion.forget()
        if self._outputs is not None:
            self._outputs.positions.forget()
        if self._worker is not None:
            self._worker.mailbox.empty_slot()
            self._worker.stop(reason)

    def subscribe(
        self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile
    ) -> None:
        """Subscribe to a topic until the node is deactivated."""
        subscription = self.create_subscription(
            kind, topic, callback, qos, qos_overriding_options=OVERRIDABLE
        )
        self._active.callback(self.destroy_subscription, subscription)

    # Lifecycle. rclpy swallows the exceptions of a transition, so each is wrapped.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and warm it up."""
        done = super().on_configure
        return self._transition("configure", self._load, done, state, undo=self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        done = super().on_activate
        return self._transition("activate", self._activate, done, state, undo=self._deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End all tracks and the subscriptions."""
        return self._transition("deactivate", self._deactivate, super().on_deactivate, state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the tracker."""
        return self._transition("clean up", self._release, super().on_cleanup, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End everything."""
        return self._transition("shut down", self._release, super().on_shutdown, state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        return self._transition("recover", self._release, super().on_error, state)

    def _transition(
        self,
        name: str,
        action: Callable[[], None],
        done: Callable[[LifecycleState], TransitionCallbackReturn],
        state: LifecycleState,
        undo: Callable[[], None] = lambda: None,
    ) -> TransitionCallbackReturn:
        logger = self.get_logger()
        try:
            begin = time.perf_counter()
            action()
            logger.info(f"{name}: done in {time.perf_counter() - begin:.2f} s")
            return done(state)
        except Exception as error:
            undo()
            if isinstance(error, (ValueError, OSError)):
                logger.error(f"cannot {name}: {reason(error)}")
            elif self.context.ok():  # else ended by a signal during the transition
                logger.error(f"cannot {name}: {traceback.format_exc()}")
                return TransitionCallbackReturn.ERROR
            return TransitionCallbackReturn.FAILURE

    def _load(self) -> None:
        settings = self.settings
        self.counters, self._reported = Counters(), Counters()
        logger = self.get_logger()
        logger.info(f"loading the network of config {settings.config!r}")
        worker = TrackWorker(self, lambda: load_tracker(settings), self._publish)
        # Loading takes seconds, during which signals must be noticed.
        begin = logged = time.perf_counter()
        while not wait([worker.loaded], timeout=0.1).done:
            if not self.context.ok():
                raise ROSInterruptException
            now = time.perf_counter()
            if now - logged >= _LOADING_PERIOD:
                logged = now
                logger.info(
                    f"still loading after {now - begin:.0f} s: the first start on a machine may "
                    "convert the network, later ones are faster"
                )
        network: Any = worker.loaded.result().network
        self._worker, self._network = worker, network
        with checked_overrides():
            self._outputs = Outputs(self, network)
        logger.info(f"{network.name} on {network.device} with {network.backend} ({network.reason})")

    @checked_overrides()
    def _activate(self) -> None:
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.subscribe(CameraInfo, "camera_info", self._set_camera_info, newest)
        if self.settings.camera_rates:
            self.camera_motion = CameraMotion(self)
        if self.settings.depth and self._outputs is not None:
            self._active.callback(self._outputs.positions.subscribe().destroy)
        worker = self._worker
        assert worker is not None
        self._images = ImageInput(self, worker)
        self._active.callback(self._images.destroy)
        if self.settings.use_detections:
            self.detections = Detections(self, worker)
        if not self.settings.autostart:
            self._form_bond()

    def _form_bond(self) -> None:
        """Begin to send the heartbeats by which nav2's lifecycle manager notices a node's death."""
        try:
            from bondpy.bondpy import Bond
        except ImportError:
            self.get_logger().info(
                "no bond with a lifecycle manager: bondpy is not installed; nav2's needs "
                "bond_timeout 0"
            )
            return
        bond = Bond(self, "bond", self.get_name())
        bond.start()
        self._active.callback(bond.shutdown)

    def _deactivate(self) -> None:
        self._active.close()
        self._images = self.detections = self.camera_motion = self.camera_info = None
        self.forget("the node was deactivated")

    def _release(self) -> None:
        self._deactivate()
        if self._worker is not None and not self._worker.close(_CLOSE_TIMEOUT):
            self.get_logger().warning(
                "the tracker is still busy with an image: its thread is abandoned"
            )
            if self._network is not None:
                evict(self._network)
        self._worker = self._network = None
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None

    def _answer_illegal_transitions(self) -> None:
        """Answer requests for transitions that the state does not allow.

        rclpy raises RCLError from the service's callback, which ends spinning without an answer.
        """
        service = self._service_change_state
        change_state = service.callback

        def answered(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except rclpy_implementation.RCLError as error:
                self.get_logger().warning(f"transition refused: {error}")
                response.success = False
                return response

        service.callback = answered

    # Images

    def _set_camera_info(self, message: CameraInfo) -> None:
        self.camera_info = message

    def _publish(self, tracked: Tracked) -> None:
        """Called in the worker's thread."""
        outputs = self._outputs
        if outputs is None or not self.context.ok():
            return
        try:
            tracks = outputs.publish(tracked, with_goals=self._action.active)
            if tracks is not None:
                self._action.report(tracks, tracked.targets)
        except rclpy_implementation.RCLError:
            if self.context.ok():  # else it was ended by a signal
                raise

    # Parameters

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            self.settings.changed({each.name: each.value for each in parameters})
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        before = self.settings
        self.settings = before.changed({each.name: each.value for each in parameters})
        self.ring.resize(**_ring_limits(self.settings))
        if self.settings.status_rate != before.status_rate:
            self._timer.timer_period_ns = int(1e9 / self.settings.status_rate)
            self._timer.reset()

    # Reports

    def _report(self) -> None:
        if not self.context.ok():
            return  # the last tick before the node ends
        worker, images, outputs = self._worker, self._images, self._outputs
        if images is not None and outputs is not None and worker and not worker.targets:
            newest = self.ring.newest()
            outputs.publish_status(Header() if newest is None else newest.header)
        name = self.get_fully_qualified_name()
        twins = count_nodes(self, name)
        if twins > 1:
            self.get_logger().warning(
                f"{twins} nodes are called {name}: all of them act on every call. End the "
                "others, or start them with another name or namespace",
                once=True,
            )
        now, before = replace(self.counters), self._reported
        self._reported = now
        health = Health(
            active=images is not None,
            topic=images.topic if images else "",
            publishers=images.publishers if images else 0,
            silence=time.perf_counter() - images.last_arrival if images else 0.0,
            silence_allowed=self.settings.image_timeout,
            used=now.used - before.used,
            failed=now.failed + now.refused - before.failed - before.refused,
            trouble=now.trouble,
            busy=worker.busy if worker else 0.0,
            twins=twins,
        )
        level, line = health.summary()
        if health.silent and not self._silent:
            self.get_logger().warning(line)
        self._silent = health.silent
        network, span = self._network, self.ring.span()
        values = {
            "image topic": health.topic,
            "image transport": self.settings.image_transport,
            "targets": ", ".join(worker.targets) if worker else "",
            "frames received": now.received,
            "frames tracked": now.tracked,
            "frames dropped": now.dropped + now.out_of_order,
            "frames out of order": now.out_of_order,
            "frames refused": now.refused,
            "frames failed": now.failed + now.refused,
            "frames kept": len(self.ring),
            "seconds kept": f"{span[1].received - span[0].received if span else 0:.1f}",
            "network": network.name if network else "",
            "backend": network.backend if network else "",
        }
        status = DiagnosticStatus(level=level, name=f"{name}: tracker", message=line)
        status.hardware_id = network.device if network else ""
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _ring_limits(settings: NodeSettings) -> dict[str, Any]:
    memory = min(settings.ring_memory_mb * _MEGA, _FREE_MEMORY // 4)
    return {"seconds": settings.ring_seconds, "memory": memory}
