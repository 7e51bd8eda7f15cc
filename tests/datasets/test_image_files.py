"""Image files with labels and boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captum_scorecam.datasets.image_files import ImageFile, ImageFiles, largest_object
from captum_scorecam.datasets.sample import Sample
from tests.support.images import white


def sample(folder: Path, *boxes: tuple[float, float, float, float], **options: Any) -> Sample:
    """The sample of a 6×4 image with a label and boxes; `options` are those of its file."""
    Image.new("RGB", (6, 4)).save(folder / "a.png")
    return ImageFiles([ImageFile(str(folder / "a.png"), "a.png", "cat", boxes, **options)])[0]


def test_a_missing_image_raises_on_access(tmp_path: Path) -> None:
    files = ImageFiles([ImageFile(str(tmp_path / "none.png"), "none.png", "cat")])
    assert (len(files), files.name(0), files.label(0)) == (1, "none.png", "cat")
    with pytest.raises(ValueError, match=r"there is no file .*none\.png"):
        files[0]


def test_labels_and_boxes_of_some_files() -> None:
    plain, labelled = ImageFile("a.png", "a"), ImageFile("b.png", "b", 3, ((0, 0, 1, 1),))
    assert [(data.has_labels, data.has_boxes) for data in (ImageFiles([plain]), ImageFiles([plain, labelled]))] == [
        (False, False),
        (True, True),
    ]


def test_two_files_of_one_name_raise() -> None:
    with pytest.raises(ValueError, match="each image to be listed once, but 'a' is listed more than once"):
        ImageFiles([ImageFile("1/a.png", "a"), ImageFile("2/a.png", "a")])


def test_a_region_is_the_pixels_whose_centre_is_in_a_box(tmp_path: Path) -> None:
    found = sample(tmp_path, (0.5, 1, 2.4, 3), (4, -9, 99, 1.6))
    assert found.label == "cat"
    assert white(found.region) == ["....##", "##..##", "##....", "......"]


def test_a_file_without_boxes_has_no_region(tmp_path: Path) -> None:
    assert sample(tmp_path).region is None


def test_boxes_refer_to_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying; turned clockwise to see it upright
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png", exif=exif)
    found = ImageFiles([ImageFile(str(tmp_path / "a.png"), "a.png", "cat", ((0, 2, 1, 3),), (2, 3))])[0]
    assert found.image.size == (2, 3)
    assert white(found.region) == ["..", "..", "#."]


def test_a_box_outside_the_image_raises_on_access(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected a box inside 'a.png', 6×4 pixels, but got \(6.0, 0.0, 9.0, 4.0\)"):
        sample(tmp_path, (6.0, 0.0, 9.0, 4.0))


def test_an_image_of_another_size_than_its_annotation_raises(tmp_path: Path) -> None:
    assert sample(tmp_path, (0, 0, 1, 1), size=(6, 4)).region is not None
    with pytest.raises(ValueError, match=r"'a.png' to have the size in its annotation, 4×6, but .* image is 6×4"):
        sample(tmp_path, (0, 0, 1, 1), size=(4, 6))


def test_the_label_with_the_largest_area_is_the_object() -> None:
    cat, dog, other_dog = (0, 0, 2, 2), (0, 0, 1, 1), (3, 0, 6, 2)
    assert largest_object([("cat", cat), ("dog", dog), ("dog", other_dog)]) == ("dog", (dog, other_dog))
    assert largest_object([("cat", cat), ("dog", cat)]) == ("cat", (cat,))
    assert largest_object([("cat", (1, 1, 1, 4)), ("dog", dog)]) == ("dog", (dog,))
    assert largest_object([("cat", (1, 1, 1, 4))]) == largest_object([]) == (None, ())
