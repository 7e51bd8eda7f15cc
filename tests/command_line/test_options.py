"""The classifier that options select: its device and its random weights."""

from __future__ import annotations

import pytest
import torch

from captum_scorecam.command_line.options import load_on_device


def test_random_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, same, other = (
        load_on_device("squeezenet1_1", "none", "cpu", seed=seed).model.state_dict()["classifier.1.weight"]
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_process_without_a_gpu_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"Expected one GPU per process, but process 3 found only 2\."):
        load_on_device("tests.support.colour_classifier:with_names", gpu=2)


def test_cuda_needs_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="Expected `device` to be cpu or auto, since PyTorch finds no CUDA device"):
        load_on_device("tests.support.colour_classifier:with_names", device="cuda")
    classifier = load_on_device("tests.support.colour_classifier:with_names")
    assert next(classifier.model.parameters()).device == torch.device("cpu")
