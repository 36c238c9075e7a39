"""Each kind of source delivers its frames, its rate and what is known about the target."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from short_sequence import write_sequence
from streams import serve

from siamcar_ros.data import SequenceError
from siamcar_ros.data.film import SourceError, open_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequence(tmp_path_factory.mktemp("sources") / "five", 5)


def film(path: Path, levels: tuple[int, ...] = (40, 120, 200)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    assert writer.isOpened()
    for level in levels:
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


def test_a_sequence_folder(folder: Path) -> None:
    source = open_source(str(folder))
    images = list(source.images())
    assert (source.name, source.length, source.rate, source.live) == ("five", 5, 30.0, False)
    assert [image.shape for image in images] == [(480, 640, 3)] * 5
    shipped = open_source("clip").boxes
    assert source.boxes is not None
    assert shipped is not None
    assert source.boxes == pytest.approx(shipped[:5], abs=1e-3)
    assert len(list(source.images())) == 5, "it can be read again"


@pytest.mark.parametrize(
    ("meta", "rate"),
    [
        ("[METAINFO]\nanno_fps: 10Hz\n", 10.0),
        ("[METAINFO]\nanno_fps: .Hz\n", 30.0),
        ("[METAINFO]\nname: \udcff\n", 30.0),
        ("not an ini file", 30.0),
        ("", 30.0),
    ],
)
def test_the_rate_of_a_sequence(folder: Path, tmp_path: Path, meta: str, rate: float) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "meta_info.ini").write_text(meta, "utf-8", "surrogateescape")
    assert open_source(str(tmp_path)).rate == rate


def test_a_frame_that_does_not_decode_is_skipped_and_named(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "00000003.jpg").write_bytes(b"no picture")
    source = open_source(str(tmp_path))
    assert len(list(source.images())) == 4
    assert source.skipped == [2]
    assert source.notes == [f"{tmp_path / '00000003.jpg'} does not decode and is skipped"]
    for file in tmp_path.glob("*.jpg"):
        file.write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"no image in .* decodes"):
        list(source.images())


@pytest.mark.parametrize("kind", ["http", "rtsp"])
def test_a_stream_is_read_live_and_its_end_is_an_error(kind: str) -> None:
    if kind == "rtsp":
        pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    with serve(kind) as port:
        source = open_source(f"{kind}://user:secret@127.0.0.1:{port}/video")
        assert (source.live, source.length) == (True, None)
        images = source.images()
        edges = [int((next(images)[55, :, 0] > 150).argmax()) for _ in range(20)]
    assert edges == pytest.approx(range(edges[0], edges[0] + 80, 4), abs=1)
    with pytest.raises(SourceError, match="/video stopped delivering frames") as broken:
        list(images)
    with pytest.raises(SourceError, match="/video cannot be opened") as gone:
        next(source.images())
    assert "secret" not in f"{source.name} {broken.value} {gone.value}"


def test_a_video_file(tmp_path: Path) -> None:
    source = open_source(str(film(tmp_path / "film.avi")))
    levels = [float(image.mean()) for image in source.images()]
    assert source.rate == pytest.approx(25.0)
    assert source.boxes is None
    assert levels == pytest.approx([40, 120, 200], abs=4)


def test_a_video_file_with_its_annotation(tmp_path: Path) -> None:
    path = film(tmp_path / "film.avi")
    annotation = tmp_path / "film.groundtruth.txt"
    annotation.write_text("1,2,3,4\nnan,nan,nan,nan\n5,6,7,8\n")
    boxes = open_source(str(path)).boxes
    assert boxes is not None
    assert boxes[[0, 2]].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert np.isnan(boxes[1]).all()
    annotation.write_text("1,2,3,4\n")
    with pytest.raises(SequenceError, match="1 rows for 3 frames"):
        open_source(str(path))
    annotation.write_text("one,two\n")
    with pytest.raises(SequenceError, match="line 1"):
        open_source(str(path))


def test_the_film_that_ships() -> None:
    source = open_source("clip")
    assert (source.length, source.rate, source.focal) == (240, 30.0, 560.0)
    assert source.boxes is not None
    assert source.boxes.shape == (240, 4)
    assert np.isfinite(source.boxes).all()
    assert sum(1 for _ in source.images()) == 240


def test_what_is_not_there_or_not_a_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no source 'nowhere'"):
        open_source("nowhere")
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(ValueError, match=r"text\.mp4 is not a video"):
        open_source(str(tmp_path / "text.mp4"))
    with pytest.raises(SequenceError, match=r"no annotation|no images"):
        open_source(str(tmp_path))
