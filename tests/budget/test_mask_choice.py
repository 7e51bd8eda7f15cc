"""Which masks are chosen: against a greedy search that computes every posterior anew, and the random draws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_scorecam.budget.gaussian_process import KERNELS, PRIOR, Kernel, MaskSpace, Posterior
from captum_scorecam.budget.mask_choice import most_informative, random_rows


def naive_choice(space: MaskSpace, kernel: Kernel, importance: Tensor, run: list[int], n: int) -> list[int]:
    """One mask after the other, each time with the variance left by all before it."""
    covariance, known = space.covariance(kernel), list(run)
    for _ in range(n):
        variance = covariance.diagonal().clone()
        if known:
            of_known = covariance[known][:, known] + kernel.nugget * torch.eye(len(known))
            variance -= (covariance[known] * torch.linalg.solve(of_known, covariance[known])).sum(0)
        gain = importance * variance.clamp_min(0).sqrt()
        gain[known] = -1
        known.append(int(gain.argmax()))
    return known[len(run) :]


@given(st.integers(1, 30), st.integers(0, 10**6), st.data())
def test_most_informative_equals_a_naive_search(n_masks: int, seed: int, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(seed)
    space = MaskSpace(torch.rand(n_masks, 9, generator=generator))
    importance = torch.rand(n_masks, generator=generator, dtype=torch.float64)
    n_run = data.draw(st.integers(0, n_masks))
    n = data.draw(st.integers(0, n_masks - n_run))
    run = torch.randperm(n_masks, generator=generator)[:n_run]
    kernel = data.draw(st.sampled_from([PRIOR, *KERNELS]))
    chosen = most_informative(Posterior.given(space, run, kernel), importance, n)
    assert chosen.tolist() == naive_choice(space, kernel, importance, run.tolist(), n)


def test_masks_without_importance_are_chosen_last_and_none_twice() -> None:
    space = MaskSpace(torch.rand(8, 4, generator=torch.Generator().manual_seed(0)))
    importance = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    chosen = most_informative(Posterior.given(space, torch.tensor([1]), PRIOR), importance, 7).tolist()
    assert set(chosen[:3]) == {3, 5, 7}
    assert sorted(chosen) == [0, 2, 3, 4, 5, 6, 7]
    assert importance.tolist() == [0.0, 1.0] * 4  # not written to


def test_random_rows_are_those_of_their_seed_and_draw_from_no_other_generator() -> None:
    weights, run = torch.rand(50, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 7])
    state = torch.get_rng_state()
    drawn = [random_rows(weights, run, 20, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    for rows in drawn:
        assert len(set(rows.tolist()) - {3, 7}) == 20


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e300])
def test_random_rows_are_drawn_in_proportion_to_their_weights(size: float) -> None:
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0], dtype=torch.float64) * size
    first = torch.stack([random_rows(weights, torch.tensor([4]), 1, seed) for seed in range(2000)]).flatten()
    shares = first.bincount(minlength=5) / 2000
    # Standard deviations are below 0.011
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0]), rtol=0, atol=0.04)


def test_masks_without_weight_are_drawn_if_no_others_are_left() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 1.0])
    for seed in range(20):
        assert set(random_rows(weights, torch.zeros(0, dtype=torch.long), 2, seed).tolist()) == {1, 3}
        assert set(random_rows(weights, torch.tensor([1, 3]), 2, seed).tolist()) == {0, 2}
        assert set(random_rows(torch.zeros(4), torch.tensor([1]), 3, seed).tolist()) == {0, 2, 3}


def test_no_random_rows() -> None:
    assert random_rows(torch.ones(3), torch.tensor([1]), 0, 0).tolist() == []
