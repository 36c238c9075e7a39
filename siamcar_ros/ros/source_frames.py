"""The messages of one frame of a source: image, compressed image, camera_info and true box."""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D

from siamcar_ros.data.film import SourceError
from siamcar_ros.geometry import Box, Boxes
from siamcar_ros.geometry import Image as Pixels
from siamcar_ros.ros.messages import box_to_bbox, hypothesis, image_message


@dataclass
class Frame:
    """A frame as it will be published; its stamp is set last.

    Attributes:
        first: whether a pass over the source begins with it.
        header: shared by all its messages.
        size: (width, height) in pixels.
        raw: if wanted.
        compressed: if wanted.
        box: the true box; None where the target is absent or unknown.
    """

    first: bool
    header: Header
    size: tuple[int, int]
    raw: Image | None
    compressed: CompressedImage | None
    box: Box | None


@dataclass
class FrameMaker:
    """Turns the images of a source into messages.

    Attributes:
        boxes: the true boxes of the source, a row a frame; None without annotation.
        frame_id: of the headers.
        size: (width, height) to which frames are scaled; None leaves them as they are.
        focal: focal length in pixels of the published frame; 0 if it is unknown.
        quality: of the JPEGs, 0 to 100.
    """

    boxes: Boxes | None
    frame_id: str
    size: tuple[int, int] | None
    focal: float
    quality: int

    def scaled(self, image: Pixels, row: int) -> tuple[Pixels, Box | None]:
        """The image and its true box, in row `row`, at the size at which they are published."""
        box = None
        if self.boxes is not None and np.isfinite(self.boxes[row]).all():
            x, y, w, h = self.boxes[row].tolist()
            box = (x, y, w, h)
        if self.size is not None:
            across, down = (
                new / old for new, old in zip(self.size, image.shape[1::-1], strict=True)
            )
            image = np.asarray(cv2.resize(image, self.size), np.uint8)
            if box is not None:
                box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        return image, box

    def prepare(
        self, image: Pixels, row: int, *, first: bool, raw: bool, compressed: bool
    ) -> Frame:
        """Everything of a frame but its stamp; the image as `raw` and `compressed` want it."""
        image, box = self.scaled(image, row)
        height, width = image.shape[:2]
        frame = Frame(first, Header(frame_id=self.frame_id), (width, height), None, None, box)
        if raw:
            frame.raw = image_message(frame.header, image)
        if compressed:
            stream = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
            frame.compressed = CompressedImage(format="bgr8; jpeg compressed bgr8")
            frame.compressed.data.frombytes(stream.data.cast("B"))
        return frame


def truth_message(frame: Frame) -> Detection2D:
    """The true box; without area, and without hypothesis, where the target is absent."""
    truth = Detection2D(id="ground_truth")
    if frame.box is not None:
        truth.bbox = box_to_bbox(frame.box)
        truth.results = [hypothesis("", 1.0)]
    return truth


def parse_size(text: str) -> tuple[int, int] | None:
    """Read WIDTHxHEIGHT; None if it is empty.

    Raises:
        SourceError: it is something else.
    """
    if not text:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise SourceError(f"size is WIDTHxHEIGHT in pixels, such as 640x480, not {text!r}")
    return int(found[1]), int(found[2])
