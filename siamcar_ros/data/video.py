"""Reading and writing video files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siamcar_ros.data.images import MAX_PIXELS, image_size
from siamcar_ros.files import replacing
from siamcar_ros.geometry import Image

DEFAULT_RATE = 30.0

# Frames in a row that do not decode after which the rest is given up: some headers claim billions.
_ATTEMPTS = 10_000
_HEADER = 1 << 16  # bytes
_ENCODER = "libx264"
# One thread: the same frames give the same pixels.
_OPTIONS = {"preset": "veryfast", "crf": "20", "threads": "1"}
_BT601 = 6  # the matrix with which OpenCV turns BGR into YUV


class VideoReader:
    """The frames of a video file.

    Iterating gives pairs of the frame's index and its (H, W, 3) uint8 BGR image. A frame that does
    not decode is skipped and reading goes on after it; `note()` says so afterwards.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the header."""
        self.path = Path(path)
        with self.path.open("rb") as file:
            # A stream of JPEGs begins as a picture does; OpenCV decodes one as it opens the file.
            self._check_size(*(image_size(file.read(_HEADER)) or (0, 0)))
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        capture.release()
        self._check_size(width, height)
        self.rate = rate if 0 < rate <= 1000 else DEFAULT_RATE  # frames per second
        self.length = length if length > 0 else None  # as the header says, in frames
        self.skipped: list[int] = []  # indices of the frames read so far that did not decode
        self._decoded = 0

    def __iter__(self) -> Iterator[tuple[int, Image]]:
        """Read from the beginning."""
        capture = self._open()
        self.skipped.clear()
        self._decoded = 0
        index, failures, failed = -1, 0, 0  # failed: since the last frame that decoded
        length = self.length or math.inf
        try:
            while failed == 0 or (
                failed < _ATTEMPTS and self._decoded + failures + failed < length
            ):
                read, image = capture.read()
                if not read:
                    failed += 1
                    continue
                failures, failed = failures + failed, 0
                # Decoders report a failure some frames early; the time tells where it is.
                time = capture.get(cv2.CAP_PROP_POS_MSEC) * self.rate / 1000
                before, latest = index, self._decoded + failures
                index = max(before + 1, min(round(time), latest))
                self.skipped += range(before + 1, index)
                self._decoded += 1
                yield index, np.asarray(image, np.uint8)
        finally:
            capture.release()
        if self._decoded == 0:
            raise ValueError(f"no frame of {self.path} decodes")

    def note(self) -> str:
        """One sentence on what was not read, after iterating to the end; empty if all was."""
        missing = 0 if self.length is None else self.length - self._decoded
        # The header of some formats gives a duration only, from which the length is rounded.
        if not self.skipped and missing <= 1:
            return ""
        total = self._decoded + len(self.skipped) if self.length is None else self.length
        text = f"{self.path.name}: {self._decoded} of {total} frames were decoded"
        if not self.skipped:
            return f"{text}; the file ends early or is damaged"
        first = ", ".join(str(index + 1) for index in self.skipped[:5])
        more = ", ..." if len(self.skipped) > 5 else ""
        return f"{text}; skipped: frame {first}{more} (the first is frame 1)"

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"{self.path} has frames of {width}x{height} pixels, more than the limit of"
                f" {MAX_PIXELS / 1e6:g} million"
            )

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise ValueError(f"{self.path} is not a video that OpenCV can read")
        return capture


class VideoWriter:
    """Writes an MP4 file that browsers and phones play.

    The video is H.264, encoded through PyAV. Without PyAV OpenCV writes MPEG-4 Part 2, and `note`
    says so. The file is written beside `path`, checked, and moved into place when the `with` block
    ends; if the block raises, `path` stays as it was.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        """Check the path; the file, of `rate` frames per second, is begun with the first frame."""
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"videos are written as MP4: {self.path} must end in .mp4")
        self.note = ""  # why the video is not H.264
        self._rate = rate
        self._written = 0
        self._shape = (0, 0)  # height and width of the first image
        self._encoder: _Av | cv2.VideoWriter | None = None
        self._cleanup = ExitStack()

    def __enter__(self) -> VideoWriter:
        self._partial = self._cleanup.enter_context(replacing(self.path))
        return self

    def write(self, image: Image) -> None:
        """Append a (H, W, 3) uint8 BGR image, scaled to the size of the first one.

        A last row or column is repeated where that size is odd: chroma has half the resolution.
        """
        if self._encoder is None:
            self._shape = image.shape[:2]
            self._encoder = self._begin()
        height, width = self._shape
        if image.shape[:2] != self._shape:
            image = np.asarray(cv2.resize(image, (width, height)), np.uint8)
        if height % 2 or width % 2:
            last = cv2.BORDER_REPLICATE
            image = np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, last))
        self._encoder.write(np.ascontiguousarray(image))
        self._written += 1

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with self._cleanup as cleanup:
            if self._encoder is not None:
                try:
                    self._encoder.release()
                except Exception:  # report the first error
                    if error is None:
                        raise
            if error is None:
                self._check()
            else:
                cleanup.__exit__(kind, error, trace)

    def _begin(self) -> _Av | cv2.VideoWriter:
        height, width = self._shape
        size = width + width % 2, height + height % 2
        try:
            import av
        except ImportError:
            why = "PyAV is not installed (pip install av)"
        else:
            if _ENCODER in av.codecs_available:
                return _Av(self._partial, self._rate, size)
            why = f"this build of PyAV has no {_ENCODER}"
        self.note = f"{self.path.name} is MPEG-4 Part 2, which browsers do not play: {why}"
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(self._partial), code, self._rate, size)
        if not writer.isOpened():
            raise OSError(
                f"OpenCV cannot write {self.path}: it has no MPEG-4 encoder, or the folder cannot "
                "be written to; pip install av brings an encoder"
            )
        return writer

    def _check(self) -> None:
        """Raise OSError if the file lacks frames; OpenCV does not report failures."""
        if self._written == 0:
            raise ValueError(f"{self.path} would hold no frame")
        try:
            length = VideoReader(self._partial).length
        except (ValueError, OSError):
            length = 0
        if length != self._written:
            raise OSError(
                f"{self.path} could not be written: {length or 0} of {self._written} frames are in"
                " the file; is the disk full?"
            )


class _Av:
    """H.264 through PyAV."""

    def __init__(self, path: Path, rate: float, size: tuple[int, int]) -> None:
        import av

        self._av: Any = av
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        stream: Any = self._container.add_stream(
            _ENCODER, rate=Fraction(rate).limit_denominator(1001), options=_OPTIONS
        )
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = _BT601
        self._stream = stream

    def write(self, image: Image) -> None:
        planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
        frame = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        self._container.mux(self._stream.encode(frame))

    def release(self) -> None:
        try:
            self._container.mux(self._stream.encode())
        finally:
            self._container.close()
