"""Mosaics of four images."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms._presets import ImageClassification

from captum_scorecam.datasets import ImageDataset, Mosaics, Sample, open_data
from captum_scorecam.models import seen_region
from tests.support.systems import needs_linux

CORNERS = [(0, 0), (4, 0), (0, 4), (4, 4)]


class Painted:
    """Images of one colour, whose red value is the label and whose green value is the index; some are unreadable."""

    has_labels, has_boxes, classes = True, False, None

    def __init__(self, labels: list[int | None], unreadable: tuple[int, ...] = ()) -> None:
        self.labels, self.unreadable = labels, unreadable

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return f"image {index}"

    def label(self, index: int) -> int | None:
        return self.labels[index]

    def __getitem__(self, index: int) -> Sample:
        if index in self.unreadable:
            raise ValueError(f"image {index} is damaged")
        colour = (self.labels[index] or 0, index, 0)
        return Sample(self.name(index), Image.new("RGB", (6, 3), colour), self.labels[index])


def tiles(sample: Sample) -> list[tuple[int, int]]:
    """The label and the index of the image in each tile, after a check that the tile has one colour."""
    crops = [np.asarray(sample.image)[y : y + 4, x : x + 4] for x, y in CORNERS]
    assert all((crop == crop[0, 0]).all() for crop in crops)
    return [(int(crop[0, 0, 0]), int(crop[0, 0, 1])) for crop in crops]


def box(sample: Sample) -> tuple[int, int, int, int]:
    assert sample.region is not None
    edges = sample.region.getbbox()
    assert edges is not None
    return edges


def place(sample: Sample) -> int:
    left, top, right, bottom = box(sample)
    assert (right - left, bottom - top) == (4, 4)
    assert sample.region is not None
    assert sample.region.histogram()[255] == 16
    return CORNERS.index((left, top))


def test_a_mosaic_shows_its_image_in_the_region_among_three_of_other_labels() -> None:
    data: ImageDataset = Mosaics(Painted([10 * (index % 6) for index in range(30)]), tile_size=4)
    assert isinstance(data, ImageDataset)
    for index in range(30):
        sample = data[index]
        assert (
            (sample.name, sample.label) == (data.name(index), data.label(index)) == (f"image {index}", index % 6 * 10)
        )
        assert sample.region is not None
        assert sample.image.size == sample.region.size == (8, 8)
        shown = tiles(sample)
        assert shown[place(sample)] == (index % 6 * 10, index)
        assert len({label for label, _ in shown}) == 4


def test_positions_and_other_labels_are_uniform() -> None:
    data = Mosaics(Painted([index % 5 for index in range(200)]), tile_size=4)
    samples = [data[index] for index in range(200)]
    places = Counter(map(place, samples))
    others = Counter(label for sample in samples for label, index in tiles(sample) if f"image {index}" != sample.name)
    images = {index for sample in samples for _, index in tiles(sample)}
    assert min(places[corner] for corner in range(4)) > 30  # 50 expected, standard deviation 6
    assert min(others[label] for label in range(5)) > 90  # 120 expected, standard deviation 6
    assert len(images) == 200


def test_a_seed_gives_the_same_mosaics_in_any_order() -> None:
    data = Painted([index % 5 for index in range(20)])
    first = [Mosaics(data, seed=3, tile_size=4)[index].image.tobytes() for index in range(20)]
    mosaics = pickle.loads(pickle.dumps(Mosaics(data, seed=3, tile_size=4)))
    assert [mosaics[index].image.tobytes() for index in reversed(range(20))] == first[::-1]
    assert [Mosaics(data, seed=4, tile_size=4)[index].image.tobytes() for index in range(20)] != first


def test_the_random_numbers_are_the_same_on_every_machine() -> None:
    data = Mosaics(Painted([index % 5 for index in range(20)]), tile_size=4)
    assert [(place(data[index]), [image for _, image in tiles(data[index])]) for index in (0, 7)] == [
        (1, [1, 0, 3, 9]),
        (2, [10, 14, 7, 6]),
    ]


def test_global_generators_are_neither_used_nor_changed() -> None:
    data = Mosaics(Painted([index % 5 for index in range(20)]), tile_size=4)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    image = data[0].image.tobytes()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert data[0].image.tobytes() == image


def test_an_unreadable_image_is_replaced_by_the_next_random_one() -> None:
    labels: list[int | None] = [index % 5 for index in range(50)]
    whole, damaged = Painted(labels), Painted(labels, unreadable=tuple(range(25)))
    for index in range(25, 50):
        before, now = (Mosaics(data, tile_size=4)[index] for data in (whole, damaged))
        assert place(before) == place(now)
        for (label, image), (label_now, image_now) in zip(tiles(before), tiles(now), strict=True):
            assert label_now == label
            assert image_now == image if image >= 25 else image_now >= 25


def test_a_label_without_readable_images_is_skipped() -> None:
    data = Mosaics(Painted([0, 1, 2, 3, 4, 4], unreadable=(4, 5)), tile_size=4)
    assert {label for label, _ in tiles(data[0])} == {0, 1, 2, 3}


def test_images_that_do_not_make_a_mosaic_raise() -> None:
    with pytest.raises(ValueError, match="Expected images with labels of at least four classes for mosaics, but got 3"):
        Mosaics(Painted([0, 1, 2, 1, None]))
    data = Mosaics(Painted([0, 1, 2, 3, None], unreadable=(0, 1)))
    with pytest.raises(ValueError, match="image 0 is damaged"):
        data[0]
    with pytest.raises(ValueError, match="readable images of three other labels for a mosaic, but found 1"):
        data[2]
    with pytest.raises(ValueError, match="'image 4' has no label"):
        data[4]
    with pytest.raises(ValueError, match="Expected `tile_size` to be at least 1, but got 0"):
        Mosaics(Painted([0, 1, 2, 3]), tile_size=0)
    with pytest.raises(TypeError, match=r"Expected `tile_size` to be an int, but got 1\.5"):
        Mosaics(Painted([0, 1, 2, 3]), tile_size=1.5)  # type: ignore[arg-type]


def test_a_tile_shows_the_central_square_of_its_image(tmp_path: Path) -> None:
    for label in "abcd":
        image = Image.new("RGB", (24, 8), (255, 0, 0))
        image.paste((0, 255, 0), (8, 0, 16, 8))
        (tmp_path / label).mkdir()
        image.save(tmp_path / label / "image.png")
    mosaic = Mosaics(open_data(tmp_path), tile_size=8)[0].image
    assert mosaic.getcolors() == [(256, (0, 255, 0))]


@needs_linux
def test_a_file_name_that_is_not_unicode(tmp_path: Path) -> None:
    for label in "abcd":
        (tmp_path / label).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / label / "image.png")
        os.rename(tmp_path / label / "image.png", os.fsencode(tmp_path / label) + b"/\xff.png")
    assert Mosaics(open_data(tmp_path), tile_size=2)[0].name == "a/\udcff.png"


def test_the_region_is_a_quarter_of_the_preprocessed_mosaic() -> None:
    sample = Mosaics(Painted([0, 1, 2, 3]), tile_size=16)[0]
    assert sample.region is not None
    seen = seen_region(sample.region, ImageClassification(crop_size=8, resize_size=10))
    left, top = (4 * (edge // 16) for edge in box(sample)[:2])
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[top : top + 4, left : left + 4] = True
    assert torch.equal(seen, expected)


def test_labels_of_one_class_do_not_meet() -> None:
    labels: list[int | None] = [0, 1, 2, 3, 4, 5]
    data = Mosaics(Painted(labels * 20), tile_size=4, classes={0: 7, 1: 7, 2: 7, 3: 8, 4: 9})
    for index in range(120):
        shown = {label for label, _ in tiles(data[index])}
        assert len(shown & {0, 1, 2}) == 1
        assert len(shown) == 4
    with pytest.raises(ValueError, match="labels of at least four classes for mosaics, but got 3"):
        Mosaics(Painted(labels[:5]), classes={0: 7, 1: 7, 2: 7, 3: 8, 4: 9})


def test_images_whose_label_cannot_be_read_are_left_out() -> None:
    class WithLabels(Painted):
        def label(self, index: int) -> int | None:
            if index in self.unreadable:
                raise OSError("truncated")
            return super().label(index)

    data = WithLabels([index % 5 for index in range(200)], unreadable=(7,))
    mosaics = Mosaics(data, tile_size=4)
    assert all(7 not in {tile for _, tile in tiles(mosaics[index])} for index in range(40) if index != 7)
