"""Mosaics, and regions as the preprocessing leaves them."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import transforms
from torchvision.transforms._presets import ImageClassification

from captum_scorecam.datasets import ImageDataset, Mosaics, Sample, open_data
from captum_scorecam.models import seen_region

CORNERS = [(0, 0), (4, 0), (0, 4), (4, 4)]


class Painted:
    """Images of one colour each, which tells the label (red) and the image (green); some can't be read."""

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
    crops = [sample.image.crop((x, y, x + 4, y + 4)) for x, y in CORNERS]
    assert all(len(crop.getcolors()) == 1 for crop in crops)
    return [crop.getpixel((0, 0))[:2] for crop in crops]


def place(sample: Sample) -> int:
    assert sample.region is not None
    left, top, right, bottom = sample.region.getbbox()
    assert (right - left, bottom - top) == (4, 4)
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
        assert sample.image.size == sample.region.size == (8, 8)
        shown = tiles(sample)
        assert shown[place(sample)] == (index % 6 * 10, index)
        assert len({label for label, _ in shown}) == 4


def test_places_and_other_labels_are_drawn_evenly() -> None:
    data = Mosaics(Painted([index % 5 for index in range(200)]), tile_size=4)
    samples = [data[index] for index in range(200)]
    places = Counter(map(place, samples))
    others = Counter(label for sample in samples for label, index in tiles(sample) if f"image {index}" != sample.name)
    images = {index for sample in samples for _, index in tiles(sample)}
    assert min(places[corner] for corner in range(4)) > 30  # 50 expected, standard deviation 6
    assert min(others[label] for label in range(5)) > 90  # 120 expected, standard deviation 6
    assert len(images) == 200


def test_the_same_seed_gives_the_same_whatever_was_read_before() -> None:
    data = Painted([index % 5 for index in range(20)])
    first = [Mosaics(data, seed=3, tile_size=4)[index].image.tobytes() for index in range(20)]
    mosaics = pickle.loads(pickle.dumps(Mosaics(data, seed=3, tile_size=4)))
    assert [mosaics[index].image.tobytes() for index in reversed(range(20))] == first[::-1]
    assert [Mosaics(data, seed=4, tile_size=4)[index].image.tobytes() for index in range(20)] != first


def test_the_drawing_is_the_same_on_every_machine() -> None:
    data = Mosaics(Painted([index % 5 for index in range(20)]), tile_size=4)
    assert [(place(data[index]), [image for _, image in tiles(data[index])]) for index in (0, 7)] == [
        (1, [1, 0, 3, 9]),
        (2, [10, 14, 7, 6]),
    ]


def test_the_drawing_does_not_touch_or_follow_the_global_generators() -> None:
    data = Mosaics(Painted([index % 5 for index in range(20)]), tile_size=4)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    image = data[0].image.tobytes()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert data[0].image.tobytes() == image


def test_an_image_that_cannot_be_read_is_replaced_by_the_next_one_drawn() -> None:
    labels: list[int | None] = [index % 5 for index in range(50)]
    whole, damaged = Painted(labels), Painted(labels, unreadable=tuple(range(25)))
    for index in range(25, 50):
        before, now = (Mosaics(data, tile_size=4)[index] for data in (whole, damaged))
        assert place(before) == place(now)
        for (label, image), (label_now, image_now) in zip(tiles(before), tiles(now), strict=True):
            assert label_now == label
            assert image_now == image if image >= 25 else image_now >= 25


def test_a_label_without_readable_images_is_left_out() -> None:
    data = Mosaics(Painted([0, 1, 2, 3, 4, 4], unreadable=(4, 5)), tile_size=4)
    assert {label for label, _ in tiles(data[0])} == {0, 1, 2, 3}


def test_what_cannot_become_a_mosaic_is_told() -> None:
    with pytest.raises(ValueError, match="Expected images of at least four labels for mosaics, but got 3"):
        Mosaics(Painted([0, 1, 2, 1, None]))
    data = Mosaics(Painted([0, 1, 2, 3, None], unreadable=(0, 1)))
    with pytest.raises(ValueError, match="image 0 is damaged"):
        data[0]
    with pytest.raises(ValueError, match="three other labels for a mosaic, but only 1 can be read"):
        data[2]
    with pytest.raises(ValueError, match="'image 4' has no label"):
        data[4]
    with pytest.raises(ValueError, match="Expected `tile_size` to be at least 1, but got 0"):
        Mosaics(Painted([0, 1, 2, 3]), tile_size=0)


def test_a_tile_shows_the_middle_of_its_image(tmp_path: Path) -> None:
    for label in "abcd":
        image = Image.new("RGB", (24, 8), (255, 0, 0))
        image.paste((0, 255, 0), (8, 0, 16, 8))
        (tmp_path / label).mkdir()
        image.save(tmp_path / label / "image.png")
    mosaic = Mosaics(open_data(tmp_path), tile_size=8)[0].image
    assert mosaic.getcolors() == [(256, (0, 255, 0))]


def test_a_name_that_is_no_unicode_makes_a_mosaic(tmp_path: Path) -> None:
    for label in "abcd":
        (tmp_path / label).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / label / "image.png")
        os.rename(tmp_path / label / "image.png", os.fsencode(tmp_path / label) + b"/\xff.png")
    assert Mosaics(open_data(tmp_path), tile_size=2)[0].name == "a/\udcff.png"


def box(size: tuple[int, int], *edges: int) -> Image.Image:
    region = Image.new("L", size)
    region.paste(255, edges)
    return region


def rows(region: Tensor) -> list[str]:
    assert region.dtype == torch.bool
    return ["".join(".#"[pixel] for pixel in row) for row in region.int().tolist()]


def test_a_region_is_resized_and_cropped_as_the_image_is() -> None:
    preset = ImageClassification(crop_size=4, resize_size=6)  # 24×12 becomes 12×6, of which columns 4..7, rows 1..4
    assert rows(seen_region(box((24, 12), 10, 4, 24, 8), preset)) == ["....", ".###", ".###", "...."]


def test_a_pixel_belongs_to_the_region_from_half_of_it_on() -> None:
    def averaged(image: Image.Image) -> Tensor:
        return transforms.ToTensor()(image.resize((4, 1), Image.Resampling.BOX))

    region = box((20, 1), 0, 0, 3, 1)  # 3 of 5, then 2 of 5, all and nothing
    region.paste(255, (5, 0, 7, 1))
    region.paste(255, (10, 0, 15, 1))
    assert rows(seen_region(region, averaged)) == ["#.#."]


def letterbox(image: Image.Image) -> Tensor:
    return transforms.ToTensor()(ImageOps.pad(image, (4, 4), color=(128, 128, 128)))


def negative(image: Image.Image) -> Tensor:
    return 1 - transforms.ToTensor()(image)


def as_bytes(image: Image.Image) -> Tensor:
    return transforms.PILToTensor()(image)


def grey(image: Image.Image) -> Tensor:
    return transforms.ToTensor()(image.convert("L"))


@pytest.mark.parametrize(
    ("preprocess", "expected"),
    [
        (letterbox, ["....", "##..", "#...", "...."]),
        (negative, ["####....", "####....", "##......", "##......"]),
        (as_bytes, ["####....", "####....", "##......", "##......"]),
        (grey, ["####....", "####....", "##......", "##......"]),
        (transforms.Compose([transforms.Resize((2, 4)), transforms.ToTensor()]), ["##..", "#..."]),
    ],
)
def test_other_preprocessings_are_followed(preprocess: Callable[[Image.Image], Tensor], expected: list[str]) -> None:
    region = box((8, 4), 0, 0, 4, 2)
    region.paste(255, (0, 2, 2, 4))
    assert rows(seen_region(region, preprocess)) == expected


def test_a_region_that_is_cropped_off_leaves_no_pixel() -> None:
    seen = seen_region(box((24, 12), 0, 0, 4, 12), ImageClassification(crop_size=4, resize_size=6))
    assert seen.shape == (4, 4)
    assert not seen.any()


def test_the_tile_of_a_mosaic_is_a_quarter_of_what_is_seen() -> None:
    sample = Mosaics(Painted([0, 1, 2, 3]), tile_size=16)[0]
    seen = seen_region(sample.region, ImageClassification(crop_size=8, resize_size=10))
    left, top = (4 * (edge // 16) for edge in sample.region.getbbox()[:2])
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[top : top + 4, left : left + 4] = True
    assert torch.equal(seen, expected)


def test_a_preprocessing_that_takes_the_images_own_mean_is_told() -> None:
    def own_mean(image: Image.Image) -> Tensor:
        pixels = transforms.ToTensor()(image)
        return pixels - pixels.mean()

    with pytest.raises(ValueError, match="tells a white image from a black one, but it gives the same for both"):
        seen_region(box((4, 4), 0, 0, 2, 2), own_mean)
