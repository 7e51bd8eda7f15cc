"""Uploads: read once, kept in memory, refused if they are none or too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from captum_scorecam.app import pictures
from captum_scorecam.app.pictures import SAMPLES, Picture, taken_from
from captum_scorecam.datasets import read_image

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)


def upload(folder: Path, name: str = "photo.png") -> Path:
    """A path as the server stores it: in a folder of its own."""
    (folder / "uploads" / "5f").mkdir(parents=True)
    return folder / "uploads" / "5f" / name


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(NOISE[..., :3]),
        Image.fromarray(NOISE),
        Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257),
        Image.fromarray(NOISE[:1, :1, :3]),
    ],
    ids=["RGB", "transparent", "16 bits", "one pixel"],
)
def test_an_upload_is_what_read_image_reads_and_leaves_no_file(image: Image.Image, tmp_path: Path) -> None:
    path = upload(tmp_path)
    image.save(path)
    expected = np.asarray(read_image(path))
    picture = taken_from(path)
    assert list((tmp_path / "uploads").iterdir()) == []
    assert picture.name == "photo.png"
    np.testing.assert_array_equal(np.asarray(picture.image()), expected)


def test_a_file_that_is_no_picture_is_named_as_the_visitor_knows_it_and_removed(tmp_path: Path) -> None:
    path = upload(tmp_path, "text.png")
    path.write_text("no picture")
    with pytest.raises(ValueError, match=r"Expected an image file, but 'text\.png' can't be read as one"):
        taken_from(path)
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_file_has_the_name_that_its_visitor_gave_it(tmp_path: Path) -> None:
    path = upload(tmp_path, "its 1.png")
    Image.fromarray(NOISE).save(path)
    assert taken_from(path, "it's {1}:.png").name == "it's {1}:.png"
    (tmp_path / "text1.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"'text\{1\}\.png' can't be read as one"):
        taken_from(tmp_path / "text1.png", "text{1}.png")


def test_large_uploads_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "read_image", lambda _: pytest.fail("decoded"))
    path = upload(tmp_path)
    Image.new("L", (8000, 6000)).save(path)
    with pytest.raises(ValueError, match=r"at most 40 megapixels, but got 8000×6000 pixels"):
        taken_from(path)
    monkeypatch.setattr(pictures, "MOST_BYTES", 2**20)
    path.parent.mkdir()
    path.write_bytes(bytes(2**20 + 1))
    with pytest.raises(ValueError, match="Expected a file of at most 1 MB"):
        taken_from(path)
    assert list((tmp_path / "uploads").iterdir()) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_pictures_of_scikit_image(name: str) -> None:
    np.testing.assert_array_equal(np.asarray(Picture(name).image()), getattr(skimage.data, SAMPLES[name])())
