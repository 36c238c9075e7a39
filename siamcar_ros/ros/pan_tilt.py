"""The control law that keeps a target in the middle of a camera on a pan-tilt mount. No ROS."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.options import setting
from siamcar_ros.tracking import TrackState

Pair = NDArray[np.float64]
"""(2,) pan to the right and tilt upward, in radians or radians per second."""

# Seconds for which the mount's angles are kept: images may be a second late.
_HISTORY = 1.2
# The longest time in seconds over which rates are integrated or extrapolated.
_LONGEST_STEP = 0.1


def _setting(default: float, description: str, least: float = 0.0, most: float = 1000.0) -> Any:
    return setting(default, description, range=(least, most))


@dataclass(frozen=True)
class PanTiltSettings:
    """Gains and limits of the control law; the fields' metadata holds descriptions and ranges."""

    gain: float = _setting(5.0, "Rate for each radian of error, 1/s.")
    smoothing: float = _setting(
        0.15, "Seconds over which the target's direction and rate are averaged.", 0.0, 10.0
    )
    dead_band: float = _setting(0.002, "Errors below this are not corrected, rad.")
    max_rate: float = _setting(1.0, "Largest rate of an axis, rad/s.")
    max_acceleration: float = _setting(6.0, "Largest change of a rate, rad/s².")
    pan_left: float = _setting(-math.pi, "Limit of pan to the left, rad.", -100.0, 100.0)
    pan_right: float = _setting(math.pi, "Limit of pan to the right, rad.", -100.0, 100.0)
    tilt_down: float = _setting(-math.pi / 2, "Lower limit of tilt, rad.", -100.0, 100.0)
    tilt_up: float = _setting(math.pi / 2, "Upper limit of tilt, rad.", -100.0, 100.0)
    coast: float = _setting(
        1.0, "Seconds for which an UNCERTAIN target is followed at its last rate; then stop."
    )
    timeout: float = _setting(0.5, "Seconds without a track after which the camera stops.")
    search_after: float = _setting(2.0, "Seconds after which a LOST target is searched for.")
    search_rate: float = _setting(0.15, "Pan rate of the search, rad/s; 0: no search.")
    search_width: float = _setting(0.3, "Half the width of the first sweep, rad.", 0.01, 10.0)

    def __post_init__(self) -> None:
        if not (self.pan_left < self.pan_right and self.tilt_down < self.tilt_up):
            raise ValueError("pan_left and tilt_down must be less than pan_right and tilt_up")


class PanTiltLaw:
    """Computes the rates of pan and tilt from a target's bearing.

    A rate is the target's own rate plus `gain` times the error. A bearing and the angles of the
    mount at the moment of the image give the target's direction in the mount's frame; a
    fading-memory filter gives its rate. So neither late images nor the camera's own motion disturb
    the loop, and a moving target is followed without lag.

    A TRACKING target is followed. For an UNCERTAIN one, the mount continues at the target's last
    rate for a while, as a target that passes behind something reappears where it is expected. It
    stops for a LOST target, for none, and when no tracks arrive. When the target has been LOST for
    longer, it sweeps to both sides, wider each time.

    Attributes:
        settings: may be replaced at any time.
    """

    def __init__(self, settings: PanTiltSettings) -> None:
        self.settings = settings
        self._rates = np.zeros(2)
        self._now = self._heard_at = self._seen_at = -math.inf
        self._state: TrackState | None = None
        # The mount's recent angles: measured, or integrated from the commands, beginning at 0.
        self._measured = False
        self._mount: deque[tuple[float, Pair]] = deque([(0.0, np.zeros(2))])
        # The target's direction in the mount's frame at `_seen_at`, and its rate.
        self._direction, self._motion = np.zeros(2), np.zeros(2)

    def moved(self, moment: float, angles: Pair) -> None:
        """Add the mount's measured angles (rad) at a moment (s); its limits need them."""
        if not self._measured or moment < self._mount[-1][0]:
            self._mount.clear()
            self._seen_at = -math.inf
        self._measured = True
        self._keep(moment, angles)

    def see(
        self, now: float, state: TrackState | None, bearing: Pair | None = None, age: float = 0.0
    ) -> None:
        """Add a result of the tracker.

        Args:
            now: seconds.
            state: of the target; None without one.
            bearing: (2,) azimuth to the right and elevation upward in the camera, rad; None if it
                is unknown.
            age: seconds since the image was taken.
        """
        self._state, self._heard_at = state, now
        if state is not TrackState.TRACKING:
            return
        if bearing is None:
            self._state = None  # as good as no target
            return
        moment = now - age
        direction = _in_mount(self._at(moment), bearing)
        since = moment - self._seen_at
        if since > self.settings.coast + self.settings.timeout:
            self._direction, self._motion = direction, np.zeros(2)
        elif since > 0:
            fading = math.exp(-since / self.settings.smoothing) if self.settings.smoothing else 0.0
            expected = self._direction + since * self._motion
            surprise = direction - expected
            self._direction = expected + (1 - fading**2) * surprise
            self._motion = self._motion + (1 - fading) ** 2 / since * surprise
        else:
            return
        self._seen_at = moment

    def rates(self, now: float) -> Pair:
        """Return the rates (2,) in rad/s for the moment `now` in seconds; call it regularly."""
        settings = self.settings
        wanted = self._wanted(now)
        if self._measured:
            wanted = self._within_limits(wanted)
        wanted = np.clip(wanted, -settings.max_rate, settings.max_rate)
        step = min(max(now - self._now, 0.0), _LONGEST_STEP)
        change = settings.max_acceleration * step
        if not self._measured:
            self._keep(now, self._mount[-1][1] + step * self._rates)
        self._rates = np.clip(wanted, self._rates - change, self._rates + change)
        self._now = now
        return self._rates.copy()

    def _keep(self, moment: float, angles: Pair) -> None:
        self._mount.append((moment, angles))
        while moment - self._mount[0][0] > _HISTORY:
            self._mount.popleft()

    def _at(self, moment: float) -> Pair:
        """The mount's angles at a moment: interpolated, or extrapolated by its rates."""
        moments, angles = zip(*self._mount, strict=True)
        found = np.array([np.interp(moment, moments, each) for each in np.transpose(angles)])
        return found + min(max(moment - moments[-1], 0.0), _LONGEST_STEP) * self._rates

    def _wanted(self, now: float) -> Pair:
        settings = self.settings
        if self._state is None or now - self._heard_at > settings.timeout:
            return np.zeros(2)
        unseen = now - self._seen_at
        follows = self._state is TrackState.TRACKING or (
            self._state is TrackState.UNCERTAIN and unseen < settings.coast
        )
        if follows and math.isfinite(unseen):
            ahead = min(unseen, settings.coast + settings.timeout)
            error = self._direction + ahead * self._motion - self._at(now)
            error = np.where(np.abs(error) < settings.dead_band, 0.0, error)
            return self._motion + settings.gain * error
        searching = unseen - settings.search_after
        searches = self._state is TrackState.LOST and 0 <= searching < math.inf
        if not searches or not settings.search_rate:
            return np.zeros(2)
        # A leg in the direction in which it moved, then legs across, each longer by a width.
        legs = searching * settings.search_rate / settings.search_width
        leg = int((math.sqrt(8 * legs + 1) - 1) / 2)  # leg n is n + 1 widths long
        side = -1.0 if self._motion[0] < 0 else 1.0
        return np.array((side * (-1) ** leg * settings.search_rate, 0.0))

    def _within_limits(self, wanted: Pair) -> Pair:
        """Reduce the rates so that the mount comes to rest at its limits."""
        settings, angles = self.settings, self._mount[-1][1]
        high = np.array((settings.pan_right, settings.tilt_up)) - angles
        low = angles - np.array((settings.pan_left, settings.tilt_down))
        brake = settings.max_acceleration / 2  # half, as the mount reacts late
        up, down = (np.sqrt(2 * brake * np.maximum(each, 0.0)) for each in (high, low))
        return np.clip(wanted, -down, up)


def _in_mount(angles: Pair, bearing: Pair) -> Pair:
    """The pan and tilt that bring a target with a bearing (2,) into the middle of the image."""
    (azimuth, elevation), tilt = bearing.tolist(), float(angles[1])
    x, y = math.sin(azimuth) * math.cos(elevation), math.sin(elevation)
    z = math.cos(azimuth) * math.cos(elevation)
    up, forward = y * math.cos(tilt) + z * math.sin(tilt), z * math.cos(tilt) - y * math.sin(tilt)
    return np.array((angles[0] + math.atan2(x, forward), math.atan2(up, math.hypot(x, forward))))
