"""The model of a target that is learned online."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from references import reference

from siamcar_ros.geometry import Box
from siamcar_ros.tracking import MultiTracker, SiamCarTracker, TrackerParams
from siamcar_ros.tracking.calibration import EVIDENCE
from siamcar_ros.tracking.online import OnlineModel, _gaussian, at_center, sure

S, CHANNELS = 25, 32
Array = NDArray[np.float32]
HERE, THERE = (12.0, 12.0, 8.0, 6.0), (5.0, 19.0, 8.0, 6.0)


class Scene:
    """Features of a target and of one that looks like it, before random clutter."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.target = self.random.standard_normal(CHANNELS)
        self.twin = self.target + self.random.standard_normal(CHANNELS)
        self.clutter = self.random.standard_normal((CHANNELS, S, S))

    def show(self, *shown: tuple[NDArray[Any], tuple[float, ...]]) -> Array:
        """(CHANNELS, S, S): patterns with the boxes that they fill."""
        features = self.clutter + 0.3 * self.random.standard_normal(self.clutter.shape)
        y, x = np.indices((S, S))
        for pattern, (column, row, w, h) in shown:
            near = np.exp(-8 * (((x - column) / w) ** 2 + ((y - row) / h) ** 2))
            features += 4 * pattern[:, None, None] * near
        return features.astype(np.float32)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def taught(model: OnlineModel, frames: list[tuple[Array, tuple[float, ...]]]) -> OnlineModel:
    for features, box in frames:
        model = model.learn(features, box)
    return model


def test_it_knows_the_target_from_one_that_looks_like_it(scene: Scene) -> None:
    """Where they have changed places, too."""
    first = scene.show((scene.target, HERE), (scene.twin, THERE))
    model = OnlineModel.start(first, HERE)
    features = scene.show((scene.twin, HERE), (scene.target, THERE))
    response = model.respond(features)
    assert response.shape == (S, S)
    assert np.hypot(*np.subtract(divmod(int(response.argmax()), S), (19, 5))) < 1.5
    assert model.confidence(response, THERE) > 0.1
    assert model.confidence(response, HERE) < 0


def test_a_look_alike_that_comes_later_is_learned() -> None:
    scene = Scene(seed=3)
    model = OnlineModel.start(scene.show((scene.target, HERE)), HERE)

    def both() -> Array:
        return scene.show((scene.target, HERE), (scene.twin, THERE))

    before = model.confidence(model.respond(both()), HERE)
    model = taught(model, [(both(), HERE) for _ in range(30)])
    assert model.confidence(model.respond(both()), HERE) > before + 0.2


def test_it_follows_a_change_and_keeps_the_first_frame(scene: Scene) -> None:
    model = OnlineModel.start(scene.show((scene.target, HERE)), HERE)
    other = scene.random.standard_normal(CHANNELS)
    changed = scene.show((other, THERE))
    before = at_center(model.respond(changed), THERE)
    later = taught(model, [(scene.show((other, THERE)), THERE) for _ in range(300)])
    assert at_center(later.respond(changed), THERE) > max(before + 0.3, 0.6)
    again = later.respond(scene.show((scene.target, HERE)))
    assert later.confidence(again, HERE) > 0.3


def test_a_channels_unit_does_not_matter(scene: Scene) -> None:
    """They are of one order in no network."""
    first, second = (scene.show((scene.target, place)) for place in (HERE, THERE))
    unit = scene.random.uniform(0.1, 10, (CHANNELS, 1, 1)).astype(np.float32)
    plain, scaled = OnlineModel.start(first, HERE), OnlineModel.start(first * unit, HERE)
    np.testing.assert_allclose(plain.respond(second), scaled.respond(second * unit), atol=0.05)


def test_learning_leaves_the_model_as_it_was(scene: Scene) -> None:
    features = scene.show((scene.target, HERE))
    model = OnlineModel.start(features, HERE)
    kept = model.respond(features)
    taught(model, [(scene.show((scene.twin, THERE)), THERE)] * 6)
    np.testing.assert_array_equal(model.respond(features), kept)


LEARNING = """
import os
import time
from pathlib import Path
import numpy as np
from siamcar_ros.tracking.online import OnlineModel

def ran_by_others():  # in the kernel's ticks
    tasks = [task for task in Path("/proc/self/task").iterdir() if int(task.name) != os.getpid()]
    return sum(int((task / "stat").read_text().rsplit(")", 1)[1].split()[11]) for task in tasks)

features = np.random.default_rng(0).random((64, 25, 25), np.float32)
model = OnlineModel.start(features, (12, 12, 5, 7))
time.sleep(1)  # new threads spin for a while
before = ran_by_others()
for _ in range(1000):
    model = model.learn(features, (12, 12, 5, 7))
    model.respond(features)
print(ran_by_others() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux's /proc")
def test_learning_wakes_no_other_threads() -> None:
    """Those of BLAS would compete with the network's for the cores."""
    ran = subprocess.run([sys.executable, "-c", LEARNING], capture_output=True, text=True)
    assert ran.stdout.split() == ["0"], ran.stderr


def test_labels_are_no_denormal_numbers() -> None:
    """Sums of those are many times slower."""
    for box in ((12.0, 12.0, 5.0, 5.0), (-30.0, 90.0, 0.1, 80.0)):
        assert _gaussian(box, S).min() > 1e-30


@pytest.mark.parametrize("box", [(-20.0, 12.0, 8.0, 8.0), (12.0, 12.0, 60.0, 60.0)])
@pytest.mark.parametrize("flat", [False, True])
def test_any_box_and_any_features_give_finite_numbers(
    scene: Scene, box: tuple[float, ...], flat: bool
) -> None:
    features = scene.show((scene.target, HERE)) * (not flat)
    model = taught(OnlineModel.start(features, box), [(features, box)] * 3)
    response = model.respond(features)
    assert np.isfinite(response).all()
    assert np.isfinite(model.confidence(response, box))


def test_without_features_a_target_is_followed_as_ever(
    network: Any, frame: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    boxes = []
    for online in (False, True):
        tracker = SiamCarTracker(network, TrackerParams(online=online))
        with caplog.at_level(logging.WARNING):
            tracker.init(frame, (300, 200, 40, 80))
        network.show((50, 50), column=13)
        boxes.append(tracker.update(frame).box)
    assert boxes[0] == boxes[1]
    assert "gives no features" in caplog.text


@pytest.fixture(scope="module")
def clip() -> tuple[list[Any], NDArray[Any]]:
    from siamcar_ros.data import read_sequence
    from siamcar_ros.data.images import read_image

    sequence = read_sequence(reference("sequences/Crossing"))
    return [read_image(path) for path in sequence.frames[:40]], sequence.boxes[:40]


def test_a_target_on_film(clip: tuple[list[Any], NDArray[Any]]) -> None:
    """It is learned, found, and told from the street beside it; two targets as one."""
    pytest.importorskip("openvino")
    frames, boxes = clip
    options: dict[str, Any] = {"device": "cpu", "backend": "openvino", "precision": "int8"}
    tracker = SiamCarTracker.from_config("compact", online=True, **options)
    both = MultiTracker(tracker.network, tracker.params)
    beside: Box = (boxes[0][0] - 60, boxes[0][1], boxes[0][2], boxes[0][3])
    tracker.init(frames[0], boxes[0])
    both.add(frames[0], beside, "beside")
    both.add(frames[0], boxes[0], "target")
    confidence, learned = [], []
    for frame, box in zip(frames[1:], boxes[1:], strict=True):
        result = tracker.update(frame)
        distance = np.subtract(result.box[:2], box[:2]) + np.subtract(result.box[2:], box[2:]) / 2
        assert np.hypot(*distance) < 10
        np.testing.assert_allclose(both.update(frame)["target"].box, result.box, atol=0.05)
        confidence.append(dict(zip(EVIDENCE, tracker.evidence, strict=True))["confidence"])
        learned.append(sure(result.score, confidence[-1]))
    assert min(confidence) > 0  # nothing beside the target fits better in any frame
    assert np.mean(learned) > 0.6
    assert tracker._track is not None
    model = tracker._track.online
    assert model is not None
    assert not np.array_equal(model.recent.xx, model.first.xx)
