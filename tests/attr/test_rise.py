"""RISE: a naive reference with the same masks, the closed-form expectation, the standard error, and the draws."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from captum_scorecam import RISE
from captum_scorecam.attr.rise import ScoredMasks
from captum_scorecam.masking.random_grids import draw_grids, upsample_grids
from tests.support.naive_methods import naive_rise_terms
from tests.support.small_net import Net, assert_close, images, nothing_changes


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


# --- The map ---------------------------------------------------------------------------------------------------------


def naive_rise(
    forward_func: Callable[..., Tensor],
    inputs: Tensor | tuple[Tensor, ...],
    target: Any,
    n_masks: int,
    seed: int,
    *,
    grid_size: int | tuple[int, ...] = 7,
    keep_probability: float = 0.5,
    **options: Any,
) -> list[Tensor]:
    """For each input N×C×spatial: the mean over the masks that the package draws, one mask and example at a time."""
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    masks = draw_grids(tensors, n_masks, grid_size, keep_probability, seeded(seed))
    terms = naive_rise_terms(forward_func, tensors, target, masks.grids, masks.shifts, keep_probability, **options)
    return [term.mean(0).expand_as(x) for term, x in zip(terms, tensors, strict=True)]


def linear_softmax(rank: int, seed: int = 0) -> Callable[..., Tensor]:
    """Logits of five classes, with one weight per pixel and an optional shift per example."""

    def logits(x: Tensor, *others: Any) -> Tensor:
        total = torch.zeros(len(x), 5, dtype=x.dtype)
        for i, tensor in enumerate((x, *others)):
            if isinstance(tensor, Tensor) and tensor.dim() > 1:
                flat = tensor.flatten(1)
                weight = torch.randn(5, flat.shape[1], generator=seeded(seed + i), dtype=x.dtype)
                total = total + (flat.tanh() @ weight.T) / rank
            elif isinstance(tensor, Tensor):
                total = total + tensor[:, None] * torch.arange(5)
        return total

    return logits


def normal(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# Inputs, target, options of the constructor, options of the call
CASES: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "one example": (normal(1, 3, 9, 6), 2, {}, {}),
    "batch, a target each": (normal(3, 2, 5, 11), [0, 4, 2], {"grid_size": 3}, {}),
    "1-D": (normal(2, 2, 17), torch.tensor([1, 3]), {"grid_size": 4, "keep_probability": 0.2}, {}),
    "3-D": (normal(2, 1, 4, 5, 6), [(1,), (0,)], {"grid_size": (2, 3, 2)}, {}),
    "no softmax, tuple target": (normal(2, 3, 6, 6), (3,), {"score": "output"}, {}),
    "baseline number": (normal(2, 3, 6, 6), 1, {}, {"baselines": -0.7}),
    "baselines each": (normal(2, 3, 6, 6), 1, {}, {"baselines": normal(2, 3, 6, 6, seed=9)}),
    "two inputs": ((normal(2, 3, 6, 7), normal(2, 1, 12, 3, seed=5)), 1, {}, {"baselines": (0.5, -1)}),
    "arguments": (normal(2, 3, 6, 6), 4, {}, {"additional_forward_args": (normal(2), None)}),
    "more cells than pixels": (normal(1, 3, 4, 3), 0, {"grid_size": 9}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_map_equals_the_naive_reference(name: str) -> None:
    given, target, options, call = CASES[name]
    inputs = given if isinstance(given, tuple) else (given,)
    forward_func = linear_softmax(inputs[0].dim() - 2)
    blank, additional = call.get("baselines"), call.get("additional_forward_args")
    expected = naive_rise(forward_func, inputs, target, 12, 4, **options, baselines=blank, additional=additional)
    actual = RISE(forward_func, n_masks=12, **options).attribute(given, target, generator=seeded(4), **call)
    assert isinstance(actual, tuple) == isinstance(given, tuple)
    for one, other, x in zip(actual if isinstance(actual, tuple) else (actual,), expected, inputs, strict=True):
        assert one.dtype == x.dtype
        assert one.is_contiguous()
        assert_close(one, other)


@pytest.mark.parametrize("perturbations_per_eval", [None, 1, 3, 100])
def test_chunk_size_changes_nothing(perturbations_per_eval: int | None) -> None:
    net, x = Net(), images(3)
    seen: list[int] = []
    net.register_forward_pre_hook(lambda _module, taken: seen.append(len(taken[0])))
    rise = RISE(net, n_masks=20, keep_probability=0.7)
    actual = rise.attribute(x, 2, generator=seeded(), perturbations_per_eval=perturbations_per_eval)
    rows_in_each_format = 3 if perturbations_per_eval == 1 else 2
    assert sum(seen) == 3 + 2 * rows_in_each_format + 20 * 3
    if perturbations_per_eval is not None:
        assert max(seen) == 3 * min(perturbations_per_eval, 20)
    assert_close(actual, naive_rise(net, x, 2, 20, 0, keep_probability=0.7)[0])


@pytest.mark.parametrize("table", [True, False])
def test_attribute_targets_stacks_the_maps_from_one_set_of_forwards(table: bool) -> None:
    net, x = Net(), images(2)
    targets: Any = torch.tensor([[2, 6, 0], [2, 1, 5]]) if table else [2, [6, 1], torch.tensor([0, 5])]
    rise = RISE(net, n_masks=15)
    actual = rise.attribute_targets(x, targets, generator=seeded())
    each = [naive_rise(net, x, t, 15, 0)[0][:, :1] for t in (2, [6, 1], [0, 5])]
    assert tuple(actual.shape) == (2, 3, 12, 10)
    assert_close(actual, torch.cat(each, dim=1))
    net.forwards = 0
    rise.attribute(x, 2, perturbations_per_eval=5)
    forwards = net.forwards
    rise.attribute_targets(x, targets, perturbations_per_eval=5)
    assert net.forwards == 2 * forwards == 2 * (1 + 3)


def test_attribute_targets_of_two_inputs_is_a_tuple() -> None:
    inputs = (normal(2, 3, 6, 7), normal(2, 1, 12, 3))
    rise = RISE(linear_softmax(2), n_masks=9)
    actual = rise.attribute_targets(inputs, [4, 1], generator=seeded())
    for t, target in enumerate((4, 1)):
        expected = rise.attribute(inputs, target, generator=seeded())
        for one, other in zip(actual, expected, strict=True):
            assert_close(one[:, t], other[:, 0])


def test_evidence_of_a_known_patch_is_where_the_map_is_largest() -> None:
    class Patch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 4:9, 12:18].mean((1, 2, 3)).unsqueeze(1)

    rise = RISE(Patch(), n_masks=1000, score="output")
    maps = rise.attribute(torch.ones(1, 3, 20, 24), 0, generator=seeded())
    row, column = divmod(int(maps[0, 0].argmax()), 24)
    assert 4 <= row < 9
    assert 12 <= column < 18
    assert float(maps[0, 0, 4:9, 12:18].mean()) > 1.2 * float(maps[0, 0, :, :6].mean())


# --- The estimate ----------------------------------------------------------------------------------------------------


def expected_map_of_a_linear_model(w: Tensor, x: Tensor, b: Tensor, cells: int, p: float) -> Tensor:
    """E[f M] / p for f(z) = w·z on one dimension, in closed form.

    With M = Σ_c u_c G_c, where u_c are the linear weights at a shift and G_c the cells, E[M_i M_j] = p² + p (1 - p) Σ_c
    u_c(i) u_c(j), averaged over the shifts. Hence E[f M_i] / p = w·b + Σ_j w_j (x_j - b_j) E[M_i M_j] / p.
    """
    size = len(x)
    cell = -(-size // cells)
    shifts = (torch.arange(cell) + 0.5) / cell
    one_cell_kept = torch.eye(cells, dtype=torch.float64)
    u = torch.stack([upsample_grids(one_cell_kept, s.expand(cells, 1), (size,))[:, 0] for s in shifts])
    together = p**2 + p * (1 - p) * torch.einsum("sci,scj->ij", u, u) / cell
    return w @ b + together @ (w * (x - b)) / p


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_map_of_a_linear_model_is_unbiased_and_the_error_is_calibrated(p: float) -> None:
    w, x, b = (normal(11, seed=seed) for seed in (1, 2, 3))

    def linear(z: Tensor) -> Tensor:
        return z.flatten(1) @ w

    expected = expected_map_of_a_linear_model(w, x, b, 4, p)
    inputs = x.view(1, 1, -1)
    options: dict[str, Any] = {"grid_size": 4, "keep_probability": p, "score": "output"}
    call: dict[str, Any] = {"baselines": b.view(1, 1, -1), "perturbations_per_eval": 4096}
    many, error = RISE(linear, n_masks=40000, **options).attribute_with_error(inputs, generator=seeded(), **call)
    assert float(error.max()) < 0.03 * float(expected.abs().max())
    assert float(((many[0, 0] - expected) / error[0, 0]).abs().max()) < 4

    # 200 maps of 100 masks spread as their errors say, and their mean is the expectation too
    generator, rise = seeded(1), RISE(linear, n_masks=100, **options)
    runs = [rise.attribute_with_error(inputs, generator=generator, **call) for _ in range(200)]
    maps, errors = torch.cat([m for m, _ in runs])[:, 0], torch.cat([e for _, e in runs])[:, 0]
    torch.testing.assert_close(maps.std(0), errors.square().mean(0).sqrt(), rtol=0.2, atol=0)
    assert float(((maps.mean(0) - expected) / (maps.std(0) / 200**0.5)).abs().max()) < 4


def test_map_and_error_by_hand() -> None:
    # f M / p of one pixel at p = 0.5: 2·1/.5 = 4, 3·.5/.5 = 3, 5·0 = 0, 4·.25/.5 = 2
    masks = torch.tensor([1.0, 0.5, 0.0, 0.25]).view(4, 1, 1)
    scored = ScoredMasks(4, 0.5, with_squares=True)
    scored.add((masks[:3],), torch.tensor([[2.0], [3.0], [5.0]]), torch.zeros(3, dtype=torch.long), 1)
    scored.add((masks[3:],), torch.tensor([[4.0]]), torch.zeros(1, dtype=torch.long), 1)
    assert scored.maps()[0].item() == pytest.approx(9 / 4)
    assert scored.standard_errors()[0].item() == pytest.approx(statistics.stdev([4, 3, 0, 2]) / 2)


def test_error_belongs_to_the_map_of_attribute() -> None:
    inputs = (normal(2, 3, 6, 7), normal(2, 1, 12, 3))
    rise = RISE(linear_softmax(2), n_masks=30)
    maps, errors = rise.attribute_with_error(inputs, [1, 2], generator=seeded())
    for one, other in zip(maps, rise.attribute(inputs, [1, 2], generator=seeded()), strict=True):
        assert_close(one, other)
    masks = draw_grids(inputs, 30, 7, 0.5, seeded())
    terms = naive_rise_terms(linear_softmax(2), inputs, [1, 2], masks.grids, masks.shifts, 0.5)
    for error, term, x in zip(errors, terms, inputs, strict=True):
        assert_close(error, (term.std(0) / 30**0.5).expand_as(x), 1e-6)


# --- Chance ----------------------------------------------------------------------------------------------------------


def test_masks_depend_on_the_global_generator_and_leave_it_unchanged() -> None:
    net, x = Net(), images()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = torch.get_rng_state()
        first, second = (RISE(net, n_masks=9).attribute(x, 2, perturbations_per_eval=4) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(6)
        other = RISE(net, n_masks=9).attribute(x, 2)
    assert torch.equal(first, second)
    assert_close(first, RISE(net, n_masks=9).attribute(x, 2, generator=seeded(5)))
    assert float((first - other).abs().max()) > 1e-3


def test_a_given_generator_advances() -> None:
    net, x, generator = Net(), images(), seeded(5)
    first, second = (RISE(net, n_masks=9).attribute(x, 2, generator=generator) for _ in range(2))
    assert float((first - second).abs().max()) > 1e-3


# --- Precision and compiled models -----------------------------------------------------------------------------------


def test_autocast_makes_and_sums_masks_in_float32() -> None:
    # the score does not go through autocast's matrix products here, so what is left of its rounding would be the masks'
    def mean(x: Tensor) -> Tensor:
        return x.double().mean((1, 2, 3))

    x, rise = images(dtype=torch.float32), RISE(mean, n_masks=50, score="output")
    expected = rise.attribute(x, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        actual = rise.attribute(x, generator=seeded())
    assert_close(actual, expected, 1e-6)


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_model() -> None:
    net, x = Net(), images()
    compiled = torch.compile(Net(), backend="eager")
    actual = RISE(compiled, n_masks=9).attribute(x, 2, generator=seeded())
    assert_close(actual, RISE(net, n_masks=9).attribute(x, 2, generator=seeded()))


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_model_in_training_mode_keeps_its_statistics() -> None:
    net, x = Net().train(), images()
    compiled = torch.compile(net, backend="eager")
    with nothing_changes(net, x), pytest.warns(UserWarning, match="training mode"):
        RISE(compiled, n_masks=5).attribute(x, 2)


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_raises_before_any_forward() -> None:
    net, x = Net(), images()
    with pytest.raises(ValueError, match="`n_masks` to be at least 2 for a standard error, but got 1"):
        RISE(net, n_masks=1).attribute_with_error(x, 2)
    with pytest.raises(ValueError, match=r"Expected `grid_size` to be one number or 2, but got \(3, 3, 3\)"):
        RISE(net, grid_size=(3, 3, 3)).attribute(x, 2)
    with pytest.raises(ValueError, match=r"the same number of spatial dimensions, but got \[1, 2\]"):
        RISE(linear_softmax(2)).attribute((x, x.flatten(2)), 2)
    with pytest.raises(ValueError, match="at least one target, but got none"):
        RISE(net).attribute_targets(x, [])
    assert net.forwards == 0


def test_score_that_is_not_finite_raises() -> None:
    net = Net()
    with pytest.raises(ValueError, match="Expected `inputs` to be finite, but got NaN or Inf for 2 of 2 examples"):
        RISE(net, n_masks=3).attribute(images() / 0, 2)
    assert net.forwards == 0
    with pytest.raises(ValueError, match="Expected finite scores of the inputs, but got NaN or Inf"):
        RISE(lambda x: net(x) / 0, n_masks=3).attribute(images(), 2)

    def logarithm(x: Tensor) -> Tensor:  # finite for the input, not for masked ones
        return (x.flatten(1).amin(1) - 0.5).log()

    with pytest.raises(ValueError, match="Expected finite scores, but got NaN or Inf for"):
        RISE(logarithm, score="output", n_masks=9).attribute(torch.ones(1, 1, 6, 6))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_standard_errors_of_scores_of_any_size(size: float) -> None:
    net, x = Net().float(), images(dtype=torch.float32)
    _, expected = RISE(net, n_masks=9, score="output").attribute_with_error(
        x, 2, generator=torch.Generator().manual_seed(0)
    )
    scaled = RISE(lambda inputs: size * net(inputs), n_masks=9, score="output")
    _, errors = scaled.attribute_with_error(x, 2, generator=seeded())
    assert isinstance(errors, Tensor)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(errors / size, expected, rtol=1e-3, atol=1e-6)


def test_maps_beyond_the_range_of_the_inputs_are_refused() -> None:
    net = Net().float()
    rise = RISE(lambda inputs: 1e7 * net(inputs.float()), n_masks=9, score="output")
    with pytest.raises(ValueError, match=r"Expected maps within the range of the inputs' torch\.float16, but values"):
        rise.attribute(images(dtype=torch.float16), 2)
