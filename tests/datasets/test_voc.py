"""Pascal VOC's detection data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import VOCDetection

from captum_scorecam.datasets import ImageDataset, open_data


def save(path: Path, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (255, 0, 0)).save(path)


def listed(data: ImageDataset) -> list[tuple[str, object]]:
    return [(data.name(index), data.label(index)) for index in range(len(data))]


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


def test_an_image_has_the_class_of_largest_total_area_and_its_boxes(voc: Path) -> None:
    data = open_data(voc)
    assert listed(data) == [("2007_000001.jpg", "dog"), ("2007_000002.jpg", None)]
    assert (data.has_labels, data.has_boxes, data.classes) == (True, True, None)
    region = data[0].region
    assert region is not None
    white = {(x, y) for x in range(6) for y in range(4) if region.getpixel((x, y)) == 255}
    assert white == {(x, y) for x, y in ((0, 0), (1, 0), (0, 1), (1, 1), (4, 2), (5, 2), (4, 3), (5, 3))}
    assert data[1].region is None


def test_the_path_is_a_parent_folder_or_the_list_of_a_split(voc: Path) -> None:
    for path in (voc.parent, voc.parent.parent):
        assert len(open_data(path)) == 2
    assert listed(open_data(voc / "ImageSets" / "Main" / "train.txt")) == [("2007_000002.jpg", None)]


def test_the_latest_year_is_opened(voc: Path) -> None:
    older = voc.parent / "VOC2007" / "ImageSets" / "Main"
    older.mkdir(parents=True)
    (older / "val.txt").write_text("000001\n")
    assert open_data(voc.parent).name(0) == "2007_000001.jpg"


def test_images_and_objects_are_those_that_torchvision_reads(voc: Path) -> None:
    torchvisions = VOCDetection(voc.parent.parent, image_set="val")
    data = open_data(voc)
    assert [Path(path).name for path in torchvisions.images] == [data.name(index) for index in range(len(data))]
    objects = torchvisions[0][1]["annotation"]["object"]
    assert [thing["name"] for thing in objects] == ["dog", "person", "dog"]
    assert objects[0]["bndbox"] == {"xmin": "1", "ymin": "1", "xmax": "2", "ymax": "2"}


def test_a_size_that_differs_from_the_annotation_raises_on_access(voc: Path) -> None:
    voc_image(voc, "2007_000002", voc_object("dog", 1, 1, 2, 2), size=(4, 6))
    data = open_data(voc)
    with pytest.raises(
        ValueError,
        match=r"Expected '2007_000002.jpg' to have the size in its annotation, 4×6, but the upright image is 6×4",
    ):
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
def test_an_invalid_annotation_raises_with_its_file(annotation: str | None, message: str, voc: Path) -> None:
    path = voc / "Annotations" / "2007_000002.xml"
    path.unlink() if annotation is None else path.write_text(annotation)
    with pytest.raises(ValueError, match=rf"Expected a VOC annotation, but .*2007_000002\.xml.*{message}"):
        open_data(voc)


def test_missing_splits_and_images_raise(voc: Path) -> None:
    splits = voc / "ImageSets" / "Main"
    (splits / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"Expected image names in .*val\.txt"):
        open_data(voc)
    for path in splits.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"Expected one of val\.txt, trainval\.txt, test\.txt, train\.txt in .*Main"):
        open_data(voc)
    with pytest.raises(ValueError, match="Expected a folder VOC2012 with ImageSets/Main in"):
        open_data(splits, "voc")
