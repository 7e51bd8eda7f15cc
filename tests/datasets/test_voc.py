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


def voc_object(name: str, *edges: float | str) -> str:
    box = "".join(f"<{edge}>{at}</{edge}>" for edge, at in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True))
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>6</xmax><ymax>4</ymax></bndbox></part>"
    return f"<object><name>{name}</name><bndbox>{box}</bndbox>{part}</object>"


def objects(*things: str) -> str:
    return f"<annotation>{''.join(things)}</annotation>"


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
        (None, "a VOC annotation, but FILE can't be read as one: No such file or directory"),
        ("<annotation>\n<size>", "a VOC annotation, but line 2 of FILE is not valid XML"),
        ("<annotation>é</annotation>", "a VOC annotation, but line 1 of FILE is not valid XML"),
        (
            "<?xml version='1.0' encoding='latin-9x'?><a/>",
            "but FILE declares an encoding that can't be read. Save it as",
        ),
        ("<?xml version='1.0' encoding='shift_jis'?><a/>", "but FILE declares an encoding that can't be read"),
        (
            "<a><size><width>1e300</width></size></a>",
            r"size/width to be a number of pixels in FILE, but got '1e300'\.$",
        ),
        ("<a><size><width>-6</width></size></a>", "size/width to be a number of pixels in FILE, but got '-6'"),
        ("<annotation></annotation>", "a VOC annotation with size/width in FILE, but found none"),
        (
            objects(voc_object("dog", 1, 1, "two", 2)),
            "bndbox/xmax to be a number of pixels in object 1 of FILE, but got 'two'",
        ),
        (
            objects(voc_object("dog", 1, 1, 2, "nan")),
            "bndbox/ymax to be a number of pixels in object 1 of FILE, but got 'nan'",
        ),
        (objects(voc_object("dog", 9, 1, "0" * 5000 + "8", 2)), r"but got 9, 1, 0+\.\.\.0+8, 2 in object 1 of FILE"),
        (
            objects(voc_object("dog", 1, "1" * 5000, 2, 2)),
            r"number of pixels in object 1 of FILE, but got '1+\.\.\.1+'\.$",
        ),
        (
            objects(voc_object("dog", 1, 1, 2, 2), voc_object("cat", 5, 1, 2, 4)),
            "xmin ≤ xmax and ymin ≤ ymax, but got 5, 1, 2, 4 in object 2 of FILE",
        ),
        (objects(voc_object("", 1, 1, 2, 2)), "annotation with name in object 1 of FILE, but found none"),
        (objects("<object><name>dog</name></object>"), "annotation with bndbox/xmin in object 1 of FILE, but found"),
    ],
)
def test_an_invalid_annotation_raises_with_its_file(annotation: str | None, message: str, voc: Path) -> None:
    path = voc / "Annotations" / "2007_000002.xml"
    path.unlink() if annotation is None else path.write_text(annotation, encoding="latin-1")
    with pytest.raises(ValueError, match=message.replace("FILE", r"'.*2007_000002\.xml'")):
        open_data(voc)


def test_a_declared_encoding_is_followed(voc: Path) -> None:
    path = voc / "Annotations" / "2007_000001.xml"
    text = path.read_text(encoding="utf-8").replace("dog", "épagneul")
    path.write_text(f"<?xml version='1.0' encoding='latin-1'?>{text}", encoding="latin-1")
    assert open_data(voc).label(0) == "épagneul"


@pytest.mark.parametrize(
    ("box", "hint"), [((0.1, 0.2, 0.5, 0.7), "Multiply boxes"), ((10, 1, 640, 4), "reaches outside the image")]
)
def test_boxes_that_are_no_pixels_of_the_image_raise_with_the_object(
    box: tuple[float, ...], hint: str, voc: Path
) -> None:
    voc_image(voc, "2007_000002", voc_object("dog", *box))
    found = ", ".join(map(str, box))
    with pytest.raises(ValueError, match=rf"but got {found} in object 1 of .*2007_000002\.xml', .*{hint}"):
        open_data(voc)[1]


def test_a_list_in_another_encoding_raises_with_the_line(voc: Path) -> None:
    path = voc / "ImageSets" / "Main" / "val.txt"
    path.write_text("2007_000001\né\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"a list of images in UTF-8, but line 2 of .*val\.txt' has another encoding"):
        open_data(path)


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


def test_the_list_of_a_class_is_read_without_the_images_that_it_excludes(voc: Path) -> None:
    path = voc / "ImageSets" / "Main" / "dog_val.txt"
    path.write_text("2007_000002 -1\n2007_000001  1\n")
    assert [name for name, _ in listed(open_data(path))] == ["2007_000001.jpg"]
