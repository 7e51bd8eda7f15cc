"""COCO's detection data sets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_scorecam.datasets import ImageDataset, open_data
from captum_scorecam.datasets.image_files import ImageFiles
from captum_scorecam.datasets.segmentations import Runs
from tests.support.images import white

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
        ({"categories": None}, "Expected COCO annotations, but FILE has no list 'categories' of objects"),
        ({"annotations": [3]}, "Expected COCO annotations, but FILE has no list 'annotations' of objects"),
        ({"categories": []}, r"'category_id' to be the id of a category in annotations\[0\] of FILE, but got 18"),
        ({"images": []}, "Expected images in FILE, but found none"),
        ({"images": COCO["images"] * 2}, r"'id' to be unique in images\[0\] of FILE, but got 7"),
        ({"categories": COCO["categories"] * 2}, r"'id' to be unique in categories\[0\] of FILE, but got 1\."),
        (
            {"images": [COCO["images"][0], {**COCO["images"][0], "id": 8}]},
            "each image to be listed once, but '000000000007.jpg' is listed more than once",
        ),
        ({"images": [{"id": 7}]}, r"'file_name' to be text in images\[0\] of FILE, but got nothing"),
        ({"images": [{"id": 7, "file_name": "a", "width": -6}]}, "'width' to be a number of pixels in .* but got -6"),
        ({"images": [{"id": 7, "file_name": "a", "width": True}]}, "'width' to be a number of .* but got True"),
        ({"images": [{"id": 7, "file_name": "a", "width": ""}]}, "'width' to be a number of pixels in .* but got ''"),
        (
            {"images": [{"id": 7, "file_name": "a", "height": "x"}]},
            "'height' to be a number of pixels in .* but got 'x'",
        ),
        (
            {"annotations": [{**COCO["annotations"][0], "image_id": "7"}]},
            "'image_id' to be the id of an image in .*'7'",
        ),
        ({"annotations": [{**COCO["annotations"][0], "image_id": []}]}, r"'image_id' to be a number or text in .*\[\]"),
        *(
            ({"annotations": [COCO["annotations"][0], {"image_id": 7, "category_id": 1, **box}]}, message)
            for box, message in (
                ({}, r"'bbox' to be x, y, width, height in annotations\[1\] of FILE, but got nothing"),
                ({"bbox": [3, 0, 2]}, r"'bbox' to be .* in annotations\[1\] of FILE, but got \[3, 0, 2\]"),
                ({"bbox": [3, 0, -2, 2]}, r"without a negative size in annotations\[1\] .* but got \[3, 0, -2, 2\]"),
                ({"bbox": [3, 0, float("nan"), 2]}, r"in pixels, .* in annotations\[1\] .* but got \[3, 0, nan, 2\]"),
                ({"bbox": [True, 2, 3, 4]}, r"in pixels, .* in annotations\[1\] .* but got \[True, 2, 3, 4\]"),
                ({"bbox": [3, 0, 1, 2], "iscrowd": "x"}, r"'iscrowd' to be 0 or 1 in annotations\[1\] .* but got 'x'"),
                ({"bbox": [3, 0, 1, 2], "iscrowd": [0]}, r"'iscrowd' to be 0 or 1 in annotations\[1\] .* got \[0\]"),
                ({"bbox": [3, 0, 10**400, 2]}, r"in pixels, .* in annotations\[1\] .* but got \[3, 0, 1000"),
                ({"bbox": ["3", 0, 2, 2]}, r"in pixels, .* in annotations\[1\] .* but got \['3', 0, 2, 2\]"),
            )
        ),
    ],
)
def test_invalid_annotations_raise(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message.replace("FILE", r"'.*instances_val2017\.json'")):
        open_data(coco(tmp_path, {**COCO, **change}))


@pytest.mark.parametrize(("box", "hint"), [([0.1, 0.2, 0.3, 0.5], "Multiply boxes"), ([3, 1, 6, 4], "reaches outside")])
def test_boxes_that_are_no_pixels_of_the_image_raise_with_the_entry(
    box: list[float], hint: str, tmp_path: Path
) -> None:
    path = coco(tmp_path, {**COCO, "annotations": [{"image_id": 7, "category_id": 1, "bbox": box}]})
    with pytest.raises(ValueError, match=rf"but got bbox {re.escape(str(box))} in annotations\[0\] of .*, .*{hint}"):
        open_data(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "line 1 of FILE is not valid JSON"),
        (b'{"images": [],\n]', "line 2 of FILE is not valid JSON"),
        (b"[" * 100_000, "FILE is not valid JSON"),
        (b'{"images": [%s]}' % (b"1" * 5000), "FILE is not valid JSON"),
        (b"[]", "FILE has no list 'images' of objects"),
        ('{"images": [],\n"info": "café"}'.encode("latin-1"), "in UTF-8, but line 2 of FILE has another encoding"),
    ],
    ids=["end", "syntax", "depth", "digits", "list", "latin-1"],
)
def test_a_file_that_is_no_coco_file_raises_in_a_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = coco(tmp_path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message.replace("FILE", r"'.*instances_val2017\.json'")) as caught:
        open_data(path)
    assert str(caught.value).startswith("Expected COCO annotations")
    assert len(str(caught.value)) < 200 + len(str(path))


def test_paths_of_windows_and_sizes_of_zero_are_read(tmp_path: Path) -> None:
    coco(tmp_path, {**COCO, "images": [{"id": 7, "file_name": ".\\000000000007.jpg", "width": 0, "height": 0}]})
    data = open_data(tmp_path)
    assert (data.name(0), data[0].image.size) == ("000000000007.jpg", (6, 4))


@pytest.mark.parametrize("crowd", [{}, {"iscrowd": None}, {"iscrowd": True}, {"iscrowd": 1.0}])
def test_a_crowd_is_0_1_or_not_given(crowd: dict[str, Any], tmp_path: Path) -> None:
    annotation = {"image_id": 7, "category_id": 18, "bbox": [0, 0, 2, 2], **crowd}
    assert open_data(coco(tmp_path, {**COCO, "annotations": [annotation]})).label(0) == "dog"


def test_missing_json_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected annotations/instances_val2017\.json in"):
        open_data(tmp_path, "coco")


# --- Segmentations ----------------------------------------------------------------------------------------------------

ROWS = ["..##..", ".####.", "..##..", "......"]
RUNS = [5, 1, 2, 3, 1, 3, 2, 1, 6]  # column by column, as `pycocotools.mask` counts the pixels of ROWS
RLE = {"size": [4, 6], "counts": RUNS}
COMPRESSED = {"size": [4, 6], "counts": "5122O01N4"}  # as `pycocotools.mask.encode` writes them
WHOLE = [0, 0, 6, 4]


def segmented(tmp_path: Path, *segmentations: object, **more: Any) -> ImageDataset:
    """The data set of an image with a box for each segmentation."""
    annotations = [
        {"image_id": 7, "category_id": 1, "bbox": WHOLE, "segmentation": segmentation, **more}
        for segmentation in segmentations
    ]
    return open_data(coco(tmp_path, {**COCO, "annotations": annotations}))


@pytest.mark.parametrize(
    ("segmentation", "rows"),
    [
        (RLE, ROWS),
        (COMPRESSED, ROWS),
        ([[1, 1, 5, 1, 5, 3, 1, 3]], ["......", ".####.", ".####.", "......"]),  # the pixels of that box
        ([[0, 0, 6, 0, 0, 4]], ["#####.", "####..", "##....", "#....."]),  # as pycocotools draws it
        ([[0, 0, 2, 0, 2, 2, 0, 2], [4, 2, 6, 2, 6, 4, 4, 4]], ["##....", "##....", "....##", "....##"]),
        ([[0.4, 0.6, 2.4, 0.6, 2.4, 3, 0.4, 3], [1, 1]], ["......", "##....", "##....", "......"]),
        ([[-2, -2, 8, -2, 8, 6, -2, 6]], ["######"] * 4),  # exceeds the image as boxes may
    ],
)
def test_a_segmentation_is_the_mask_and_the_box_stays_the_region(
    segmentation: object, rows: list[str], tmp_path: Path
) -> None:
    sample = segmented(tmp_path, segmentation)[0]
    assert white(sample.mask) == rows
    assert white(sample.region) == ["######"] * 4
    assert [*sample.boxes] == [(0, 0, 6, 4)]


def test_long_runs_with_differences_of_both_signs_are_uncompressed() -> None:
    runs = [83, 35, 92, 1, 39, 1, 39, 1, 39, 1, 469, 800, 405, 4, 391]
    compressed = "c2S1l2nN[N00000^=oh0PNTWOB"  # `pycocotools.mask.encode` of the same mask
    found, expected = (Runs(lengths, (60, 40), "here").pixels((60, 40), "a.png") for lengths in (compressed, runs))
    assert (found == expected).all()
    assert found.sum() == 35 + 4 + 800 + 4
    assert found[:, 20:40].all()
    assert found[5:9, 50].all()


def test_the_mask_is_of_all_objects_of_the_label_including_crowds(tmp_path: Path) -> None:
    crowd = {"image_id": 7, "category_id": 1, "bbox": WHOLE, "segmentation": RLE, "iscrowd": 1}
    person = {**crowd, "segmentation": [[0, 3, 6, 3, 6, 4, 0, 4]], "iscrowd": 0}
    dog = {**person, "category_id": 18, "bbox": [0, 0, 1, 1], "segmentation": [[0, 0, 1, 0, 1, 1, 0, 1]]}
    sample = open_data(coco(tmp_path, {**COCO, "annotations": [dog, crowd, person]}))[0]
    assert sample.label == "person"
    assert white(sample.mask) == [*ROWS[:3], "######"]
    assert len(sample.boxes) == 2


@pytest.mark.parametrize("missing", [None, [], {}, [[]], [[1, 1, 2, 2]]])
def test_an_object_without_segmentation_leaves_the_boxes(missing: object, tmp_path: Path) -> None:
    for segmentations in ([missing], [RLE, missing]):
        sample = segmented(tmp_path, *segmentations)[0]
        assert sample.mask is None
        assert white(sample.region) == ["######"] * 4


def test_a_warning_counts_the_images_without_a_mask(tmp_path: Path) -> None:
    annotations = [
        {"image_id": image, "category_id": 1, "bbox": WHOLE, "segmentation": segmentation}
        for image, segmentation in ((7, RLE), (9, RLE), (9, None))
    ]
    with pytest.warns(UserWarning, match="1 of 2 images with boxes lack the segmentation of an object, .* no mask"):
        data = open_data(coco(tmp_path, {**COCO, "annotations": annotations}))
    assert [data[index].mask is None for index in range(2)] == [False, True]


def test_a_segmentation_between_the_centres_of_pixels_has_no_pixel(tmp_path: Path) -> None:
    assert white(segmented(tmp_path, [[2.6, 0, 3.4, 0, 3.4, 4, 2.6, 4]])[0].mask) == ["......"] * 4


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ("5122O01N4", r"'segmentation' to be polygons, or run .* in annotations\[0\] of FILE, but got '5122O01N4'"),
        ({"counts": RUNS}, "polygons, or run lengths 'counts' with the image's 'size' in"),
        ({"counts": RUNS, "size": [4]}, "run lengths 'counts' with the image's 'size' in"),
        ({"counts": RUNS, "size": [4, 6.5]}, "run lengths 'counts' with the image's 'size' in"),
        ({"counts": [5, -1], "size": [4, 6]}, "run lengths 'counts' with the image's 'size' in"),
        ({"counts": "5122 01", "size": [4, 6]}, "run lengths 'counts' with the image's 'size' in"),
        ({"counts": None, "size": [4, 6]}, "run lengths 'counts' with the image's 'size' in"),
        ([1, 1, 5, 1, 5, 3], "'segmentation' to be a list of polygons x1, y1, x2, y2, … in pixels in"),
        ([[1, 1, 5, 1, 5]], "'segmentation' to be a list of polygons"),
        ([[1, 1, 5, 1, 5, "3"]], "'segmentation' to be a list of polygons"),
        ([[1, 1, 5, 1, 5, float("nan")]], "'segmentation' to be a list of polygons"),
        ({"counts": RUNS, "size": [6, 4]}, r"run lengths for '0+7\.jpg', 6×4, but those in 'segmentation' of .*4×6"),
        ({"counts": [5, 1], "size": [4, 6]}, r"run lengths of 24 pixels in 'segm.*, but got \[5, 1\], 6 in all"),
        ({"counts": "5122O01N5", "size": [4, 6]}, r"run lengths of 24 pixels in .*, but got \[.*\], 25 in all"),
        ({"counts": "5O", "size": [4, 6]}, r"run lengths of 24 pixels in .*, but got \[5, -1\], 4 in all"),
        ([[1, 1, 9, 1, 9, 3]], r"polygons in pixels of '0+7\.jpg', 6×4, but those in 'segm.* reach outside"),
        ([[0.1, 0.2, 0.8, 0.2, 0.8, 0.9]], "at most the first pixel, for bbox .* Multiply polygons given as fractions"),
    ],
)
def test_invalid_segmentations_raise(segmentation: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message.replace("FILE", r"'.*instances_val2017\.json'")):
        segmented(tmp_path, segmentation)


def test_the_text_of_boxes_has_every_corner_and_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.linspace(0, 2 * np.pi, 800, endpoint=False)
    circle = np.stack([3 + 2 * np.cos(angles), 2 + np.sin(angles)], 1)
    found = segmented(tmp_path, [circle.ravel().tolist()])
    circle[400] += 0.01
    moved = segmented(tmp_path, [circle.ravel().tolist()])
    assert isinstance(found, ImageFiles)
    assert isinstance(moved, ImageFiles)
    assert found.boxes_text(0) != moved.boxes_text(0)
    monkeypatch.chdir(tmp_path.parent)
    elsewhere = segmented(Path(tmp_path.name), [circle.ravel().tolist()])
    assert isinstance(elsewhere, ImageFiles)
    assert elsewhere.boxes_text(0) == moved.boxes_text(0)
    runs = [segmented(tmp_path, {**RLE, "counts": counts}) for counts in ([24], [23, 1])]
    assert runs[0].boxes_text(0) != runs[1].boxes_text(0)  # type: ignore[attr-defined]


def test_images_are_found_from_the_folder_of_the_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = coco(tmp_path)
    for folder, relative in ((path.parent, path.name), (tmp_path / "val2017", f"../annotations/{path.name}")):
        monkeypatch.chdir(folder)
        assert open_data(Path(relative))[0].image.size == (6, 4)
