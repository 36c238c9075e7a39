"""Several sets as one: weights, names, what is refused, faults, fingerprints."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamcar_ros.data import DataError, DataFault, Mixture, PairSet, build_mixture
from siamcar_ros.data.frames import Frame, frame_from_box

Picture = Callable[..., Path]


class Grey(PairSet):
    """Images of one grey level; every k-th draw meets a broken file."""

    def __init__(self, level: int, broken: float = 0.0) -> None:
        super().__init__(f"grey{level}")
        self.level, self.broken = level, broken

    def __len__(self) -> int:
        return 1

    def items(self) -> Iterable[str]:
        return [str(self.level)]

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        if rng.random() < self.broken:
            raise DataFault(f"/data/{self.level}.jpg", "missing")
        image = np.full((20, 20, 3), self.level, np.uint8)
        frame = frame_from_box(image, np.array([2, 2, 10, 10], np.float32))
        return frame, frame


def test_weights_are_shares(rng: np.random.Generator) -> None:
    mixture = Mixture({"a": Grey(10), "b": Grey(20)}, {"a": 3.0, "b": 1.0})
    drawn = [int(mixture.pair(rng)[0].image[0, 0, 0]) for _ in range(2000)]
    assert 0.7 < drawn.count(10) / 2000 < 0.8


@pytest.mark.parametrize("weights", [{"a": 0.0}, {"a": -1.0}])
def test_weights_that_make_no_sense_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(DataError, match="weights"):
        Mixture({"a": Grey(1)}, weights)


def test_faults_of_all_sets_are_counted(rng: np.random.Generator) -> None:
    mixture = Mixture({"a": Grey(10, 0.5), "b": Grey(20)}, {"a": 1.0, "b": 1.0})
    for _ in range(100):
        mixture.pair(rng)
    faults = mixture.take_faults()
    assert faults.draws == 100
    assert set(faults.messages) == {"/data/10.jpg: missing"}


def test_the_same_numbers_give_the_same_pairs_whatever_failed_before() -> None:
    fresh = Mixture({"a": Grey(10, 0.5), "b": Grey(20)}, {"a": 1.0, "b": 1.0})
    used = pickle.loads(pickle.dumps(fresh))
    for seed in range(20):
        used.pair(np.random.default_rng(1000 + seed))
        one = fresh.pair(np.random.default_rng(seed))[0].image
        other = used.pair(np.random.default_rng(seed))[0].image
        assert np.array_equal(one, other)


def test_fingerprint_follows_the_content() -> None:
    def print_of(*levels: int) -> str:
        sets = {f"s{i}": Grey(level) for i, level in enumerate(levels)}
        return Mixture(sets, dict.fromkeys(sets, 1.0)).fingerprint()

    assert print_of(1, 2) == print_of(1, 2)
    assert print_of(1, 2) != print_of(1, 3)


def sequence(root: Path, picture: Picture) -> None:
    for i in range(3):
        picture(root / f"boat/{i + 1:04d}.jpg", (10, 10, 50, 50))
    (root / "boat/groundtruth.txt").write_text("10,10,40,40\n" * 3)


def test_build_by_name(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    sequence(tmp_path / "mine", picture)
    monkeypatch.setenv("DATA", str(tmp_path))
    mixture = build_mixture(
        {
            "mine": {"kind": "sequences", "root": "$DATA/mine", "max_gap": 1},
            "lasot": {"root": "/nowhere", "weight": 0},
        }
    )
    assert list(mixture.sources) == ["mine"]
    assert mixture.pair(rng)[0].box.tolist() == [10, 10, 50, 50]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sequenced", "root": "."}, "did you mean 'sequences'"),
        ({"kind": "sequences"}, "has no root"),
        ({"kind": "sequences", "root": "/nowhere/at/all"}, "set data.sets.mine.root"),
        ({"kind": "sequences", "root": ".", "maxgap": 3}, "did you mean 'max_gap'"),
        (
            {"kind": "sequences", "root": ".", "max_gap": "x"},
            "data.sets.mine.max_gap is 'x'; it must be a whole number",
        ),
        ({"kind": "sequences", "root": 3}, "data.sets.mine.root is 3"),
        ({"kind": "sequences", "root": "$UNSET_HERE/x"}, "variable UNSET_HERE is not set"),
        ({"kind": "masked_videos", "root": ".", "max_gap": -1}, "max_gap is -1; .* 0 or more"),
        ({"kind": "stills", "root": ".", "short_side": 0}, "short_side is 0; .* 16 or more"),
        ({"kind": "stills", "root": ".", "limit": 0}, "limit is 0; .* 1 or more"),
        ({"kind": "stills", "root": ".", "rectangles": 7}, "rectangles is 7; .* from 0 to 1"),
        ({"kind": "stills", "root": ".", "limit": 2.5}, "data.sets.mine.limit is 2.5"),
        ({"kind": "otb", "root": "."}, "a benchmark without a training split"),
        ({"kind": "lasot", "root": ".", "split": "best"}, "no split 'best'; there are train"),
        ({"kind": "trackingnet", "root": ".", "chunks": [0, "x"]}, "data.sets.mine.chunks is 'x'"),
        (
            {"root": ".", "weight": "x"},
            "data.sets.mine.weight is 'x'; it must be a number",
        ),
    ],
)
def test_what_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_mixture({"mine": options})


def test_options_are_what_yaml_gives(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "images/a.jpg", (50, 35, 105, 85))
    monkeypatch.setenv("CACHE", str(tmp_path / "masks"))
    options = {"kind": "stills", "root": str(tmp_path / "images"), "cache": "$CACHE", "limit": None}
    assert build_mixture({"mine": {**options, "rectangles": 1, "weight": "1e-3"}}).sizes()
    assert len(list((tmp_path / "masks").iterdir())) == 1
