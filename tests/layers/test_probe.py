"""Models that fail on the pairs of images that a layer is looked for with: the error says what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.layers import find_layer


class FixedRows(nn.Module):
    """Takes batches of `n_rows` only."""

    def __init__(self, n_rows: int) -> None:
        super().__init__()
        self.n_rows = n_rows
        self.maps, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.maps(inputs).mean((2, 3)).view(self.n_rows, 8))
        return scores


class KeywordOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 8, 3)

    def forward(self, *, pixel_values: Tensor) -> Any:
        return self.maps(pixel_values).mean((2, 3))


@pytest.mark.parametrize(("n_rows", "n_examples"), [(1, 1), (3, 3), (1, 2), (1, 5)])
@pytest.mark.parametrize("layer", ["auto", "maps"])
def test_a_fixed_batch_size_is_named(n_rows: int, n_examples: int, layer: str) -> None:
    message = f"Expected `forward_func` to take any number of rows, .*it takes only {n_rows}.*`ActivationTap`"
    with pytest.raises(ValueError, match=message):
        find_layer(FixedRows(n_rows).eval(), torch.zeros(n_examples, 3, 8, 8), layer)


def test_an_exported_program_of_one_row_is_told_of_the_tap() -> None:
    images = torch.zeros(1, 3, 8, 8)
    program = torch.export.export(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()).eval(), (images,)).module()
    with pytest.raises(ValueError, match=r"it takes only 1.*exported programs, an `ActivationTap`"):
        find_layer(program, images, "0")


def test_inputs_by_keyword_only_are_named() -> None:
    with pytest.raises(TypeError, match="by position, but KeywordOnly takes `pixel_values` by keyword only"):
        find_layer(KeywordOnly().eval(), torch.zeros(1, 3, 8, 8))


def test_other_errors_of_the_model_stay_its_own() -> None:
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 5 channels instead"):
        find_layer(FixedRows(2).eval(), torch.zeros(1, 5, 8, 8))
