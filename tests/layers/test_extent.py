"""Maps of a model that crops, pads or mirrors its inputs are refused; those that leave out a few pixels are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_scorecam.layers import find_layer

NO_POSITIONS = "holds image positions in an unknown order|does not follow the positions"
IMAGES = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Changed(nn.Module):
    """A small convolutional network of changed inputs."""

    def __init__(self, change: Callable[[Tensor], Tensor], width: int = 8, patch: int = 3) -> None:
        super().__init__()
        self.change = change
        self.maps = nn.Sequential(nn.Conv2d(3, width, patch, stride=2 if patch == 3 else patch, padding=patch % 2))
        self.maps.append(nn.ReLU())
        self.head = nn.Linear(width, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.maps(self.change(inputs)).mean((2, 3)))
        return scores


def seeded(net: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return net().eval()


def part(images: Tensor) -> Tensor:
    return images[..., :16, :16]


def middle(images: Tensor) -> Tensor:
    return images[..., 8:24, 8:24]


def edge_cut(images: Tensor) -> Tensor:
    return images[..., 4:]


def padded(images: Tensor) -> Tensor:
    return functional.pad(images, (0, 32, 0, 32))


def padded_a_little(images: Tensor) -> Tensor:
    return functional.pad(images, (0, 8))


@pytest.mark.parametrize("change", [part, middle, edge_cut, padded, padded_a_little])
@pytest.mark.parametrize("layer", ["auto", "maps"])
def test_maps_of_a_part_of_the_image_or_of_more_are_refused(change: Callable[[Tensor], Tensor], layer: str) -> None:
    with pytest.raises(ValueError, match=f"covers only part of the image, or more than it|{NO_POSITIONS}"):
        find_layer(seeded(lambda: Changed(change)), IMAGES, layer)


@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
@pytest.mark.parametrize("layer", ["auto", "maps"])
def test_mirrored_maps_are_refused(axes: tuple[int, ...], layer: str) -> None:
    with pytest.raises(ValueError, match=NO_POSITIONS):
        find_layer(seeded(lambda: Changed(lambda images: images.flip(axes))), IMAGES, layer)


@pytest.mark.parametrize(
    ("net", "size"),
    [
        (lambda: Changed(lambda images: images[..., 1:-1, 1:-1]), 32),
        (lambda: Changed(lambda images: functional.pad(images, (0, 1, 0, 1))), 32),
        (lambda: Changed(lambda images: images, patch=8), 39),
        (lambda: Changed(lambda images: functional.interpolate(images, 16)), 32),
    ],
    ids=["a pixel less", "a pixel more", "patches that leave out seven", "resized"],
)
@pytest.mark.parametrize("layer", ["auto", "maps"])
def test_maps_that_leave_out_less_than_a_cell_are_accepted(net: Callable[[], nn.Module], size: int, layer: str) -> None:
    assert find_layer(seeded(net), torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)), layer)


@pytest.mark.parametrize("bias", [-1.0, -2.0])
@pytest.mark.parametrize("layer", ["auto", "maps"])
def test_maps_that_are_mostly_zero_are_no_part_of_the_image(bias: float, layer: str) -> None:
    model = seeded(lambda: Changed(lambda images: 4 * images, width=4))
    assert isinstance(model.maps, nn.Sequential)
    nn.init.constant_(model.get_parameter("maps.0.bias"), bias)
    assert find_layer(model, IMAGES, layer).name == "maps"
