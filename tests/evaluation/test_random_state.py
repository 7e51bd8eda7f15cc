"""The global generators are seeded for other libraries' code, and restored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_scorecam.evaluation.random_state import seeded


def test_generators_are_seeded_and_restored() -> None:
    def draw() -> tuple[float, float]:
        return float(torch.rand(())), float(np.random.rand())

    torch.manual_seed(1)
    np.random.seed(1)
    expected = [draw(), draw()]
    torch.manual_seed(1)
    np.random.seed(1)
    found = [draw()]
    seeded_draws = []
    for _ in range(2):
        with seeded(-3, torch.device("cpu")):
            seeded_draws.append(draw())
    found.append(draw())
    assert found == expected
    assert seeded_draws[0] == seeded_draws[1] not in expected


def test_generators_of_other_devices_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def seed_all(_: int) -> None:
        raise AssertionError("other devices have a generator, too")

    monkeypatch.setattr(torch, "manual_seed", seed_all)
    with seeded(3, torch.device("cpu")):
        torch.rand(())
