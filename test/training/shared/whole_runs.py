"""What the tests of whole training runs share: a recipe, and processes that are waited for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
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
    torch.testing.assert_close(load_file(str(one)), load_file(str(other)), rtol=0, atol=0)


def same_checkpoint(one: Path, other: Path) -> None:
    """But for the output folder, which the recipe names."""
    first, second = read_checkpoint(one), read_checkpoint(other)
    assert first.pop("metadata").keys() == second.pop("metadata").keys()
    torch.testing.assert_close(first, second, rtol=0, atol=0)
