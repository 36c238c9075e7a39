"""ImageNet's detection (DET) and video (VID) sets as the ILSVRC archives unpack.

``Data/KIND/…/NAME.JPEG`` and ``Annotations/KIND/…/NAME.xml`` below the folder ``ILSVRC`` (or
``ILSVRC2015``), which is the root or lies in it. Boxes are given as their first and last pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame
from siamcar_ros.data.pair_sources import (
    DataError,
    DataFault,
    MaxGap,
    PairSet,
    VideoPairs,
    boxed_frame,
)
from siamcar_ros.data.registry import register_dataset


@register_dataset("imagenet_det")
class ImageNetDet(PairSet):
    """Photographs with boxes; both frames of a pair show one object of one image.

    `split` is "train" (2013 and the 2014 additions) or "val".
    """

    def __init__(self, root: Path, *, split: str = "train") -> None:
        self._images, self._annotations = _folders(root, "DET", split)
        paths = sorted(self._annotations.rglob("*.xml"))
        names = [p.relative_to(self._annotations).with_suffix("").as_posix() for p in paths]
        if not names:
            raise DataError(f"no XML files in {self._annotations}")
        super().__init__(f"imagenet_det {split}", names)

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        """One object of a random image."""
        name = self.names[int(rng.integers(len(self)))]
        objects = read_objects(self._annotations / f"{name}.xml")
        if not objects:
            return None
        _, box = objects[int(rng.integers(len(objects)))]
        path = self._images / f"{name}.JPEG"
        frame = boxed_frame(path, box, path)
        return None if frame is None else (frame, frame)


@register_dataset("imagenet_vid")
class ImageNetVid(VideoPairs):
    """Videos with a box for each object in each frame; `split` is "train" or "val"."""

    def __init__(self, root: Path, *, split: str = "train", max_gap: MaxGap = 100) -> None:
        self._images, self._annotations = _folders(root, "VID", split)
        # Training snippets lie one folder deeper than those for validation.
        folders = self._annotations.glob("*/*" if split == "train" else "*")
        names = sorted(f.relative_to(self._annotations).as_posix() for f in folders)
        if not names:
            raise DataError(f"no snippet in {self._annotations}")
        super().__init__(f"imagenet_vid {split}", names, max_gap)
        self._counts: dict[int, int] = {}

    def places(self, video: int) -> NDArray[np.int64]:
        """The frames, counted."""
        if video not in self._counts:
            folder = self._annotations / self.names[video]
            self._counts[video] = sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
        if not self._counts[video]:
            raise DataFault(self._annotations / self.names[video], "no XML files")
        return np.arange(self._counts[video])

    def targets(self, video: int, frame: int) -> dict[Any, Any]:
        """The boxes of the tracks in a frame."""
        return dict(read_objects(self._annotations / self.names[video] / f"{frame:06d}.xml"))

    def view(self, video: int, frame: int, target: Any) -> Frame | None:
        """A track's box in a frame."""
        folder = self._images / self.names[video]
        return boxed_frame(folder / f"{frame:06d}.JPEG", target, folder)


def read_objects(path: Path) -> list[tuple[str, NDArray[np.float32]]]:
    """The objects of an annotation in PASCAL VOC's XML: track ("" without one), x1, y1, x2, y2."""
    try:
        root = ElementTree.parse(path).getroot()
        return [_object(element) for element in root.iter("object")]
    except OSError:
        raise DataFault(path, "missing") from None
    except (ElementTree.ParseError, ValueError, TypeError) as error:
        raise DataFault(path, f"not an annotation: {error}") from None


def _object(element: ElementTree.Element) -> tuple[str, NDArray[np.float32]]:
    sides = ("xmin", "ymin", "xmax", "ymax")
    box = np.array([float(element.findtext(f"bndbox/{side}") or "") for side in sides], np.float32)
    return element.findtext("trackid") or "", box + np.array([0, 0, 1, 1], np.float32)


def _folders(root: Path, kind: str, split: str) -> tuple[Path, Path]:
    """The folders of the images and of the annotations."""
    for base in (root, root / "ILSVRC", root / "ILSVRC2015", root / "ILSVRC2017"):
        if (base / "Annotations" / kind).is_dir():
            return base / "Data" / kind / split, base / "Annotations" / kind / split
    raise DataError(f"no Annotations/{kind} in {root} nor in an ILSVRC folder there")
