"""Fixtures of the evaluation tests: the tiny classifier, files without waiting, and registries restored."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from captum_scorecam.evaluation import METHODS, METRICS
from captum_scorecam.models import Classifier, load_classifier


@pytest.fixture
def classifier() -> Classifier:
    return load_classifier("tests.support.tiny_classifier:tiny")


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of tests need not survive a power failure, and waiting for the disk takes long."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Removes what a test registers."""
    methods, metrics = dict(METHODS), dict(METRICS)
    yield
    METHODS.clear()
    METHODS.update(methods)
    METRICS.clear()
    METRICS.update(metrics)
