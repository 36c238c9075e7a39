"""The sampler of training pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .augment import PairMaker
from .frames import Frame, PairSource


class MixedSource:
    """Several sources drawn from by weight."""

    def __init__(self, sources: list[PairSource], weights: list[float]) -> None:
        self.sources = sources
        self.weights = np.asarray(weights) / sum(weights)

    def pair(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        """A pair of one of the sources."""
        return self.sources[rng.choice(len(self.sources), p=self.weights)].pair(rng)


class Pairs(Dataset[tuple[Tensor, Tensor, Tensor, bool]]):
    """Training pairs by number: the same number and seed give the same pair."""

    def __init__(self, maker: PairMaker, first: int, count: int, seed: int) -> None:
        self.maker, self.first, self.count, self.seed = maker, first, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, bool]:
        pair = self.maker.make(np.random.default_rng((self.seed, self.first + index)))
        return (
            torch.from_numpy(pair.template),
            torch.from_numpy(pair.search),
            torch.from_numpy(pair.box),
            pair.positive,
        )
