"""Images with another order of channels than BGR, without a copy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siamcar_ros.geometry import Image

CHANNELS: dict[str, tuple[int, ...]] = {
    "bgr": (3,),
    "rgb": (3,),
    "bgra": (4,),
    "rgba": (4,),
    "gray": (),
}
"""The orders of channels, and what an array of each has after its height and width."""


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image as a camera stores it, with the order of its channels beside it.

    A tracker reads it in place, whatever the order.

    Attributes:
        array: uint8, (H, W, 3) or (H, W, 4) as `order` says, (H, W) if it is "gray"; any strides.
        order: one of :data:`CHANNELS`.
    """

    array: Image
    order: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, C)."""
        return self.array.shape

    def __getitem__(self, part: tuple[slice, slice] | slice) -> StoredImage:
        return StoredImage(self.array[part], self.order)

    def bgr(self) -> Image:
        """The same pixels as (H, W, 3) BGR: a view, which must not be written to."""
        if self.order == "gray":
            return np.broadcast_to(self.array[..., None], (*self.array.shape, 3))
        if self.order in ("rgb", "rgba"):
            return self.array[..., 2::-1]
        return self.array[..., :3]
