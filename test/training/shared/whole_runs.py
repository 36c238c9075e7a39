"""What the tests of whole training runs share: a recipe, and processes that are waited for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

Start = Callable[..., "subprocess.Popen[str]"]

TORCHRUN = (
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--local-addr",
    "127.0.0.1",
    "--nproc-per-node",
    "2",
)

RECIPE = """
network: compact
output: {output}
epochs: 2
batch: 2
average: 0.9
data:
  pairs_per_epoch: 6
  max_fault_share: 0.5
  sets: {{videos: {{kind: sequences, root: {root}}}}}
optimizer: {{kind: adamw, lr: 0.001, clip: 5}}
schedule: {{kind: cosine, warmup_epochs: 0, final: 0.1}}
compute: {{device: cpu, workers: 2, threads: 1}}
log: {{every: 2, images_every: 4, checkpoint_every: 2, keep_every_epochs: 1, tensorboard: false}}
"""


def wait_for_step(path: Path, step: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if path.is_file() and read_checkpoint(path)["step"] >= step:
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[0])


def read_checkpoint(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def finish(process: subprocess.Popen[str]) -> str:
    output = process.communicate(timeout=800)[0]
    assert process.returncode == 0, output
    return output


def same(one: Path, other: Path) -> None:
    first, second = load_file(str(one)), load_file(str(other))
    assert first.keys() == second.keys()
    different = [key for key in first if not torch.equal(first[key], second[key])]
    assert not different


def same_checkpoint(one: Path, other: Path) -> None:
    """But for the output folder, which the recipe names."""
    first, second = read_checkpoint(one), read_checkpoint(other)
    assert first.keys() == second.keys()
    assert first["step"] == second["step"]
    for part in first.keys() - {"step", "metadata"}:
        assert not list(differences(first[part], second[part], part))


def differences(one: Any, other: Any, where: str) -> Iterator[str]:
    """The places where two nests of containers differ."""
    if type(one) is not type(other):
        yield where
    elif isinstance(one, torch.Tensor):
        if not torch.equal(one, other):
            yield where
    elif isinstance(one, dict):
        if one.keys() != other.keys():
            yield where
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield where
        for index, (first, second) in enumerate(zip(one, other, strict=False)):
            yield from differences(first, second, f"{where}.{index}")
    elif one != other:
        yield where
