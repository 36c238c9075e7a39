"""Pairs from still images, with or without masks, and from videos with masks.

Both views of a pair may be the same still image, which augmentation then tells apart. Targets are
the segments of a map beside the image (``NAME.png``, numbers or colors; 0 and black are the
background) or, without a map, the object that GrabCut finds in the middle, or a random rectangle.
A folder of frames with masks is a video, from which two frames are drawn.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from siamcar_ros.data.frames import Frame, frame_from_box, frame_from_mask
from siamcar_ros.data.images import ImageError, decode_image
from siamcar_ros.data.pair_sources import (
    DataError,
    DataFault,
    MaxGap,
    PairSet,
    VideoPairs,
    read_picture,
)
from siamcar_ros.data.registry import register_dataset
from siamcar_ros.data.sequences import IMAGE_SUFFIXES, natural_order
from siamcar_ros.geometry import Image
from siamcar_ros.options import Range

logger = logging.getLogger(__name__)

_GRABCUT_SIDE = 144


def read_reduced(path: Path, short_side: int) -> Image:
    """Decode to (H, W, 3) uint8 BGR, reduced so that its short side is at most ``short_side``."""
    image, _ = read_picture(path)
    ratio = short_side / min(image.shape[:2])
    if ratio >= 1:
        return image
    size = (round(image.shape[1] * ratio), round(image.shape[0] * ratio))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


@register_dataset("stills")
class StillImages(PairSet):
    """A folder of still images, held decoded in memory (about 0.3 MB each at 288 pixels).

    Args:
        folder: searched for images, including subfolders. ``NAME.png`` beside an image of that
            name is its map of segments.
        rectangles: probability of a random rectangle as the target instead of a segment.
        short_side: larger images are reduced to it.
        limit: most images, taken evenly from the sorted list.
        cache: folder that keeps the masks found by GrabCut for the next start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rectangles: Annotated[float, Range(0, 1)] = 0.15,
        short_side: Annotated[int, Range(16)] = 288,
        limit: Annotated[int, Range(1)] | None = None,
        cache: Path | None = None,
    ) -> None:
        files: list[str] = []
        super().__init__(f"stills {folder.name}", files)
        self.rectangles = rectangles
        paths = list(_images(folder))
        if limit is not None and len(paths) > limit:
            paths = [paths[i * len(paths) // limit] for i in range(limit)]
        self._images: list[tuple[Image, str]] = []
        self._targets: list[list[Frame]] = []  # of those images that show some
        for path in tqdm(paths, desc=f"reading {folder.name}", leave=False, disable=None):
            try:
                image = read_reduced(path, short_side)
                targets = _find_targets(image, path, cache)
            except DataFault as error:
                logger.warning("skipped: %s", error)
                self.skipped.append(path)
                continue
            files.append(_described(path, folder))
            self._images.append((image, str(path)))
            self._targets += [targets] if targets else []
        if not self._images:
            raise DataError(f"no readable image below {folder}")

    def draw(self, rng: np.random.Generator) -> tuple[Frame, Frame]:
        """One target of one image, twice."""
        if not self._targets or rng.random() < self.rectangles:
            image, scene = self._images[rng.integers(len(self._images))]
            frame = frame_from_box(image, _rectangle(image, rng), scene)
        else:
            targets = self._targets[rng.integers(len(self._targets))]
            frame = targets[rng.integers(len(targets))]
        return frame, frame


@register_dataset("masked_videos")
class MaskedVideos(VideoPairs):
    """A folder of videos, each a folder of frames ``NAME.jpg`` with masks ``NAME.png``.

    Frames whose short side is larger than `short_side` are reduced to it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_gap: MaxGap = 25,
        short_side: Annotated[int, Range(16)] = 288,
    ) -> None:
        names: list[str] = []
        super().__init__(f"masked_videos {folder.name}", names, max_gap)
        self._videos: list[list[Frame]] = []
        self._files: list[str] = []
        for video in tqdm(
            sorted(folder.iterdir()), desc=f"reading {folder.name}", leave=False, disable=None
        ):
            paths = sorted(_images(video), key=natural_order)
            frames = [f for path in paths if (f := self._frame(path, short_side))]
            if len(frames) > 1:
                names.append(video.name)
                self._videos.append(frames)
                self._files += [_described(path, folder) for path in paths]
        if not names:
            raise DataError(f"no video with masks below {folder}")

    def __len__(self) -> int:
        return sum(map(len, self._videos))

    def items(self) -> Iterable[str]:
        """The files and their sizes."""
        return self._files

    def places(self, video: int) -> NDArray[np.int64]:
        """The frames, counted."""
        return np.arange(len(self._videos[video]))

    def view(self, video: int, frame: int, target: Any) -> Frame:
        """The target in a frame."""
        return self._videos[video][frame]

    def _frame(self, path: Path, short_side: int) -> Frame | None:
        try:
            image = read_reduced(path, short_side)
            mask = read_segments(path.with_suffix(".png"), image)
        except DataFault as error:
            logger.warning("skipped: %s", error)
            self.skipped.append(path)
            return None
        pixels = np.where(mask > 0, 255, 0).astype(np.uint8)
        if np.count_nonzero(pixels) <= 30:
            return None
        return frame_from_mask(image, pixels, str(path.parent))


def read_segments(path: Path, image: Image) -> Image:
    """Read the map of segments (H, W) uint8 beside an image, at the image's size.

    Palettes are read as colors. Colors and numbers become 1 to K in their order; black and 0 stay
    0.
    """
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        segments = decode_image(path.read_bytes(), flags=flags)
    except OSError:
        raise DataFault(path, "missing") from None
    except ImageError as error:
        raise DataFault(path, str(error)) from None
    size = image.shape[1::-1]
    if segments.shape[1::-1] != size:
        segments = cv2.resize(segments, size, interpolation=cv2.INTER_NEAREST)
    numbers = segments.astype(np.int64) @ np.array([1, 1 << 16, 1 << 32])
    known = np.unique(np.append(numbers, 0))
    if len(known) > 256:
        raise DataFault(path, f"{len(known) - 1} segments; a map may have 255")
    return np.searchsorted(known, numbers).astype(np.uint8)


def central_object(image: Image) -> Image | None:
    """The mask (H, W) of the object that GrabCut finds in the middle, None if none stands out."""
    height, width = image.shape[:2]
    ratio = min(1.0, _GRABCUT_SIDE / max(height, width))
    small = cv2.resize(image, (round(width * ratio), round(height * ratio)))
    h, w = small.shape[:2]
    labels = np.zeros((h, w), np.uint8)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    inner = (int(w * 0.08), int(h * 0.08), int(w * 0.84), int(h * 0.84))
    cv2.setRNGSeed(1)
    cv2.grabCut(small, labels, inner, background, foreground, 3, cv2.GC_INIT_WITH_RECT)
    mask = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts, stats, centroids = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    area = stats[best, cv2.CC_STAT_AREA]
    off_center = np.abs(centroids[best] / (w, h) - 0.5).max()
    if not 0.05 < area / (w * h) < 0.65 or area < 0.7 * mask.sum() or off_center > 0.25:
        return None
    part = (parts == best).astype(np.uint8) * 255
    whole = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(whole > 127, 255, 0).astype(np.uint8)


def _described(path: Path, folder: Path) -> str:
    return f"{path.relative_to(folder).as_posix()} {path.stat().st_size}"


def _images(folder: Path) -> Iterator[Path]:
    paths = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES]
    photographs = {p.with_suffix("") for p in paths if p.suffix.lower() != ".png"}
    for path in paths:
        if path.suffix.lower() != ".png" or path.with_suffix("") not in photographs:
            yield path


def _find_targets(image: Image, path: Path, cache: Path | None) -> list[Frame]:
    beside = path.with_suffix(".png")
    if beside != path and beside.exists():
        return list(_segment_targets(image, read_segments(beside, image), str(path)))
    mask = _cached_object(image, cache)
    return [] if mask is None else [frame_from_mask(image, mask, str(path))]


def _cached_object(image: Image, cache: Path | None) -> Image | None:
    if cache is None:
        return central_object(image)
    key = hashlib.sha1(image.tobytes()).hexdigest()
    stored = cache / f"{key}.png"
    mask = cv2.imread(str(stored), cv2.IMREAD_GRAYSCALE) if stored.exists() else None
    if mask is None:
        found = central_object(image)
        mask = np.zeros(image.shape[:2], np.uint8) if found is None else found
        cache.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(stored), mask)
    return np.asarray(mask, np.uint8) if mask.any() else None


def _segment_targets(image: Image, segments: Image, scene: str) -> Iterator[Frame]:
    """The segments that look like objects: compact, neither tiny nor most of the image."""
    height, width = segments.shape
    for label in np.unique(segments):
        if label == 0:
            continue
        mask = np.where(segments == label, 255, 0).astype(np.uint8)
        area = np.count_nonzero(mask)
        if not 0.004 < area / mask.size < 0.35:
            continue
        frame = frame_from_mask(image, mask, scene)
        x1, y1, x2, y2 = frame.box
        sides = (x1 <= 1) + (y1 <= 1) + (x2 >= width - 1) + (y2 >= height - 1)
        if sides <= 1 and area > 0.3 * (x2 - x1) * (y2 - y1):
            yield frame


def _rectangle(image: Image, rng: np.random.Generator) -> np.ndarray:
    """A random box of 6 to 50 % of the image's short side, with an aspect ratio of 1/3 to 3."""
    height, width = image.shape[:2]
    side = min(height, width) * np.exp(rng.uniform(np.log(0.06), np.log(0.5)))
    stretch = np.exp(rng.uniform(-0.55, 0.55))
    w, h = min(side * stretch, 0.9 * width), min(side / stretch, 0.9 * height)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return np.array([x, y, x + w, y + h], np.float32)
