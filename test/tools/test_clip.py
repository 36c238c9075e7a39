"""The rendered clip: its boxes are true to its pixels, and it can be relied on to be the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from clip.render import Clip, write_film
from clip.scene import blur_kernel, draw_thing

from siamcar_ros.data.film import open_source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(seed=0, frames=240)


def test_the_same_seed_gives_the_same_pixels(clip: Clip) -> None:
    again, other = Clip(seed=0, frames=240), Clip(seed=1, frames=240)
    first, second = clip.frame(100), again.frame(100)
    assert np.array_equal(first.image, second.image)
    assert first.box == second.box
    assert not np.array_equal(first.image, other.frame(100).image)


@pytest.mark.parametrize("index", [0, 60, 96, 125, 150, 239])
def test_the_box_is_the_outline_of_the_drawn_target(clip: Clip, index: int) -> None:
    share = index / (len(clip) - 1)
    thing, _ = clip._target.place(*clip._at(share))
    patch = draw_thing(thing, clip._camera(share))
    assert patch is not None
    rows, columns = np.nonzero(patch.pixels[..., 3] > 127)
    drawn = (
        patch.x + columns.min(),
        patch.y + rows.min(),
        patch.x + columns.max() + 1,
        patch.y + rows.max() + 1,
    )
    x, y, w, h = clip.frame(index).box
    assert drawn == pytest.approx((x, y, x + w, y + h), abs=1.6)


def test_the_target_moves_changes_size_and_is_hidden_in_part(clip: Clip) -> None:
    frames = [clip.frame(index) for index in range(0, len(clip), 3)]
    boxes = np.array([frame.box for frame in frames])
    area = boxes[:, 2] * boxes[:, 3]
    assert area.max() > 5 * area.min()
    assert np.ptp(boxes[:, 0] + boxes[:, 2] / 2) > 100
    aspect = boxes[:, 2] / boxes[:, 3]
    assert aspect.max() > 1.8 * aspect.min()
    visible = np.array([frame.visible for frame in frames])
    assert visible.min() < 0.6
    assert visible[0] > 0.99
    assert visible[-1] > 0.9
    assert boxes[:, :2].min() > 0
    assert (boxes[:, 0] + boxes[:, 2]).max() < 640
    assert (boxes[:, 1] + boxes[:, 3]).max() < 480


def test_parts_cover_every_frame_once(clip: Clip) -> None:
    covered = [index for _, span in clip.parts for index in span]
    assert covered == list(range(len(clip)))
    assert len(Clip(frames=2).parts) >= 1


def test_frames_outside_the_clip_are_refused(clip: Clip) -> None:
    with pytest.raises(IndexError, match="0 to 239"):
        clip.frame(240)
    with pytest.raises(ValueError, match="at least 2"):
        Clip(frames=1)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_film_is_written_with_its_boxes(tmp_path: Path) -> None:
    clip = Clip(seed=3, frames=6)
    truth = write_film(clip, tmp_path / "films" / "six.mp4")
    source = open_source(str(tmp_path / "films" / "six.mp4"))
    assert (source.length, source.rate) == (6, 30.0)
    assert np.loadtxt(truth, delimiter=",")[2] == pytest.approx(clip.box(2), abs=0.01)
    for index, image in enumerate(source.images()):
        assert cv2.PSNR(image, clip.frame(index).image) > 30
    with pytest.raises(OSError, match="ffmpeg could not write"):
        write_film(Clip(frames=2), tmp_path / "no.such.kind")


def test_the_film_that_ships_was_made_here(clip: Clip) -> None:
    source = open_source("clip")
    assert source.boxes is not None
    assert source.focal == clip.focal
    assert source.boxes == pytest.approx(np.array([clip.box(i) for i in range(240)]), abs=0.01)
    for index, image in enumerate(source.images()):
        if index % 80 == 0:
            assert cv2.PSNR(image, clip.frame(index).image) > 30


def test_blur_keeps_the_light_and_follows_the_motion() -> None:
    kernel = blur_kernel(np.array((6.0, 0.0)))
    assert kernel is not None
    assert kernel.sum() == pytest.approx(1)
    assert kernel[len(kernel) // 2].sum() == pytest.approx(1, abs=1e-5)
    assert blur_kernel(np.array((0.5, 0.5))) is None


@pytest.mark.parametrize("seed", [0, 1])
def test_the_sky_is_up_wherever_the_camera_looks(seed: int) -> None:
    clip = Clip(seed)
    for index in range(0, len(clip), 8):
        top = clip.frame(index).image[:16].astype(int)
        assert (top[..., 0] - top[..., 2] > 0).mean() > 0.9, f"no sky in frame {index}"
