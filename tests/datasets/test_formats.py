"""Formats: given, or detected from a path's contents."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from captum_scorecam.datasets import ImageDataset, open_data
from tests.support.systems import needs_posix


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(path)


def names(data: ImageDataset) -> list[str]:
    return [data.name(index) for index in range(len(data))]


def labels(data: ImageDataset) -> list[object]:
    return [data.label(index) for index in range(len(data))]


def test_images_in_a_folder_and_its_subfolders_are_ambiguous(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "cat" / "b.png")
    with pytest.raises(ValueError, match=r"but found both\. Set `data_format` to folder .* or flat"):
        open_data(tmp_path)
    assert names(open_data(tmp_path, "folder")) == ["cat/b.png"]
    assert names(open_data(tmp_path, "flat")) == ["a.png", "cat/b.png"]


def test_a_csv_file_in_the_folder_is_opened(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text("file,label\nb.png,cat\n")
    for data in (open_data(tmp_path), open_data(tmp_path, "csv")):
        assert (names(data), labels(data)) == (["b.png"], ["cat"])


def test_a_folder_without_images_raises(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for data_format in ("auto", "flat", "folder"):
        with pytest.raises(ValueError, match=r"Expected images \(\.jpg, \.jpeg, .*\) in .*, but found none"):
            open_data(tmp_path, data_format)


@needs_posix
def test_devices_and_pipes_are_named_and_a_list_can_come_from_a_pipe(tmp_path: Path) -> None:
    for data_format in ("auto", "flat", "folder", "imagenet", "voc", "coco"):
        with pytest.raises(ValueError, match="`path` to be a folder or file, but '/dev/null' is a device or a pipe"):
            open_data(Path("/dev/null"), data_format)
    os.mkfifo(tmp_path / "list")
    with ThreadPoolExecutor(1) as threads:
        threads.submit((tmp_path / "list").write_text, "file\na.png\n")
        assert names(open_data(tmp_path / "list", "csv")) == ["a.png"]


def test_an_unknown_format_path_or_suffix_raises(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(
        ValueError,
        match="`data_format` to be 'auto', 'folder', 'flat', 'imagenet', 'voc', 'coco' or 'csv', but got 'zip'",
    ):
        open_data(tmp_path, "zip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`path` to be a folder or file, but .*none' does not exist"):
        open_data(tmp_path / "none")
    with pytest.raises(
        ValueError,
        match=r"`path` to be a folder, a CSV file, a COCO JSON file or a VOC image list, but got .*a\.png",
    ):
        open_data(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"`path` to be a folder for the format flat, but .*a\.png' is a file"):
        open_data(tmp_path / "a.png", "flat")
