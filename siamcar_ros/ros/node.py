"""The managed node."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ROSInterruptException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from siamcar_ros.msg import TrackStatus
from siamcar_ros.ros.diagnostics import Health, diagnostic_array
from siamcar_ros.ros.frame import Frame
from siamcar_ros.ros.intake import ImageIntake
from siamcar_ros.ros.loading import LoadedTracker, give_up, load_tracker
from siamcar_ros.ros.outputs import Outputs
from siamcar_ros.ros.parameters import NodeSettings, declare
from siamcar_ros.ros.ring import FrameRing
from siamcar_ros.ros.services import STUCK_AFTER, TargetServices
from siamcar_ros.ros.worker import Tracked, TrackWorker

_MEGABYTE = 1_000_000
# Seconds that the worker is given to finish its frame when the node is cleaned up.
_CLOSE_TIMEOUT = 1.0
# So many images in a row before the newest one are no stragglers: the clock has gone back.
_LATE_IN_A_ROW = 3
# Seconds between words on a network that is still being loaded.
_LOADING_PERIOD = 10.0
# Seconds that a callback sleeps for the worker to wake up.
_HAND_OVER = 0.00005


class TrackerNode(LifecycleNode):
    """Follows targets through a camera's images.

    Unconfigured, it holds its parameters, and services that say what is missing. Configuring loads
    the network and warms it up; activating subscribes to the images; deactivating ends all tracks
    and forgets all images; cleaning up frees the tracker. Callbacks store and answer; the worker's
    thread tracks and publishes.

    Raises ValueError, FileNotFoundError or a ParameterException for parameters that are refused.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("tracker", **options)
        self.settings = declare(self)
        self._worker: TrackWorker | None = None
        self._loaded: LoadedTracker | None = None
        self._outputs: Outputs | None = None
        self._intake: ImageIntake | None = None
        self._info_subscription: Any = None
        self._ring = FrameRing(**_ring_limits(self.settings))
        self._last_arrival = 0.0
        self._late_in_a_row = 0
        self._silent = False  # which is said once
        self._reset_counters()
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._target_services = TargetServices(
            self,
            ring=self._ring,
            ready=self._ready,
            awaits=not self.settings.events_executor,
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = self._report_timer()
        self._answer_illegal_transitions()

    def start(self) -> bool:
        """Configure and activate; false where that fails, which is logged."""
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def close(self) -> bool:
        """End the worker's thread; false where it did not end in time."""
        return self._worker is None or self._worker.close(_CLOSE_TIMEOUT)

    # Lifecycle: rclpy swallows what a transition raises, so each is wrapped.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and warm it up."""
        return self._transition("configure", self._configure, super().on_configure, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        return self._transition("activate", self._activate, super().on_activate, state)

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
        default: Callable[[LifecycleState], TransitionCallbackReturn],
        state: LifecycleState,
    ) -> TransitionCallbackReturn:
        logger = self.get_logger()
        try:
            begin = time.perf_counter()
            action()
            logger.info(f"{name}: done in {time.perf_counter() - begin:.2f} s")
            return default(state)
        except (ValueError, OSError) as error:
            logger.error(f"cannot {name}: {error}")
            return TransitionCallbackReturn.FAILURE
        except ROSInterruptException:
            return TransitionCallbackReturn.FAILURE
        except Exception:
            if not self.context.ok():  # a signal ended it in the middle of the transition
                return TransitionCallbackReturn.FAILURE
            logger.error(f"cannot {name}: {traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    def _configure(self) -> None:
        settings = self.settings
        self._reset_counters()
        self.get_logger().info(f"loading the network of config {settings.config!r}")
        worker = TrackWorker(
            load=lambda: load_tracker(settings),
            ring=self._ring,
            on_frame=self._publish,
            logger=self.get_logger(),
            max_targets=settings.max_targets,
            max_failures=settings.max_failures,
        )
        # Loading takes seconds: a signal in the meantime must be heard.
        begin = told = time.perf_counter()
        while not wait([worker.loaded], timeout=0.1).done:
            if not self.context.ok():
                raise ROSInterruptException
            now = time.perf_counter()
            if now - told >= _LOADING_PERIOD:
                told = now
                self.get_logger().info(f"still loading after {now - begin:.0f} s")
        loaded = worker.loaded.result()
        self._worker, self._loaded = worker, loaded
        self._outputs = Outputs(self, settings=lambda: self.settings, complete=self._completed)
        self.get_logger().info(
            f"{loaded.network} on {loaded.device} with {loaded.backend} ({loaded.reason})"
        )

    def _activate(self) -> None:
        try:
            self._subscribe()
        except BaseException:
            self._deactivate()
            raise

    def _subscribe(self) -> None:
        self._last_arrival = time.perf_counter()
        self._info_subscription = self.create_subscription(
            CameraInfo,
            "camera_info",
            self._on_camera_info,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        )
        self._intake = ImageIntake(
            self,
            transport=self.settings.image_transport,
            reliability=self.settings.qos_reliability,
            on_message=self._on_image,
        )

    def _deactivate(self) -> None:
        if self._intake is not None:
            self._intake.destroy()
            self._intake = None
        if self._info_subscription is not None:
            self.destroy_subscription(self._info_subscription)
            self._info_subscription = None
        self._ring.clear()
        if self._worker is not None:
            self._worker.mailbox.empty_slot()
            self._worker.stop()

    def _release(self) -> None:
        self._deactivate()
        if self._worker is not None and not self._worker.close(_CLOSE_TIMEOUT):
            self.get_logger().warning("the tracker is still busy with an image; leaving it behind")
            if self._loaded is not None:
                give_up(self._loaded)
        self._worker = self._loaded = None
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None

    def _answer_illegal_transitions(self) -> None:
        """Answer a request for a transition that the state does not allow.

        rclpy raises RCLError out of the service instead, which ends spinning without an answer.
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

    def _on_image(self, message: Any) -> None:
        frame = Frame(message)
        worker = self._worker
        if worker is None:
            return
        self._received += 1
        self._last_arrival = frame.received
        newest = self._ring.newest()
        if newest is not None and frame.stamp < newest.stamp:
            back = (newest.stamp - frame.stamp) / 1e9
            self._late_in_a_row += 1
            if back <= self.settings.time_jump and self._late_in_a_row < _LATE_IN_A_ROW:
                self._out_of_order += 1
                return
            self._start_over(worker, back)
        self._late_in_a_row = 0
        self._ring.push(frame)
        worker.mailbox.put(frame)
        # Leave the interpreter to the worker at once: the executor's bookkeeping can wait.
        time.sleep(_HAND_OVER)

    def _start_over(self, worker: TrackWorker, back: float) -> None:
        targets = ", ".join(map(repr, worker.targets)) or "none"
        self.get_logger().warning(
            f"image stamps went back by {back:.3f} s: kept images forgotten, tracks stopped "
            f"({targets})"
        )
        self._ring.clear()
        worker.mailbox.empty_slot()
        worker.stop()

    def _on_camera_info(self, message: CameraInfo) -> None:
        if self._outputs is not None:
            self._outputs.camera_info = message

    def _publish(self, tracked: Tracked) -> None:
        """Called in the worker's thread."""
        if self._outputs is None or not self.context.ok():
            return
        try:
            self._outputs.publish(tracked)
        except rclpy_implementation.RCLError:
            if self.context.ok():  # else a signal has ended it since
                raise

    def _ready(self) -> tuple[TrackWorker, ImageIntake]:
        """What an active node has; ValueError, with what to do, for one that is not."""
        if self._worker is None or self._intake is None:
            if self._state_machine.current_state[0] == State.PRIMARY_STATE_FINALIZED:
                raise ValueError("the node has been shut down: start a new one")
            raise ValueError(
                "the node is not active: ros2 lifecycle set "
                f"{self.get_fully_qualified_name()} "
                + ("configure" if self._worker is None else "activate")
            )
        return self._worker, self._intake

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
        self._ring.resize(**_ring_limits(self.settings))
        if self.settings.status_rate != before.status_rate:
            self.destroy_timer(self._timer)
            self._timer = self._report_timer()
        if self._worker is not None:
            self._worker.max_failures = self.settings.max_failures
            if self.settings.tracker != before.tracker:
                self._worker.set_params(self.settings.tracker)

    # Reports

    def _reset_counters(self) -> None:
        self._received = 0
        self._out_of_order = 0
        self._used_told = 0
        self._failures_told = 0

    def _completed(self, status: TrackStatus) -> TrackStatus:
        """Fill in the counters and what runs the network."""
        worker, loaded = self._worker, self._loaded
        status.frames_received = self._received
        if worker is not None and loaded is not None:
            status.frames_tracked = worker.frames_tracked
            status.frames_dropped = worker.mailbox.dropped + self._out_of_order
            status.frames_failed = worker.frames_failed
            status.network, status.backend = loaded.network, loaded.backend
            status.device = loaded.device
        return status

    def _report_timer(self) -> Timer:
        # The steady clock: simulated time may stand still, and that is worth a report.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        return self.create_timer(1.0 / self.settings.status_rate, self._report, clock=clock)

    def _report(self) -> None:
        if not self.context.ok():
            return  # the last tick of a node that was told to end
        worker, intake, outputs = self._worker, self._intake, self._outputs
        if intake is not None and outputs is not None and worker and not worker.targets:
            newest = self._ring.newest()
            outputs.publish_idle(Header() if newest is None else newest.header)
        status = self._completed(TrackStatus())
        used = worker.frames_used if worker else 0
        new_used, self._used_told = used - self._used_told, used
        failed = worker.frames_failed if worker else 0
        new_failures, self._failures_told = failed - self._failures_told, failed
        values = {
            "targets": ", ".join(worker.targets) if worker else "",
            "frames received": status.frames_received,
            "frames tracked": status.frames_tracked,
            "frames dropped": status.frames_dropped,
            "frames out of order": self._out_of_order,
            "frames failed": status.frames_failed,
            "frames kept": len(self._ring),
            "network": status.network,
            "backend": status.backend,
        }
        health = Health(
            active=intake is not None,
            topic=intake.topic if intake else "",
            publishers=intake.publishers if intake else 0,
            silence=time.perf_counter() - self._last_arrival,
            silence_allowed=self.settings.image_timeout,
            used=new_used,
            failed=new_failures,
            trouble=worker.trouble if worker else "",
            busy=worker.busy if worker else 0.0,
            busy_allowed=STUCK_AFTER,
            values=values,
        )
        silent = health.silent
        if silent and not self._silent:
            self.get_logger().warning(health.summary()[1])
        self._silent = silent
        self._diagnostics.publish(
            diagnostic_array(
                self.get_clock().now().to_msg(),
                self.get_fully_qualified_name(),
                status.device,
                health,
            )
        )


def _ring_limits(settings: NodeSettings) -> dict[str, int]:
    return {"length": settings.ring_length, "memory": settings.ring_memory_mb * _MEGABYTE}
