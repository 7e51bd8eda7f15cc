"""ImageNet, Pascal VOC and COCO as they lie on a disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection

from captum_scorecam.datasets import ImageDataset, open_data

WNIDS = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",), "n01484850": ("great white shark",)}


def save(path: Path, size: tuple[int, int] = (6, 4), **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (255, 0, 0)).save(path, **options)


def listed(data: ImageDataset) -> list[tuple[str, object]]:
    return [(data.name(index), data.label(index)) for index in range(len(data))]


def imagenet(root: Path, split: str = "val") -> Path:
    torch.save((WNIDS, ["n01484850", "n01440764"]), root / "meta.bin")
    for name in ("n01484850/ILSVRC2012_val_00000002.JPEG", "n01440764/ILSVRC2012_val_00000001.JPEG"):
        save(root / split / name)
    return root


def test_imagenets_labels_are_class_indices_also_where_classes_are_missing(tmp_path: Path) -> None:
    save(imagenet(tmp_path) / "val" / "n01440764" / "._hidden.JPEG", format="JPEG")
    data = open_data(tmp_path)
    first, third = "n01440764/ILSVRC2012_val_00000001.JPEG", "n01484850/ILSVRC2012_val_00000002.JPEG"
    assert listed(data) == [(first, 0), (third, 2)]
    assert (data.has_labels, data.has_boxes) == (True, False)
    assert data[0].image.size == (6, 4)


def test_imagenets_training_images_where_there_are_no_others(tmp_path: Path) -> None:
    assert len(open_data(imagenet(tmp_path, "train"), "imagenet")) == 2


def test_imagenet_is_not_unpacked_here(tmp_path: Path) -> None:
    (imagenet(tmp_path) / "meta.bin").unlink()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"Expected meta.bin and val/ in .*, which torchvision\.datasets\.ImageNet"):
        open_data(tmp_path, "imagenet")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_imagenet_is_told(tmp_path: Path) -> None:
    (imagenet(tmp_path) / "meta.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Expected ImageNet's folders and meta\.bin in"):
        open_data(tmp_path)
    save(imagenet(tmp_path) / "val" / "n99999999" / "a.JPEG")
    with pytest.raises(ValueError, match="n99999999"):
        open_data(tmp_path)


def test_imagenet_without_images_is_told(tmp_path: Path) -> None:
    for image in imagenet(tmp_path).rglob("*.JPEG"):
        image.unlink()
    with pytest.raises(ValueError, match=r"Expected images in .*val', but found none"):
        open_data(tmp_path)


def voc_object(name: str, *edges: float) -> str:
    box = "".join(f"<{edge}>{at}</{edge}>" for edge, at in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True))
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>6</xmax><ymax>4</ymax></bndbox></part>"
    return f"<object><name>{name}</name><bndbox>{box}</bndbox>{part}</object>"


def voc_image(root: Path, name: str, *objects: str, size: tuple[int, int] = (6, 4)) -> None:
    save(root / "JPEGImages" / f"{name}.jpg")
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "Annotations" / f"{name}.xml").write_text(
        f"<annotation><filename>{name}.jpg</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"<depth>3</depth></size>{''.join(objects)}</annotation>"
    )


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC2012 with two images: a person and two dogs, and nothing."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    dogs = voc_object("dog", 1, 1, 2, 2), voc_object("dog", 5, 3, 6, 4)
    voc_image(root, "2007_000001", dogs[0], voc_object("person", 3, 1, 5, 2), dogs[1])
    voc_image(root, "2007_000002")
    splits = root / "ImageSets" / "Main"
    splits.mkdir(parents=True)
    (splits / "val.txt").write_text("2007_000001\n2007_000002\n")
    (splits / "train.txt").write_text("2007_000002\n")
    return root


def test_a_voc_image_has_the_class_of_largest_total_area_and_its_boxes(voc: Path) -> None:
    data = open_data(voc)
    assert listed(data) == [("2007_000001.jpg", "dog"), ("2007_000002.jpg", None)]
    assert (data.has_labels, data.has_boxes, data.classes) == (True, True, None)
    region = data[0].region
    white = {(x, y) for x in range(6) for y in range(4) if region.getpixel((x, y)) == 255}
    assert white == {(x, y) for x, y in ((0, 0), (1, 0), (0, 1), (1, 1), (4, 2), (5, 2), (4, 3), (5, 3))}
    assert data[1].region is None


def test_voc_is_found_from_above_and_by_the_list_of_a_split(voc: Path) -> None:
    for path in (voc.parent, voc.parent.parent):
        assert len(open_data(path)) == 2
    assert listed(open_data(voc / "ImageSets" / "Main" / "train.txt")) == [("2007_000002.jpg", None)]


def test_of_several_years_of_voc_the_last_is_opened(voc: Path) -> None:
    older = voc.parent / "VOC2007" / "ImageSets" / "Main"
    older.mkdir(parents=True)
    (older / "val.txt").write_text("000001\n")
    assert open_data(voc.parent).name(0) == "2007_000001.jpg"


def test_voc_has_the_images_and_objects_that_torchvision_reads(voc: Path) -> None:
    torchvisions = VOCDetection(voc.parent.parent, image_set="val")
    data = open_data(voc)
    assert [Path(path).name for path in torchvisions.images] == [data.name(index) for index in range(len(data))]
    objects = torchvisions[0][1]["annotation"]["object"]
    assert [thing["name"] for thing in objects] == ["dog", "person", "dog"]
    assert objects[0]["bndbox"] == {"xmin": "1", "ymin": "1", "xmax": "2", "ymax": "2"}


def test_boxes_for_an_image_of_another_size_are_told_when_it_is_asked_for(voc: Path) -> None:
    voc_image(voc, "2007_000002", voc_object("dog", 1, 1, 2, 2), size=(4, 6))
    data = open_data(voc)
    with pytest.raises(ValueError, match=r"boxes were drawn for, 4×6, but seen upright it is 6×4"):
        data[1]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (None, "No such file"),
        ("<annotation><size>", "no element found"),
        ("<annotation></annotation>", "annotation has no size/width"),
        (f"<annotation>{voc_object('dog', 1, 1, 2, 2).replace('2', 'two')}</annotation>", "could not convert"),
        ("<annotation><object><name>dog</name></object></annotation>", "object has no bndbox/xmin"),
    ],
)
def test_a_bad_annotation_of_voc_is_told_with_its_file(annotation: str | None, message: str, voc: Path) -> None:
    path = voc / "Annotations" / "2007_000002.xml"
    path.unlink() if annotation is None else path.write_text(annotation)
    with pytest.raises(ValueError, match=rf"Expected an annotation of VOC, but .*2007_000002\.xml.*{message}"):
        open_data(voc)


def test_voc_without_splits_or_images_is_told(voc: Path) -> None:
    splits = voc / "ImageSets" / "Main"
    (splits / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"Expected the names of images in .*val\.txt"):
        open_data(voc)
    for path in splits.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"Expected one of val\.txt, trainval\.txt, test\.txt, train\.txt in .*Main"):
        open_data(voc)
    with pytest.raises(ValueError, match="Expected a folder VOC2012 with ImageSets/Main in"):
        open_data(splits, "voc")


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


def coco(root: Path, content: dict[str, Any] | None = None, split: str = "val2017") -> Path:
    for number in (7, 9):
        save(root / split / f"{number:012}.jpg")
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content or COCO))
    return path


@pytest.mark.parametrize("of_the_file", [True, False])
def test_a_coco_image_has_the_category_of_largest_total_area_and_its_boxes(of_the_file: bool, tmp_path: Path) -> None:
    path = coco(tmp_path)
    data = open_data(path if of_the_file else tmp_path)
    assert listed(data) == [("000000000007.jpg", "dog"), ("000000000009.jpg", None)]
    assert (data.has_labels, data.has_boxes, data.classes) == (True, True, None)
    region = data[0].region
    white = {(x, y) for x in range(6) for y in range(4) if region.getpixel((x, y)) == 255}
    assert white == {(x, y) for x, y in ((0, 0), (1, 0), (0, 1), (1, 1), (4, 2), (5, 2), (4, 3), (5, 3))}
    assert data[1].region is None


def test_coco_annotations_beside_the_images(tmp_path: Path) -> None:
    path = coco(tmp_path)
    beside = tmp_path / "val2017" / "mine.json"
    path.rename(beside)
    assert open_data(beside)[0].image.size == (6, 4)


def test_of_several_splits_of_coco_the_validation_set_is_opened(tmp_path: Path) -> None:
    coco(tmp_path, {**COCO, "images": COCO["images"][:1]}, "zoo")
    assert len(open_data(tmp_path)) == 1
    coco(tmp_path)
    assert len(open_data(tmp_path)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": None}, "can't be read as such"),
        ({"categories": []}, r"can't be read as such: KeyError\(18\)"),
        ({"images": []}, "Expected images in .*, but there are none"),
        ({"images": COCO["images"] * 2}, "each image once, but '000000000007.jpg' is listed more than once"),
        ({"annotations": [{"image_id": 7, "category_id": 1}]}, r"KeyError\('bbox'\)"),
    ],
)
def test_bad_annotations_of_coco_are_told(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_data(coco(tmp_path, {**COCO, **change}))


def test_what_is_no_json_or_not_there_is_told(tmp_path: Path) -> None:
    path = coco(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"Expected annotations of COCO, but .*instances_val2017\.json' can't be read"):
        open_data(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"Expected annotations/instances_val2017\.json in"):
        open_data(tmp_path, "coco")
