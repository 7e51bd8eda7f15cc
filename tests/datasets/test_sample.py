"""Samples of a data set."""

from __future__ import annotations

import pytest
from PIL import Image

from captum_scorecam.datasets import Sample


def test_a_region_of_another_size_than_the_image_raises() -> None:
    image = Image.new("RGB", (6, 4))
    assert Sample("a", image, region=Image.new("L", (6, 4))).region is not None
    with pytest.raises(ValueError, match="Expected `region` to have the image's size, 6×4, in sample 'a', but got 4×6"):
        Sample("a", image, region=Image.new("L", (4, 6)))
