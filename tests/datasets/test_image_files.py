"""Image files with labels and boxes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captum_scorecam.datasets.boxes import Box
from captum_scorecam.datasets.image_files import ImageFile, ImageFiles, listed_name
from captum_scorecam.datasets.sample import Sample
from tests.support.images import white


def sample(folder: Path, *boxes: tuple[float, float, float, float], **options: Any) -> Sample:
    """The sample of a 6×4 image with a label and boxes; `options` are those of its file."""
    Image.new("RGB", (6, 4)).save(folder / "a.png")
    file = ImageFile(str(folder / "a.png"), "a.png", "cat", tuple(Box(*box) for box in boxes), **options)
    return ImageFiles([file])[0]


def test_a_missing_image_raises_on_access(tmp_path: Path) -> None:
    files = ImageFiles([ImageFile(str(tmp_path / "none.png"), "none.png", "cat")])
    assert (len(files), files.name(0), files.label(0)) == (1, "none.png", "cat")
    with pytest.raises(ValueError, match=r"there is no file .*none\.png"):
        files[0]


def test_a_file_of_the_same_size_with_other_content_has_another_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    files = ImageFiles([ImageFile(str(path), "a.bmp", "cat")])
    assert files.file_digest(0) is None
    found = []
    for colour in ("red", "green", "red"):
        Image.new("RGB", (6, 4), colour).save(path)
        found.append((path.stat().st_size, files.file_digest(0)))
    assert found[0] == found[2] != found[1]
    assert found[0][0] == found[1][0]


def test_labels_and_boxes_of_some_files() -> None:
    plain, labelled = ImageFile("a.png", "a"), ImageFile("b.png", "b", 3, (Box(0, 0, 1, 1),))
    assert [(data.has_labels, data.has_boxes) for data in (ImageFiles([plain]), ImageFiles([plain, labelled]))] == [
        (False, False),
        (True, True),
    ]


def test_two_files_of_one_name_raise() -> None:
    with pytest.raises(ValueError, match="each image to be listed once, but 'a' is listed more than once"):
        ImageFiles([ImageFile("1/a.png", "a"), ImageFile("2/a.png", "a")])


def test_a_file_with_boxes_has_a_region(tmp_path: Path) -> None:
    found = sample(tmp_path, (0.5, 1, 2.4, 3))
    assert found.label == "cat"
    assert white(found.region) == ["......", "##....", "##....", "......"]


def test_a_file_without_boxes_has_no_region(tmp_path: Path) -> None:
    assert sample(tmp_path).region is None


def test_boxes_refer_to_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying; turned clockwise to see it upright
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png", exif=exif)
    found = ImageFiles([ImageFile(str(tmp_path / "a.png"), "a.png", "cat", (Box(0, 2, 1, 3),), (2, 3))])[0]
    assert found.image.size == (2, 3)
    assert white(found.region) == ["..", "..", "#."]


def test_a_box_outside_the_image_raises_on_access(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"Expected boxes in pixels of 'a\.png', 6×4, but got 6, 0, 9, 4, which reaches"
    ):
        sample(tmp_path, (6.0, 0.0, 9.0, 4.0))


def test_an_image_of_another_size_than_its_annotation_raises(tmp_path: Path) -> None:
    assert sample(tmp_path, (0, 0, 2, 2), size=(6, 4)).region is not None
    with pytest.raises(ValueError, match=r"'a.png' to have the size in its annotation, 4×6, but .* image is 6×4"):
        sample(tmp_path, (0, 0, 2, 2), size=(4, 6))


@pytest.mark.parametrize(
    ("text", "name"),
    [("images\\a.png", "images/a.png"), (".\\a.png", "a.png"), ("./a.png", "a.png"), ("C:\\a.png", "C:/a.png")],
)
def test_paths_of_windows_are_read_everywhere(text: str, name: str, tmp_path: Path) -> None:
    assert listed_name(tmp_path, text) == name


@pytest.mark.skipif(os.name == "nt", reason="a file name can't contain a backslash on Windows")
def test_a_backslash_is_kept_if_it_is_part_of_a_file_name(tmp_path: Path) -> None:
    (tmp_path / "a\\b.png").touch()
    assert listed_name(tmp_path, "a\\b.png") == "a\\b.png"
