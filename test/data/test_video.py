"""Videos written and read: what plays, what is damaged, what does not fit on the disk."""

from __future__ import annotations

import builtins
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from siamcar_ros.data.video import VideoReader, VideoWriter

FRAMES, SIZE = 60, (48, 64)


def picture(i: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Gray as the index says, with a bright corner."""
    image = np.full((*size, 3), 10 + 4 * i, np.uint8)
    image[:8, :8] = (0, 0, 255)
    return image


def index_of(image: np.ndarray) -> int:
    return round((float(np.median(image)) - 8.5) / 4)


def write(path: Path, frames: int = FRAMES, size: tuple[int, int] = SIZE, rate: float = 25) -> str:
    with VideoWriter(path, rate) as writer:
        for i in range(frames):
            writer.write(picture(i, size))
    return writer.note


def write_midway(writer: VideoWriter) -> None:
    writer.write(picture(0))
    raise RuntimeError("midway")


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "av":
            raise ImportError("No module named 'av'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", importing)


def codec_of(path: Path) -> str:
    code = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FOURCC))
    return code.to_bytes(4, "little").decode()


@pytest.mark.parametrize("size", [SIZE, (47, 63)])
def test_what_is_written_is_h264_and_reads_back(tmp_path: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    assert write(tmp_path / "a.mp4", size=size) == ""
    assert codec_of(tmp_path / "a.mp4") in ("avc1", "h264")
    reader = VideoReader(tmp_path / "a.mp4")
    assert (reader.rate, reader.length) == (25.0, FRAMES)
    frames = dict(reader)
    assert frames[0].shape == (48, 64, 3)
    assert [index_of(image) for image in frames.values()] == list(frames) == list(range(FRAMES))
    blue, green, red = frames[5][2:6, 2:6].reshape(-1, 3).mean(axis=0)
    assert red > 200
    assert max(blue, green) < 60
    assert reader.note() == ""
    # players can begin before all of it is there
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_same_frames_give_the_same_video(tmp_path: Path) -> None:
    """Not always the same bytes: x264 rarely takes another of two ways to code the same pixels."""
    write(tmp_path / "a.mp4")
    write(tmp_path / "b.mp4")
    pairs = list(zip(*(VideoReader(tmp_path / name) for name in ("a.mp4", "b.mp4")), strict=True))
    assert len(pairs) == FRAMES
    for (_, one), (_, other) in pairs:
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("without_av")
def test_without_pyav_the_video_is_mpeg4_and_that_is_said(tmp_path: Path) -> None:
    note = write(tmp_path / "a.mp4")
    assert "which browsers do not play: PyAV is not installed (pip install av)" in note
    assert codec_of(tmp_path / "a.mp4") in ("mp4v", "FMP4")
    assert len(list(VideoReader(tmp_path / "a.mp4"))) == FRAMES


def test_frames_of_another_size_are_made_to_fit(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 30) as writer:
        writer.write(picture(0))
        writer.write(picture(1, (96, 128)))
    assert [image.shape for _, image in VideoReader(tmp_path / "a.mp4")] == [(48, 64, 3)] * 2


def test_a_failure_keeps_the_old_video_and_leaves_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(RuntimeError, match="midway"), VideoWriter(tmp_path / "a.mp4", 30) as writer:
        write_midway(writer)
    with pytest.raises(ValueError, match="no frame"), VideoWriter(tmp_path / "a.mp4", 30):
        pass
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_only_mp4_is_written_and_only_where_there_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.mp4"):
        VideoWriter(tmp_path / "a.avi", 30)
    with (
        pytest.raises(FileNotFoundError, match="there is no folder"),
        VideoWriter(tmp_path / "none" / "a.mp4", 30),
    ):
        pass


@pytest.mark.parametrize("has_av", [True, False])
def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path: Path, has_av: bool) -> None:
    """The limit on a file's size fails as a full disk does, in a process of its own."""
    code = textwrap.dedent(f"""
        import resource, sys
        import numpy as np
        if not {has_av}:
            sys.modules["av"] = None
        from siamcar_ros.data.video import VideoWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        noise = np.random.default_rng(0)
        with VideoWriter({str(tmp_path / "a.mp4")!r}, 30) as writer:
            for _ in range(60):
                writer.write(noise.integers(0, 256, (240, 320, 3), np.uint8))
    """)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "OSError" in ran.stderr or "too large" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def damaged(path: Path, broken: range, *, codec: str = "MJPG") -> Path:
    """A video whose frames `broken` hold zeros."""
    whole = path.with_name(f"whole{path.suffix}")
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*codec), 25, (64, 48))
    assert writer.isOpened()
    for i in range(FRAMES):
        writer.write(picture(i))
    writer.release()
    data = bytearray(whole.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 3] == b"\xff\xd8\xff"]
    starts.append(data.rfind(b"idx1"))
    for i in broken:
        data[starts[i] : starts[i + 1] - 16] = bytes(starts[i + 1] - 16 - starts[i])
    path.write_bytes(data)
    return path


def test_a_bad_frame_in_the_middle_is_skipped_and_named(tmp_path: Path) -> None:
    reader = VideoReader(damaged(tmp_path / "a.avi", range(30, 32)))
    frames = dict(reader)
    assert reader.skipped == [30, 31]
    assert list(frames) == [i for i in range(FRAMES) if i not in (30, 31)]
    assert [index_of(image) for image in frames.values()] == list(frames)
    assert reader.note() == (
        "a.avi: 58 of 60 frames were decoded; skipped: frame 31, 32 (the first is frame 1)"
    )


def test_the_skipped_frame_is_found_where_the_decoder_looks_ahead(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV comes with the extra 'video'")
    write(tmp_path / "a.mp4")
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        shown = sorted(packet.pts for packet in packets)
        packet = packets[30]
        index, start, size = shown.index(packet.pts), packet.pos, packet.size
    data[start : start + size] = bytes(size)
    (tmp_path / "bad.mp4").write_bytes(data)
    reader = VideoReader(tmp_path / "bad.mp4")
    frames = dict(reader)
    assert reader.skipped == [index]
    assert list(frames) == [i for i in range(FRAMES) if i != index]


def test_a_video_that_ends_early_is_read_up_to_there_and_said(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(0.9 * len(data))])
    reader = VideoReader(tmp_path / "cut.mp4")
    count = len(list(reader))
    assert 0 < count < FRAMES
    assert f"cut.mp4: {count} of 60 frames were decoded" in reader.note()


def test_what_holds_no_frame_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="not a video"):
        VideoReader(tmp_path / "text.mp4")
    empty = VideoReader(damaged(tmp_path / "a.avi", range(FRAMES)))
    with pytest.raises(ValueError, match=r"no frame of .*a\.avi decodes"):
        list(empty)


def test_a_picture_that_claims_a_billion_pixels_is_no_video(tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + 2 * (32000).to_bytes(4, "big")
    (tmp_path / "frame1.png").write_bytes(header + bytes(1000))
    with pytest.raises(ValueError, match="32000x32000 pixels, more than the limit"):
        VideoReader(tmp_path / "frame1.png")


def test_a_header_that_claims_billions_of_frames_is_not_believed_for_long(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    reader = VideoReader(tmp_path / "a.mp4")
    reader.length = 10**12
    assert len(list(reader)) == FRAMES
    assert "60 of 1000000000000 frames were decoded; the file ends early" in reader.note()


def test_frames_of_an_odd_size_are_not_resampled(tmp_path: Path) -> None:
    stripes = np.zeros((49, 65, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255
    path = tmp_path / "odd.mp4"
    with VideoWriter(path, 30.0) as writer:
        writer.write(stripes)
    ((_, image),) = VideoReader(path)
    assert image.shape == (50, 66, 3)
    assert np.abs(image[:49, :64].astype(int) - stripes[:, :64]).mean() < 12
