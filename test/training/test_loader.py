"""Batches: the same whoever makes them, shared between processes, faults counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from siamcar_ros.data import DataError, DataFault, Faults, Mixture, PairSet
from siamcar_ros.data.frames import Frame, frame_from_box
from siamcar_ros.training.distributed import Processes, choose_device, joined
from siamcar_ros.training.loader import Batch, Batches, FaultCount, loading
from siamcar_ros.training.recipe import Recipe

ALONE = Processes()


class Patches(PairSet):
    """Random patches; now and then a file that is broken."""

    def __init__(self) -> None:
        super().__init__("patches")

    def __len__(self) -> int:
        return 1

    def items(self) -> Iterable[str]:
        return ["patch"]

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        if rng.random() < 0.2:
            raise DataFault("/data/x.jpg", "missing")
        image = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        frame = frame_from_box(image, np.array([20, 20, 50, 40], np.float32))
        return frame, frame


def batches(size: int, processes: Processes = ALONE) -> Batches:
    mixture = Mixture({"patches": Patches()}, {"patches": 1.0})
    return Batches(mixture, Recipe(batch=size, seed=7), processes)


@contextmanager
def made(size: int, first: int, workers: int) -> Iterator[list[Batch]]:
    with loading(batches(size), first, 5, workers, torch.device("cpu")) as pairs:
        yield list(pairs)


def test_workers_and_a_later_start_change_nothing() -> None:
    with made(3, 0, 0) as alone, made(3, 0, 2) as helped, made(3, 3, 1) as late:
        assert len(alone) == len(helped) == 5
        for one, other in [*zip(alone, helped, strict=True), *zip(alone[3:], late, strict=True)]:
            for name in ("templates", "searches", "boxes", "negatives"):
                assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert alone[0].searches.shape == (3, 255, 255, 3)
        assert sum(batch.faults.draws for batch in helped) >= 15
        assert {m for batch in helped for m in batch.faults.messages} == {"/data/x.jpg: missing"}


def test_processes_share_the_batch_of_one() -> None:
    whole = batches(4)[2]
    parts = [batches(4, Processes(rank, 2))[2] for rank in (0, 1)]
    for name in ("templates", "searches", "boxes", "negatives"):
        both = torch.stack([getattr(part, name) for part in parts], 1).flatten(0, 1)
        assert torch.equal(both, getattr(whole, name)), name


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="5 cannot be shared by 2"):
        batches(5, Processes(0, 2))


def test_faults_end_the_run_past_their_share(caplog: pytest.LogCaptureFixture) -> None:
    count = FaultCount(0.01)
    count.add(Faults(900, ("a.jpg: missing",) * 5 + ("b.jpg: not an image",)))
    assert caplog.text.count("a.jpg") == 1, "each is named once"
    with pytest.raises(DataError, match=r"16 of 1016 draws.*max_fault_share.*a.jpg: missing"):
        count.add(Faults(100, ("a.jpg: missing",) * 10))


def test_few_faults_pass() -> None:
    count = FaultCount(0.01)
    for _ in range(50):
        count.add(Faults(100, ("a.jpg: missing",)))
    assert (count.draws, count.faults) == (5000, 50)


def test_processes_wait_for_one_another_longer_than_nccl_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first validates while the others wait."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(dist, name, lambda *_: None)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "new_group", lambda **options: asked.append(options))
    with joined(torch.device("cuda")) as processes:
        assert (processes.rank, processes.world) == (1, 2)
    assert asked[0]["backend"] == "gloo"
    assert asked[0]["timeout"] >= timedelta(hours=6)


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    for module in ("runtime.select", "training.distributed"):
        monkeypatch.setattr(f"siamcar_ros.{module}.gpu_names", lambda: names)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="cuda was asked for, but PyTorch finds no CUDA"):
        choose_device("cuda")
    names += ["One", "Another"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    found = [str(choose_device(name)) for name in ("auto", "cuda", "cuda:0", "cpu")]
    assert found == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="more processes than the 2 GPUs that PyTorch finds"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="'tpu9'"):
        choose_device("tpu9")
