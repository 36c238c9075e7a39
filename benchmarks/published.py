"""The reference: tracking as the published code does it, frame by frame in eager PyTorch.

An independent implementation of the published method, at the published cost: the network in
float32 with BatchNorm not folded, the whole frame copied to pad it whenever the search square
crosses its border, the square rounded to whole pixels, four maps enlarged bicubically and masked in
numpy.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from siamcar_ros.geometry import SEARCH_SIZE, TEMPLATE_SIZE, Box, Image, context_side
from siamcar_ros.model import SiamCAR

Array = NDArray[np.float64]


class PublishedTracker:
    """A tracker of one target.

    Args:
        model: with its weights, on its device.
        penalty_k, window_influence, lr: the published method's hyperparameters.
    """

    def __init__(
        self,
        model: SiamCAR,
        penalty_k: float = 0.04,
        window_influence: float = 0.44,
        lr: float = 0.4,
    ) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.penalty_k, self.window_influence, self.lr = penalty_k, window_influence, lr
        self.cells = model.score_size
        self.window = np.outer(np.hanning(self.cells), np.hanning(self.cells))
        self.samples = (self.cells - 1) * 8 + 1

    @torch.no_grad()
    def init(self, image: Image, box: Box) -> None:
        """Start on (x, y, w, h)."""
        x, y, w, h = box
        self.center = np.array([x + w / 2, y + h / 2])
        self.size = np.array([w, h])
        self.mean = image.mean(axis=(0, 1))
        side = round(context_side(*self.size))
        self.template = self.model.template(self._crop(image, side, TEMPLATE_SIZE))

    @torch.no_grad()
    def update(self, image: Image) -> Box:
        """The box (x, y, w, h) in the next frame."""
        side = context_side(*self.size)
        scale = TEMPLATE_SIZE / side
        x = self._crop(image, round(side * SEARCH_SIZE / TEMPLATE_SIZE), SEARCH_SIZE)
        cls_map, reg_map, cen_map = self.model(x, self.template)
        cls = torch.softmax(cls_map, 1)[0, 1].cpu().numpy()
        reg = reg_map[0].cpu().numpy()
        cen = cen_map[0, 0].cpu().numpy()
        cen = (cen - cen.min()) / max(float(np.ptp(cen)), 1e-12)

        target = self.size * scale
        score = self._penalty(reg[0] + reg[2], reg[1] + reg[3], target) * cls * cen
        windowed = score * (1 - self.window_influence) + self.window * self.window_influence
        windowed_up, score_up, cls_up = (self._enlarged(part) for part in (windowed, score, cls))
        reg_up = self._enlarged(np.ascontiguousarray(reg.transpose(1, 2, 0)))
        row, column = self._accurate_place(windowed_up, score_up, reg)
        shift = (np.array([column, row]) - self.samples // 2) / scale
        left, top, right, bottom = reg_up[row, column]
        new = np.array([max(left + right, 1e-6), max(top + bottom, 1e-6)]) / scale
        trust = self._penalty(new[0], new[1], target)
        blend = float(trust * cls_up[row, column] * self.lr)
        limits = np.array([image.shape[1], image.shape[0]], np.float64)
        self.center = np.clip(self.center + shift, 0, limits)
        self.size = np.clip(blend * new + (1 - blend) * self.size, 1, limits)
        corner = self.center - self.size / 2
        return float(corner[0]), float(corner[1]), float(self.size[0]), float(self.size[1])

    def _crop(self, image: Image, side: int, size: int) -> torch.Tensor:
        """A square around the center, from a padded copy of the frame where it crosses a border."""
        height, width = image.shape[:2]
        first = np.floor(self.center - (side + 1) / 2 + 0.5).astype(int)
        last = first + side
        before = np.maximum(-first, 0)
        after = np.maximum(last - (width, height), 0)
        if before.any() or after.any():
            padded = np.empty(
                (height + before[1] + after[1], width + before[0] + after[0], 3), np.uint8
            )
            padded[:] = self.mean
            padded[before[1] : before[1] + height, before[0] : before[0] + width] = image
            image = padded
            first = first + before
        square = image[first[1] : first[1] + side, first[0] : first[0] + side]
        if side != size:
            square = cv2.resize(square, (size, size))
        planes = square.transpose(2, 0, 1)[None].astype(np.float32)
        return torch.from_numpy(planes).to(self.device)

    def _penalty(self, w: Array, h: Array, target: Array) -> Array:
        change = _at_least_one(context_side(w, h) / context_side(target[0], target[1]))
        aspect = _at_least_one((target[0] / target[1]) / (w / h))
        penalty: Array = np.exp(-(change * aspect - 1) * self.penalty_k)
        return penalty

    def _enlarged(self, values: Array) -> Array:
        size = (self.samples, self.samples)
        enlarged: Array = cv2.resize(values, size, interpolation=cv2.INTER_CUBIC)
        return enlarged

    def _accurate_place(self, windowed: Array, score: Array, reg: Array) -> tuple[int, int]:
        """The best score within half a box of the windowed peak."""
        row, column = (int(v) for v in np.unravel_index(int(windowed.argmax()), windowed.shape))
        per_cell = self.samples / self.cells
        i, j = (min(round(v / per_cell), self.cells - 1) for v in (row, column))
        reach = np.clip(reg[:, i, j], int(0.1 * TEMPLATE_SIZE), int(0.44 * TEMPLATE_SIZE))
        room = (column, row, self.samples - column, self.samples - row)
        left, top, right, bottom = (int(min(r, o) / 2) for r, o in zip(reach, room, strict=True))
        mask = np.zeros_like(score)
        mask[row - top : row + bottom + 1, column - left : column + right + 1] = 1
        y, x = np.unravel_index(int((score * mask).argmax()), score.shape)
        return int(y), int(x)


def _at_least_one(ratio: Array) -> Array:
    larger: Array = np.maximum(ratio, 1 / ratio)
    return larger
