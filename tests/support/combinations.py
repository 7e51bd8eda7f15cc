"""Combinations of parameters, of which the quick suite runs a part."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest


def combinations(*axes: Iterable[Any], quick: int) -> list[Any]:
    """The product of the axes as parameters; the quick suite runs one in `quick`, the long tests the others.

    Where `quick` shares no divisor with the lengths of the axes, each value is in one of the quick ones.
    """
    return [
        pytest.param(*values, marks=pytest.mark.slow if i % quick else (), id="-".join(map(str, values)))
        for i, values in enumerate(itertools.product(*axes))
    ]
