"""Fixtures of the evaluation tests: the tiny classifier, and registries restored after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from captum_scorecam.evaluation import METHODS, METRICS
from captum_scorecam.models import Classifier, load_classifier


@pytest.fixture
def classifier() -> Classifier:
    return load_classifier("tests.support.tiny_classifier:tiny")


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Removes what a test registers."""
    methods, metrics = dict(METHODS), dict(METRICS)
    yield
    METHODS.clear()
    METHODS.update(methods)
    METRICS.clear()
    METRICS.update(metrics)
