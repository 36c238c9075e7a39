"""COCO: ``annotations/instances_SPLIT.json`` beside ``SPLIT/`` (or ``images/SPLIT/``)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame
from siamcar_ros.data.pair_sources import (
    DataError,
    DataFault,
    PairSet,
    boxed_frame,
    read_picture,
)
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequence_sets import first_existing

_MIN_AREA = 64.0  # of an object in pixels


@register_dataset("coco")
class Coco(PairSet):
    """Photographs with a box and an outline for each object.

    Both frames of a pair show one object of one image. With `masks` the outlines serve as masks, so
    that targets can be pasted onto other backgrounds.

    The annotation is kept as flat arrays (about 0.3 GB for train2017 with its outlines), so that
    loader processes share it.
    """

    def __init__(self, root: Path, *, split: str = "train2017", masks: bool = True) -> None:
        self._annotation = root / f"annotations/instances_{split}.json"
        self._folder = first_existing(root / split, root / "images" / split)
        try:
            content = json.loads(self._annotation.read_text())
            images = {image["id"]: image["file_name"] for image in content["images"]}
            objects = [o for o in content["annotations"] if _usable(o)]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._annotation} is not a COCO annotation: {error}") from error
        del content
        objects.sort(key=lambda o: int(o["image_id"]))
        self._boxes = np.array([o["bbox"] for o in objects], np.float32).reshape(-1, 4)
        self._boxes[:, 2:] += self._boxes[:, :2]
        ids = np.array([o["image_id"] for o in objects], np.int64)
        present, starts = np.unique(ids, return_index=True)
        unknown = [int(i) for i in present if int(i) not in images]
        if unknown:
            raise DataError(f"{self._annotation}: no image has the id {unknown[0]}")
        names = [images[int(i)] for i in present]
        if not names:
            raise DataError(f"{self._annotation} holds no object")
        super().__init__(f"coco {split}", names)
        self._starts = np.append(starts, len(objects))
        self._outlines = _Outlines([o.get("segmentation", []) if masks else [] for o in objects])

    def items(self) -> Iterable[str]:
        """The image files, and the size of the annotation."""
        yield f"{self._annotation.name} {self._annotation.stat().st_size}"
        yield from self.names

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        """One object of a random image."""
        image = int(rng.integers(len(self)))
        index = int(rng.integers(self._starts[image], self._starts[image + 1]))
        path, box = self._folder / self.names[image], self._boxes[index]
        rings = self._outlines.rings(index)
        frame = _outlined(path, box, rings) if rings else boxed_frame(path, box, path)
        return None if frame is None else (frame, frame)


class _Outlines:
    """Polygons of many objects in three flat arrays."""

    def __init__(self, segmentations: list[Any]) -> None:
        points, ends, objects = [np.zeros((0, 2), np.float32)], [0], [0]
        for segmentation in segmentations:
            for ring in segmentation if isinstance(segmentation, list) else []:
                if len(ring) >= 6:
                    points.append(np.asarray(ring, np.float32).reshape(-1, 2))
                    ends.append(ends[-1] + len(points[-1]))
            objects.append(len(ends) - 1)
        self._points = np.concatenate(points)
        self._ends, self._objects = np.array(ends), np.array(objects)

    def rings(self, index: int) -> list[NDArray[np.float32]]:
        first, last = self._objects[index], self._objects[index + 1]
        return [self._points[self._ends[r] : self._ends[r + 1]] for r in range(first, last)]


def _outlined(path: Path, box: NDArray[np.float32], rings: list[NDArray[np.float32]]) -> Frame:
    """The frame of an object with polygons in pixels (edges) of the image."""
    image, divisor = read_picture(path, box)
    rings = [ring / np.float32(divisor) for ring in rings]
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(
        mask, [np.rint((ring - 0.5) * 16).astype(np.int32) for ring in rings], 255, shift=4
    )
    if not mask.any():
        raise DataFault(path, f"the outline of its object at {box.tolist()} lies outside")
    hull = cv2.convexHull(np.concatenate(rings))[:, 0].astype(np.float32)
    bounds = np.concatenate((hull.min(0), hull.max(0)))
    return Frame(image, bounds, mask, hull, str(path))


def _usable(entry: dict[str, Any]) -> bool:
    _, _, width, height = entry["bbox"]
    return not entry.get("iscrowd") and min(width, height) >= 2 and width * height >= _MIN_AREA
