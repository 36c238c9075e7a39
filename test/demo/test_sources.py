"""Each kind of source gives its frames, its rate and what it knows of the target."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from siamcar_ros.demo.render import Clip, write_sequence
from siamcar_ros.demo.sources import SourceError, open_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequence(Clip(seed=2, frames=5), tmp_path_factory.mktemp("sources") / "five")


def test_a_sequence_folder(folder: Path) -> None:
    source = open_source(str(folder))
    images = list(source.images())
    assert (source.name, source.length, source.rate, source.live) == ("five", 5, 30.0, False)
    assert [image.shape for image in images] == [(480, 640, 3)] * 5
    assert source.boxes is not None
    assert source.boxes[3] == pytest.approx(Clip(seed=2, frames=5).box(3), abs=1e-3)
    assert len(list(source.images())) == 5, "it can be read again"


@pytest.mark.parametrize(
    ("meta", "rate"),
    [("[METAINFO]\nanno_fps: 10Hz\n", 10.0), ("not an ini file", 30.0), ("", 30.0)],
)
def test_the_rate_of_a_sequence(folder: Path, tmp_path: Path, meta: str, rate: float) -> None:
    for file in folder.glob("0*.jpg"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "groundtruth.txt").write_bytes((folder / "groundtruth.txt").read_bytes())
    (tmp_path / "meta_info.ini").write_text(meta)
    assert open_source(str(tmp_path)).rate == rate


def test_a_frame_that_does_not_decode_is_named(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "00000003.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"00000003\.jpg does not decode"):
        list(open_source(str(tmp_path)).images())


def test_a_video_file(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    assert writer.isOpened()
    for level in (40, 120, 200):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    source = open_source(str(path))
    levels = [float(image.mean()) for image in source.images()]
    assert source.rate == pytest.approx(25.0)
    assert source.boxes is None
    assert levels == pytest.approx([40, 120, 200], abs=4)


def test_the_clip_knows_its_boxes_without_drawing() -> None:
    source = open_source("clip:7")
    assert source.length == 240
    assert source.boxes is not None
    assert source.boxes[17] == pytest.approx(Clip(seed=7).frame(17).box)


def test_what_is_not_there_or_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no source 'nowhere'"):
        open_source("nowhere")
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(SourceError, match=r"text\.mp4 is not a video"):
        open_source(str(tmp_path / "text.mp4"))
    with pytest.raises(SourceError, match=r"no annotation|no images"):
        open_source(str(tmp_path))
