"""Folders of images, with and without classes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_scorecam.datasets import ImageDataset, open_data
from tests.support.systems import needs_linux, needs_posix

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(path: Path, colour: Any = RED, mode: str = "RGB", size: tuple[int, int] = (6, 4), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def names(data: ImageDataset) -> list[str]:
    return [data.name(index) for index in range(len(data))]


def labels(data: ImageDataset) -> list[object]:
    return [data.label(index) for index in range(len(data))]


def test_names_of_class_folders_are_labels(tmp_path: Path) -> None:
    for index, name in enumerate(("dog/b.png", "cat/a.png", "cat/deeper/still/c.png")):
        save(tmp_path / name, (100 * index, 0, 0))
    data = open_data(tmp_path)
    assert isinstance(data, ImageDataset)
    assert names(data) == ["cat/a.png", "cat/deeper/still/c.png", "dog/b.png"]
    assert labels(data) == ["cat", "cat", "dog"]
    assert data.classes == ["cat", "dog"]
    assert (data.has_labels, data.has_boxes) == (True, False)
    sample = data[1]
    assert (sample.name, sample.label, sample.region) == ("cat/deeper/still/c.png", "cat", None)
    assert sample.image.getpixel((0, 0)) == (200, 0, 0)


def test_a_class_without_images_keeps_its_position(tmp_path: Path) -> None:
    (tmp_path / "bird").mkdir()
    save(tmp_path / "cat" / "a.png")
    assert open_data(tmp_path).classes == ["bird", "cat"]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    save(tmp_path / "b.png")
    save(tmp_path / "a.png")
    data = open_data(tmp_path)
    assert names(data) == ["a.png", "b.png"]
    assert labels(data) == [None, None]
    assert data.classes is None
    assert not data.has_labels


def test_hidden_files_and_other_files_are_ignored(tmp_path: Path) -> None:
    for name in ("cat/a.JPG", "cat/b.Png", "cat/c.webp", "cat/.hidden.png", ".trash/d.png", "cat/.thumbs/e.png"):
        save(tmp_path / name)
    for name in ("cat/notes.txt", "README", ".DS_Store"):
        (tmp_path / name).write_text("no image")
    data = open_data(tmp_path)
    assert names(data) == ["cat/a.JPG", "cat/b.Png", "cat/c.webp"]
    assert data.classes == ["cat"]


@pytest.mark.parametrize(
    "name",
    [
        "two words.png",
        "naïve 猫 🐈.png",
        "a;b,c.png",
        pytest.param('dog\'s "best".png', marks=needs_posix),
        pytest.param("new\nline.png", marks=needs_posix),
    ],
)
def test_odd_names(name: str, tmp_path: Path) -> None:
    save(tmp_path / "odd 'class', 種" / name)
    data = open_data(tmp_path)
    assert data[0].name == f"odd 'class', 種/{name}"
    assert data[0].label == "odd 'class', 種"


@needs_linux
def test_a_file_name_that_is_not_unicode(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert open_data(tmp_path)[0].name == "\udcff.png"


@needs_posix
def test_links_are_followed_but_not_in_cycles(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "b.png", GREEN)
    save(tmp_path / "data" / "cat" / "a.png")
    (tmp_path / "data" / "cat" / "file.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cat" / "up").symlink_to(tmp_path / "data")
    data = open_data(tmp_path / "data")
    assert names(data) == ["cat/a.png", "cat/file.png", "dog/b.png"]
    assert data[1].image.getpixel((0, 0)) == GREEN


@needs_posix
def test_an_unreadable_file_raises_on_access(tmp_path: Path) -> None:
    save(tmp_path / "good.png", GREEN)
    (tmp_path / "broken link.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    Image.effect_noise((64, 64), 90).save(tmp_path / "truncated.jpg")
    (tmp_path / "truncated.jpg").write_bytes((tmp_path / "truncated.jpg").read_bytes()[:900])
    data = open_data(tmp_path)
    assert len(data) == 5
    for index, name in enumerate(names(data)):
        if name == "good.png":
            assert data[index].image.getpixel((0, 0)) == GREEN
        else:
            with pytest.raises(ValueError, match=f"Expected an image file, but .*{name}"):
                data[index]


def test_cmyk_16_bits_and_exif_become_upright_rgb(tmp_path: Path) -> None:
    save(tmp_path / "cmyk.jpg", (0, 255, 255, 0), "CMYK", (16, 16), quality=95)
    save(tmp_path / "deep.png", 32896, "I;16")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "turned.jpg", BLUE, exif=exif)
    cmyk, deep, turned = (sample.image for sample in map(open_data(tmp_path).__getitem__, range(3)))
    assert {image.mode for image in (cmyk, deep, turned)} == {"RGB"}
    np.testing.assert_allclose(np.asarray(cmyk)[8, 8], RED, atol=3)  # JPEG
    assert deep.getpixel((0, 0)) == (128, 128, 128)
    assert turned.size == (4, 6)


def test_a_pickled_data_set_reads_the_same(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / "cat" / f"{index}.png", (100 * index, 0, 0))
    data = pickle.loads(pickle.dumps(open_data(tmp_path)))
    assert [data[index].image.getpixel((0, 0))[0] for index in range(3)] == [0, 100, 200]
