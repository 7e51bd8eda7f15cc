"""Samples of a data set."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from captum_scorecam.datasets import Sample


def test_a_region_of_another_size_than_the_image_raises() -> None:
    image = Image.new("RGB", (6, 4))
    assert Sample("a", image, region=Image.new("L", (6, 4))).region is not None
    with pytest.raises(ValueError, match="Expected `region` to have the image's size, 6×4, in sample 'a', but got 4×6"):
        Sample("a", image, region=Image.new("L", (4, 6)))


def test_a_mask_has_the_size_of_the_image_and_comes_with_a_region() -> None:
    image, region = Image.new("RGB", (6, 4)), Image.new("L", (6, 4))
    assert Sample("a", image, region=region, mask=region).mask is region
    with pytest.raises(ValueError, match="Expected `mask` to have the image's size, 6×4, in sample 'a', but got 4×6"):
        Sample("a", image, region=region, mask=Image.new("L", (4, 6)))
    more: dict[str, Any]
    for more in ({"mask": region}, {"boxes": [(0, 0, 1, 1)]}):
        with pytest.raises(ValueError, match="Expected a `region` with the mask or boxes of sample 'a', but got none"):
            Sample("a", image, **more)
