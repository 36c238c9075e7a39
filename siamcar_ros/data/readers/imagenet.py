"""ImageNet's detection (DET) and video (VID) sets as the ILSVRC archives unpack.

``Data/KIND/…/NAME.JPEG``, ``Annotations/KIND/…/NAME.xml`` and ``ImageSets/KIND/*.txt`` below the
folder ``ILSVRC`` (or ``ILSVRC2015``), which is the root or lies in it. Boxes are given as their
first and last pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from siamcar_ros.data.frames import Frame
from siamcar_ros.data.pair_sources import DataError, DataFault, MaxGap, PairSet, boxed_frame
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequences import natural_order

_TRIES = 4


class _ImageNet(PairSet):
    """The images and annotations of one kind, by the names of images or videos."""

    def __init__(self, root: Path, kind: str, split: str) -> None:
        super().__init__(f"imagenet_{kind.lower()} {split}")
        self._base = _base(root, kind)
        self._images = self._base / "Data" / kind / split
        self._annotations = self._base / "Annotations" / kind / split
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def items(self) -> Iterable[str]:
        """The names of the images or videos."""
        return self._names


@register_dataset("imagenet_det")
class ImageNetDet(_ImageNet):
    """Photographs with boxes. Both frames of a pair show one object of one image.

    Args:
        root: the folder ``ILSVRC`` or its parent.
        split: "train" (2013 and the 2014 additions) or "val".

    Raises:
        DataError: files are missing.
    """

    def __init__(self, root: Path, *, split: str = "train") -> None:
        super().__init__(root, "DET", split)
        lists = self._base / "ImageSets/DET"
        self._names = _listed(lists, split) or _found(self._annotations)
        if not self._names:
            raise DataError(f"no list in {lists} nor XML in {self._annotations}")

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        """One object of a random image."""
        name = self._names[int(rng.integers(len(self)))]
        objects = read_objects(self._annotations / f"{name}.xml")
        if not objects:
            return None
        box = objects[int(rng.integers(len(objects)))].box
        path = self._images / f"{name}.JPEG"
        frame = boxed_frame(path, box, path)
        return None if frame is None else (frame, frame)


@register_dataset("imagenet_vid")
class ImageNetVid(_ImageNet):
    """Videos with a box for each object in each frame.

    Args:
        root: the folder ``ILSVRC`` or its parent.
        split: "train" or "val".
        max_gap: most frames between the two of a pair.

    Raises:
        DataError: files are missing.
    """

    def __init__(self, root: Path, *, split: str = "train", max_gap: MaxGap = 100) -> None:
        super().__init__(root, "VID", split)
        self.max_gap = max_gap
        # Training snippets lie one folder deeper than those for validation.
        folders = self._annotations.glob("*/*" if split == "train" else "*")
        self._names = sorted(f.relative_to(self._annotations).as_posix() for f in folders)
        if not self._names:
            raise DataError(f"no snippet in {self._annotations}")
        self._counts: dict[str, int] = {}

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame] | None:
        """Two frames of a random video that show one of its objects."""
        name = self._names[int(rng.integers(len(self)))]
        count = self._count(name)
        if not count:
            raise DataFault(self._annotations / name, "no XML files")
        first = int(rng.integers(count))
        objects = self._objects(name, first)
        if not objects:
            return None
        target = objects[int(rng.integers(len(objects)))]
        folder = self._images / name
        one = boxed_frame(folder / f"{first:06d}.JPEG", target.box, folder)
        low, high = max(0, first - self.max_gap), min(count, first + self.max_gap + 1)
        for _ in range(_TRIES):
            second = int(rng.integers(low, high))
            again = [o for o in self._objects(name, second) if o.track == target.track]
            if again:
                path = folder / f"{second:06d}.JPEG"
                other = one if second == first else boxed_frame(path, again[0].box, folder)
                return None if one is None or other is None else (one, other)
        return None if one is None else (one, one)

    def _objects(self, name: str, frame: int) -> list[AnnotatedObject]:
        return read_objects(self._annotations / name / f"{frame:06d}.xml")

    def _count(self, name: str) -> int:
        if name not in self._counts:
            folder = self._annotations / name
            self._counts[name] = sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
        return self._counts[name]


class AnnotatedObject(NamedTuple):
    """An annotated object: its box (4,) float32 x1, y1, x2, y2, and its track, "" without one."""

    box: NDArray[np.float32]
    track: str


def read_objects(path: Path) -> list[AnnotatedObject]:
    """The objects of an annotation in PASCAL VOC's XML.

    Raises:
        DataFault: the file is missing or not such an annotation.
    """
    try:
        root = ElementTree.parse(path).getroot()
        return [_object(element) for element in root.iter("object")]
    except OSError:
        raise DataFault(path, "missing") from None
    except (ElementTree.ParseError, ValueError, TypeError) as error:
        raise DataFault(path, f"not an annotation: {error}") from None


def _object(element: ElementTree.Element) -> AnnotatedObject:
    sides = [float(element.findtext(f"bndbox/{side}") or "") for side in _SIDES]
    box = np.array(sides, np.float32) + np.array([0, 0, 1, 1], np.float32)
    return AnnotatedObject(box, element.findtext("trackid") or "")


_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _base(root: Path, kind: str) -> Path:
    for base in (root, root / "ILSVRC", root / "ILSVRC2015", root / "ILSVRC2017"):
        if (base / "Annotations" / kind).is_dir():
            return base
    raise DataError(f"no Annotations/{kind} in {root} nor in an ILSVRC folder there")


def _listed(folder: Path, split: str) -> list[str]:
    """The images in a split's lists, except those marked -1 (without an object of the class)."""
    names: dict[str, None] = {}
    for path in _lists(folder, split):
        for line in filter(str.strip, path.read_text().splitlines()):
            name, *flag = line.split()
            if flag[:1] != ["-1"]:
                names[name.removeprefix(f"{split}/")] = None
    return list(names)


def _lists(folder: Path, split: str) -> list[Path]:
    whole = folder / f"{split}.txt"
    parts = [p for p in folder.glob(f"{split}_*.txt") if p.stem.removeprefix(f"{split}_").isdigit()]
    return [whole] if whole.is_file() else sorted(parts, key=natural_order)


def _found(annotations: Path) -> list[str]:
    """The annotations below a folder, for archives without lists."""
    paths = sorted(annotations.rglob("*.xml"))
    return [path.relative_to(annotations).with_suffix("").as_posix() for path in paths]
