"""COCO's detection data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captum_scorecam.datasets import ImageDataset, open_data

COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "000000000007.jpg", "width": 6, "height": 4},
        {"id": 9, "file_name": "000000000009.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [0, 0, 2, 2], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [3, 0, 2.2, 2.2], "iscrowd": 0},
        {"id": 3, "image_id": 7, "category_id": 18, "bbox": [4, 2, 2, 2], "iscrowd": 1},
        {"id": 4, "image_id": 9, "category_id": 1, "bbox": [1, 1, 0, 3], "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
}


def save(path: Path, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (255, 0, 0)).save(path)


def listed(data: ImageDataset) -> list[tuple[str, object]]:
    return [(data.name(index), data.label(index)) for index in range(len(data))]


def coco(root: Path, content: dict[str, Any] | None = None, split: str = "val2017") -> Path:
    for number in (7, 9):
        save(root / split / f"{number:012}.jpg")
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content or COCO))
    return path


@pytest.mark.parametrize("file", [True, False])
def test_an_image_has_the_category_of_largest_total_area_and_its_boxes(file: bool, tmp_path: Path) -> None:
    path = coco(tmp_path)
    data = open_data(path if file else tmp_path)
    assert listed(data) == [("000000000007.jpg", "dog"), ("000000000009.jpg", None)]
    assert (data.has_labels, data.has_boxes, data.classes) == (True, True, None)
    region = data[0].region
    assert region is not None
    white = {(x, y) for x in range(6) for y in range(4) if region.getpixel((x, y)) == 255}
    assert white == {(x, y) for x, y in ((0, 0), (1, 0), (0, 1), (1, 1), (4, 2), (5, 2), (4, 3), (5, 3))}
    assert data[1].region is None


def test_annotations_next_to_the_images(tmp_path: Path) -> None:
    path = coco(tmp_path)
    beside = tmp_path / "val2017" / "mine.json"
    path.rename(beside)
    assert open_data(beside)[0].image.size == (6, 4)


def test_the_validation_split_is_preferred(tmp_path: Path) -> None:
    coco(tmp_path, {**COCO, "images": COCO["images"][:1]}, "zoo")
    assert len(open_data(tmp_path)) == 1
    coco(tmp_path)
    assert len(open_data(tmp_path)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": None}, "can't be read: "),
        ({"categories": []}, r"can't be read: KeyError\(18\)"),
        ({"images": []}, "Expected images in .*, but found none"),
        (
            {"images": COCO["images"] * 2},
            "each image to be listed once, but '000000000007.jpg' is listed more than once",
        ),
        ({"annotations": [{"image_id": 7, "category_id": 1}]}, r"KeyError\('bbox'\)"),
    ],
)
def test_invalid_annotations_raise(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_data(coco(tmp_path, {**COCO, **change}))


def test_invalid_and_missing_json_raises(tmp_path: Path) -> None:
    path = coco(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"Expected COCO annotations, but .*instances_val2017\.json' can't be read"):
        open_data(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"Expected annotations/instances_val2017\.json in"):
        open_data(tmp_path, "coco")
