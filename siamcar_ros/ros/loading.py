"""Loads the tracker that the node's settings describe, ready for its first frame."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from siamcar_ros.ros.parameters import NodeSettings, weights_file
from siamcar_ros.runtime import Network, load_network
from siamcar_ros.tracking import MultiTracker, read_config

# Nodes in one process share a network for as long as one of them uses it.
_networks: WeakValueDictionary[tuple[Any, ...], Network] = WeakValueDictionary()
_lock = threading.Lock()
# Backends compile for each number of targets; beyond this many, on first use.
_REHEARSED_TARGETS = 8


def load_tracker(settings: NodeSettings) -> MultiTracker:
    """Load the network that `settings` name, warm it up and make a tracker with it.

    The tracker has room for one target more than `max_targets`, so that a new target can be started
    before an old one is removed.
    """
    config = read_config(settings.config, weights_file(settings.weights))
    if config.weights is None:
        raise ValueError(
            f"config {settings.config!r} names no weights, and none ship with the package: set "
            "the parameter 'weights' to a file"
        )
    network = _shared_network(
        config.network,
        config.weights,
        device=settings.device,
        backend=settings.backend,
        precision=settings.precision,
        threads=settings.threads or None,
    )
    tracker = MultiTracker(network, settings.tracker, max_targets=settings.max_targets + 1)
    _rehearse(tracker, settings.max_targets)
    return tracker


def evict(network: Network) -> None:
    """Stop sharing the network of a tracker that hangs, so that the next one loads its own."""
    for key, shared in list(_networks.items()):
        if shared is network:
            _networks.pop(key, None)


def _shared_network(name: Any, weights: Path, **options: Any) -> Network:
    file = weights.stat()
    key = (name, weights.resolve(), file.st_mtime_ns, file.st_size, *sorted(options.items()))
    with _lock:
        network = _networks.get(key)
        if network is None:
            network = load_network(name, weights, **options)
            network.warm_up()
            _networks[key] = network
        return network


def _rehearse(tracker: MultiTracker, targets: int) -> None:
    """Track one target, then more, on a gray image, so that kernels are compiled and cached."""
    image = np.full((480, 640, 3), 128, np.uint8)
    for index in range(min(targets, _REHEARSED_TARGETS)):
        tracker.add(image, (300.0, 220.0, 40.0, 40.0), f"rehearsal {index}")
        for _ in range(2):
            tracker.update(image)
    tracker.stop()
