"""COCO and ImageNet DET in their owners' layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamcar_ros.data import DataError, build_source
from siamcar_ros.data.frames import Frame
from siamcar_ros.data.readers.coco import Coco
from siamcar_ros.data.readers.imagenet import ImageNetDet

Picture = Callable[..., Path]
Check = Callable[[Frame], None]


def coco_tree(root: Path, picture: Picture, **extra: Any) -> Path:
    picture(root / "train2017/000000000009.jpg", (30, 20, 90, 100))
    picture(root / "train2017/000000000025.jpg", (300, 200, 1100, 900), (1400, 1000))
    annotations = [
        {
            "id": 1,
            "image_id": 9,
            "bbox": [30.0, 20.0, 60.0, 80.0],
            "iscrowd": 0,
            "category_id": 1,
            "segmentation": [[30, 20, 90, 20, 90, 100, 30, 100]],
        },
        {
            "id": 2,
            "image_id": 25,
            "bbox": [300.0, 200.0, 800.0, 700.0],
            "iscrowd": 0,
            "category_id": 1,
            "segmentation": [[300, 200, 1100, 200, 1100, 900, 300, 900]],
        },
        {
            "id": 3,
            "image_id": 9,
            "bbox": [0, 0, 150, 110],
            "iscrowd": 1,
            "category_id": 1,
            "segmentation": {"counts": [5], "size": [120, 160]},
        },
        {
            "id": 4,
            "image_id": 9,
            "bbox": [1, 1, 3, 3],
            "iscrowd": 0,
            "category_id": 1,
            "segmentation": [],
        },
    ]
    images = [
        {"id": 9, "file_name": "000000000009.jpg", "width": 160, "height": 120},
        {"id": 25, "file_name": "000000000025.jpg", "width": 1400, "height": 1000},
        {"id": 30, "file_name": "000000000030.jpg", "width": 10, "height": 10},
    ]
    (root / "annotations").mkdir()
    content = {"images": images, "annotations": annotations, "categories": [], **extra}
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    return root


def test_coco_gives_boxes_and_outlines_at_any_size(
    tmp_path: Path, picture: Picture, check: Check, rng: np.random.Generator
) -> None:
    source = Coco(coco_tree(tmp_path, picture))
    assert len(source) == 2
    widths, scenes = set(), set()
    for _ in range(20):
        template, search = source.pair(rng)
        assert template is search
        assert template.mask is not None
        check(template)
        widths.add(template.image.shape[1])
        scenes.add(template.scene)
    assert widths == {160, 350}  # the large target's picture is decoded at a quarter of its size
    assert len(scenes) == 2
    assert not source.take_faults().messages


def test_coco_without_masks(
    tmp_path: Path, picture: Picture, check: Check, rng: np.random.Generator
) -> None:
    source = Coco(coco_tree(tmp_path, picture), masks=False)
    frame = source.pair(rng)[0]
    assert frame.mask is None
    check(frame)


def test_coco_names_a_broken_picture_and_goes_on(
    tmp_path: Path, picture: Picture, rng: np.random.Generator
) -> None:
    source = Coco(coco_tree(tmp_path, picture))
    (tmp_path / "train2017/000000000025.jpg").write_bytes(b"no picture")
    for _ in range(20):
        assert source.pair(rng)[0].image.shape[1] == 160
    faults = source.take_faults()
    assert faults.draws == 20
    assert faults.messages
    assert all("000000000025.jpg: not an image" in message for message in faults.messages)
    assert source.take_faults() == (0, ())


def test_coco_gives_up_when_nothing_can_be_read(
    tmp_path: Path, picture: Picture, rng: np.random.Generator
) -> None:
    source = Coco(coco_tree(tmp_path, picture))
    for path in (tmp_path / "train2017").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"200 draws in a row.*missing"):
        source.pair(rng)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": []}'])
def test_coco_refuses_other_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    (tmp_path / "annotations/instances_train2017.json").write_text(text)
    with pytest.raises(DataError, match="instances_train2017"):
        Coco(tmp_path)


def test_coco_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    with pytest.raises(DataError, match=r"'coco': .*annotations/instances_val2017.json: No such"):
        build_source("coco", {"root": str(tmp_path), "split": "val2017"})


def det_tree(root: Path, picture: Picture) -> Path:
    base = root / "ILSVRC"
    name = "ILSVRC2013_train/n02672831/n02672831_1"
    picture(base / f"Data/DET/train/{name}.JPEG", (20, 30, 70, 90))
    annotation = base / f"Annotations/DET/train/{name}.xml"
    annotation.parent.mkdir(parents=True)
    annotation.write_text(
        "<annotation><object><name>n02672831</name><bndbox><xmin>20</xmin><xmax>69</xmax>"
        "<ymin>30</ymin><ymax>89</ymax></bndbox></object></annotation>"
    )
    empty = base / "Annotations/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000002.xml"
    empty.parent.mkdir(parents=True)
    empty.write_text("<annotation><filename>x</filename></annotation>")
    return root


def test_det(tmp_path: Path, picture: Picture, check: Check, rng: np.random.Generator) -> None:
    source = ImageNetDet(det_tree(tmp_path, picture))
    assert len(source) == 2
    for _ in range(5):
        check(source.pair(rng)[0])
    assert not source.take_faults().messages


def test_det_names_a_broken_annotation(
    tmp_path: Path, picture: Picture, rng: np.random.Generator
) -> None:
    source = ImageNetDet(det_tree(tmp_path, picture))
    broken = next(tmp_path.rglob("ILSVRC2014*.xml"))
    broken.write_text("<annotation><object>")
    for _ in range(8):
        source.pair(rng)
    assert "not an annotation" in source.take_faults().messages[0]
