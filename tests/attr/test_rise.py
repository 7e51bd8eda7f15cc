"""RISE against a naive reference with the same masks, its expectation in closed form, its error, and its promises."""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import NoiseTunnel
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from skimage.transform import resize
from torch import Generator, Tensor, nn

from captum_scorecam import RISE
from captum_scorecam.masking.random_grids import GridMasks, RandomGrids, ScoredMasks, upsample_grids
from tests.naive_reference import UPSAMPLING, target_of_example
from tests.support.small_net import Net, assert_close, images, nothing_changes


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def naive_mask(grid: Tensor, shift: Tensor, size: tuple[int, ...]) -> Tensor:
    """One grid, upsampled whole by PyTorch and cropped, in float64."""
    cell = [-(-pixels // cells) for pixels, cells in zip(size, grid.shape, strict=True)]
    whole = [c * (cells + 1) for c, cells in zip(cell, grid.shape, strict=True)]
    mask = F.interpolate(grid.double()[None, None], whole, mode=UPSAMPLING[len(size)], align_corners=False)[0, 0]
    for dimension, (c, pixels) in enumerate(zip(cell, size, strict=True)):
        mask = mask.narrow(dimension, int(float(shift[dimension]) * c), pixels)
    return mask


def naive_rise(
    forward_func: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    target: Any,
    masks: GridMasks,
    p: float,
    baselines: tuple[Any, ...] | None = None,
    additional: tuple[Any, ...] = (),
    score: str = "probability",
) -> list[Tensor]:
    """For each input N×1×spatial: one mask and one example at a time."""
    n_masks, n_examples = len(masks.grids), len(inputs[0])
    totals = [torch.zeros(n_examples, 1, *x.shape[2:], dtype=torch.float64) for x in inputs]
    for n, m in product(range(n_examples), range(n_masks)):
        parts = [naive_mask(masks.grids[m], masks.shifts[m], tuple(x.shape[2:])) for x in inputs]
        blank = baselines or (0.0,) * len(inputs)
        blank = [b[n : n + 1] if isinstance(b, Tensor) and len(b) == n_examples else b for b in blank]
        masked = [x[n : n + 1] * part + b * (1 - part) for x, part, b in zip(inputs, parts, blank, strict=True)]
        arguments = [a[n : n + 1] if isinstance(a, Tensor) and len(a) == n_examples else a for a in additional]
        with torch.no_grad():
            output = forward_func(*masked, *arguments)
        output = output.softmax(1) if score == "probability" else output
        index = target_of_example(target, n, n_examples)
        value = float(output[0] if index is None else output[(0, *index)])
        for total, part in zip(totals, parts, strict=True):
            total[n, 0] += value * part / (p * n_masks)
    return totals


# --- The masks -------------------------------------------------------------------------------------------------------


def test_upsampled_grid_by_hand() -> None:
    # 2 cells, 4 pixels: cells of 2 pixels, 6 pixels in all, of which the linear weights are 0, 0, 1/3, 2/3, 1, 1
    grids = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    masks = upsample_grids(grids, torch.tensor([[0.0], [0.5], [0.49]]), (4,))
    expected = [[0, 0, 1 / 3, 2 / 3], [0, 1 / 3, 2 / 3, 1], [1, 1, 2 / 3, 1 / 3]]
    torch.testing.assert_close(masks, torch.tensor(expected).unsqueeze(1))


def test_upsampled_grids_are_skimages() -> None:
    # the authors call skimage's resize; its mode 'edge' does at the rim what PyTorch does (theirs, 'reflect', mirrors)
    grids, shifts = torch.rand(5, 3, 4, generator=seeded()).round().double(), torch.rand(5, 2, generator=seeded(1))
    masks = upsample_grids(grids, shifts, (13, 9))  # cells of 5×3 pixels
    for grid, shift, mask in zip(grids, shifts, masks, strict=True):
        whole = resize(grid.numpy(), (20, 15), order=1, mode="edge", anti_aliasing=False)
        top, left = int(shift[0] * 5), int(shift[1] * 3)
        torch.testing.assert_close(mask[0], torch.from_numpy(whole[top : top + 13, left : left + 9]))


@pytest.mark.parametrize(
    ("cells", "size"), [((3,), (10,)), ((2, 3), (7, 4)), ((7, 7), (5, 16)), ((2, 1, 3), (3, 4, 5)), ((1, 1), (1, 1))]
)
def test_masks_of_every_rank_and_shape(cells: tuple[int, ...], size: tuple[int, ...]) -> None:
    masks = RandomGrids(6, cells, 0.4, seeded()).draw((torch.zeros(2, 3, *size, dtype=torch.float64),))
    assert len(masks) == 12
    assert masks.examples.tolist() == [0, 1] * 6
    (upsampled,) = masks[torch.arange(12)]
    assert tuple(upsampled.shape) == (12, 1, *size)
    for row in range(12):
        expected = naive_mask(masks.grids[row // 2], masks.shifts[row // 2], size)
        torch.testing.assert_close(upsampled[row, 0], expected, rtol=0, atol=1e-12)


def test_every_pixel_is_kept_with_the_probability_of_a_cell() -> None:
    # exactly: the mean over all grids, each as likely as its cells, is p at every pixel and for every shift
    p = 0.3
    grids = torch.tensor(list(product([0.0, 1.0], repeat=4)), dtype=torch.float64)
    likely = torch.where(grids > 0, p, 1 - p).prod(1)
    for shift in (0.0, 0.4, 0.99):
        masks = upsample_grids(grids.view(-1, 2, 2), torch.full((16, 2), shift), (5, 3))
        mean = (likely.view(-1, 1, 1, 1) * masks).sum(0)
        torch.testing.assert_close(mean, torch.full((1, 5, 3), p, dtype=torch.float64))


def test_grids_and_shifts_are_drawn_as_asked() -> None:
    masks = RandomGrids(20000, (2, 3), 0.2, seeded()).draw((torch.zeros(1, 1, 8, 9),))
    # standard deviations of the means: cells .4/√20000 = .003, shifts .29/√20000 = .002
    torch.testing.assert_close(masks.grids.float().mean(0), torch.full((2, 3), 0.2), rtol=0, atol=0.012)
    torch.testing.assert_close(masks.shifts.mean(0), torch.full((2,), 0.5), rtol=0, atol=0.008)
    offsets = (masks.shifts[:, 1] * 3).long()  # cells of 3 pixels
    assert sorted(offsets.unique().tolist()) == [0, 1, 2]
    assert float((masks.shifts[:, 0] * masks.shifts[:, 1]).mean()) == pytest.approx(0.25, abs=0.008)


def test_what_is_drawn_at_once_is_small() -> None:
    # 8000 masks of 224² are 1.6 GB; their grids and shifts are 8000 · (49 + 2 · 4) bytes
    masks = RandomGrids(8000, 7, 0.5, seeded()).draw((torch.zeros(1, 3, 224, 224),))
    held = sum(t.numel() * t.element_size() for t in (masks.grids, masks.shifts, masks.examples))
    assert held == 8000 * (49 + 8 + 8)


# --- The map ---------------------------------------------------------------------------------------------------------


def linear_softmax(rank: int, seed: int = 0) -> Callable[..., Tensor]:
    """Logits of five classes from the inputs, each pixel with a weight of its own; a shift per example may follow."""

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


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "one example": (normal(1, 3, 9, 6), 2, {}),
    "batch, a target each": (normal(3, 2, 5, 11), [0, 4, 2], {"mask_cells": 3}),
    "1-D": (normal(2, 2, 17), torch.tensor([1, 3]), {"mask_cells": 4, "keep_probability": 0.2}),
    "3-D": (normal(2, 1, 4, 5, 6), [(1,), (0,)], {"mask_cells": (2, 3, 2)}),
    "no softmax, tuple target": (normal(2, 3, 6, 6), (3,), {"score": "output"}),
    "baseline number": (normal(2, 3, 6, 6), 1, {"baselines": -0.7}),
    "baselines each": (normal(2, 3, 6, 6), 1, {"baselines": normal(2, 3, 6, 6, seed=9)}),
    "two inputs": ((normal(2, 3, 6, 7), normal(2, 1, 12, 3, seed=5)), 1, {"baselines": (0.5, -1)}),
    "arguments": (normal(2, 3, 6, 6), 4, {"additional_forward_args": (normal(2), None)}),
    "more cells than pixels": (normal(1, 3, 4, 3), 0, {"mask_cells": 9}),
}


@pytest.mark.parametrize("name", CASES)
def test_map_equals_the_naive_reference(name: str) -> None:
    given, target, options = CASES[name]
    inputs = given if isinstance(given, tuple) else (given,)
    forward_func = linear_softmax(inputs[0].dim() - 2)
    p = options.get("keep_probability", 0.5)
    masks = RandomGrids(12, options.get("mask_cells", 7), p, seeded(4)).draw(inputs)
    baselines = options.get("baselines")
    expected = naive_rise(
        forward_func,
        inputs,
        target,
        masks,
        p,
        baselines if isinstance(baselines, tuple) else baselines if baselines is None else (baselines,),
        options.get("additional_forward_args", ()),
        options.get("score", "probability"),
    )
    actual = RISE(forward_func).attribute(given, target, n_masks=12, generator=seeded(4), **options)
    assert isinstance(actual, tuple) == isinstance(given, tuple)
    for one, other, x in zip(actual if isinstance(actual, tuple) else (actual,), expected, inputs, strict=True):
        assert one.dtype == x.dtype
        assert one.is_contiguous()
        assert_close(one, other.expand_as(x))


@pytest.mark.parametrize("perturbations_per_eval", [None, 1, 3, 100])
def test_chunk_size_changes_nothing(perturbations_per_eval: int | None) -> None:
    net, x = Net(), images(3)
    seen: list[int] = []
    net.register_forward_pre_hook(lambda _module, taken: seen.append(len(taken[0])))
    rise = RISE(net)
    actual = rise.attribute(
        x, 2, n_masks=20, generator=seeded(), perturbations_per_eval=perturbations_per_eval, keep_probability=0.7
    )
    assert sum(seen) == 3 + 20 * 3
    if perturbations_per_eval is not None:
        assert max(seen) == 3 * min(perturbations_per_eval, 20)
    masks = RandomGrids(20, 7, 0.7, seeded()).draw((x,))
    assert_close(actual, naive_rise(net, (x,), 2, masks, 0.7)[0].expand_as(x))


def test_batch_is_example_by_example() -> None:
    net, x = Net(), images(3)
    together = RISE(net).attribute(x, [1, 5, 3], n_masks=15, generator=seeded())
    alone = [RISE(net).attribute(x[n : n + 1], c, n_masks=15, generator=seeded()) for n, c in enumerate((1, 5, 3))]
    assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("table", [True, False])
def test_attribute_targets_stacks_the_maps_from_one_set_of_forwards(table: bool) -> None:
    net, x = Net(), images(2)
    targets: Any = torch.tensor([[2, 6, 0], [2, 1, 5]]) if table else [2, [6, 1], torch.tensor([0, 5])]
    actual = RISE(net).attribute_targets(x, targets, n_masks=15, generator=seeded())
    forwards = net.forwards
    each = [RISE(net).attribute(x, t, n_masks=15, generator=seeded())[:, :1] for t in (2, [6, 1], [0, 5])]
    assert tuple(actual.shape) == (2, 3, 12, 10)
    assert_close(actual, torch.cat(each, dim=1))
    assert net.forwards == 4 * forwards


def test_attribute_targets_of_two_inputs_is_a_tuple() -> None:
    inputs = (normal(2, 3, 6, 7), normal(2, 1, 12, 3))
    rise = RISE(linear_softmax(2))
    actual = rise.attribute_targets(inputs, [4, 1], n_masks=9, generator=seeded())
    for t, target in enumerate((4, 1)):
        expected = rise.attribute(inputs, target, n_masks=9, generator=seeded())
        for one, other in zip(actual, expected, strict=True):
            assert_close(one[:, t], other[:, 0])


def test_evidence_of_a_known_patch_is_where_the_map_is_largest() -> None:
    class Patch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 4:9, 12:18].mean((1, 2, 3)).unsqueeze(1)

    maps = RISE(Patch()).attribute(torch.ones(1, 3, 20, 24), 0, n_masks=1000, score="output", generator=seeded())
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
    options = {"mask_cells": 4, "keep_probability": p, "score": "output", "perturbations_per_eval": 4096}
    many, error = RISE(linear).attribute_with_error(
        x.view(1, 1, -1), baselines=b.view(1, 1, -1), n_masks=40000, generator=seeded(), **options
    )
    assert float(error.max()) < 0.03 * float(expected.abs().max())
    assert float(((many[0, 0] - expected) / error[0, 0]).abs().max()) < 4

    # 200 maps of 100 masks spread as their errors say, and their mean is the expectation too
    generator = seeded(1)
    runs = [
        RISE(linear).attribute_with_error(
            x.view(1, 1, -1), baselines=b.view(1, 1, -1), n_masks=100, generator=generator, **options
        )
        for _ in range(200)
    ]
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
    rise = RISE(linear_softmax(2))
    maps, errors = rise.attribute_with_error(inputs, [1, 2], n_masks=30, generator=seeded())
    for one, other in zip(maps, rise.attribute(inputs, [1, 2], n_masks=30, generator=seeded()), strict=True):
        assert_close(one, other)
    masks = RandomGrids(30, 7, 0.5, seeded()).draw(inputs)
    terms = []
    for m in range(30):
        single = GridMasks(masks.grids[m : m + 1], masks.shifts[m : m + 1], torch.arange(2), masks.sizes, masks.dtype)
        terms.append(naive_rise(linear_softmax(2), inputs, [1, 2], single, 0.5))
    for i, error in enumerate(errors):
        expected = torch.stack([term[i] for term in terms]).std(0) / 30**0.5
        assert_close(error, expected.expand_as(inputs[i]), 1e-6)


# --- Chance ----------------------------------------------------------------------------------------------------------


def test_global_generator_governs_the_masks_and_stays_as_it_was() -> None:
    net, x = Net(), images()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = torch.get_rng_state()
        first, second = (RISE(net).attribute(x, 2, n_masks=9) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(6)
        other = RISE(net).attribute(x, 2, n_masks=9)
    assert torch.equal(first, second)
    assert_close(first, RISE(net).attribute(x, 2, n_masks=9, generator=seeded(5)))
    assert float((first - other).abs().max()) > 1e-3


def test_a_generator_of_the_users_moves_on() -> None:
    net, x, generator = Net(), images(), seeded(5)
    first, second = (RISE(net).attribute(x, 2, n_masks=9, generator=generator) for _ in range(2))
    assert float((first - second).abs().max()) > 1e-3


# --- Promises --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["attribute", "attribute_with_error", "attribute_targets"])
@pytest.mark.parametrize("grad_mode", [True, False])
def test_nothing_of_the_users_is_changed(method: str, grad_mode: bool) -> None:
    net, x = Net(), images().requires_grad_()
    target: Any = [2, 4] if method == "attribute_targets" else 2
    with torch.set_grad_enabled(grad_mode), nothing_changes(net, x):
        getattr(RISE(net), method)(x, target, n_masks=5)


@pytest.mark.parametrize("fails_at", [1, 2, 4])
def test_nothing_of_the_users_is_changed_when_the_nth_forward_raises(fails_at: int) -> None:
    net, x = Net(), images().requires_grad_()
    net.fails_at = fails_at
    with nothing_changes(net, x), pytest.raises(RuntimeError, match="no more"):
        RISE(net).attribute(x, 2, n_masks=5, perturbations_per_eval=1)
    assert net.forwards == fails_at


def test_model_that_overwrites_its_input_gets_copies() -> None:
    class Overwriting(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.3))

    net, plain, x = Overwriting(), Net(), images()
    with nothing_changes(net, x):
        actual = RISE(net).attribute(x, 2, n_masks=9, generator=seeded())
    masks = RandomGrids(9, 7, 0.5, seeded()).draw((x,))
    assert_close(actual, naive_rise(lambda z: plain(z - 0.3), (x,), 2, masks, 0.5)[0].expand_as(x))


def test_training_mode_warns_and_keeps_statistics() -> None:
    net, x = Net(dropout=0.5).train(), images()
    with nothing_changes(net, x), pytest.warns(UserWarning, match="training mode"):
        RISE(net).attribute(x, 2, n_masks=5)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_every_grad_mode(context: Callable[[], AbstractContextManager[Any]]) -> None:
    net, x = Net(), images()
    expected = RISE(net).attribute(x, 2, n_masks=9, generator=seeded())
    with context():
        actual = RISE(net).attribute(images(), 2, n_masks=9, generator=seeded())
    assert torch.equal(actual, expected)
    assert not actual.requires_grad


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)],
)
def test_models_of_every_precision(dtype: torch.dtype, tolerance: float) -> None:
    net, x = Net(gain=8), images(dtype=dtype)
    masks = RandomGrids(9, 7, 0.5, seeded()).draw((x,))
    expected = naive_rise(net, (x.double(),), 2, masks, 0.5)[0].expand_as(x)
    actual = RISE(net.to(dtype)).attribute(x, 2, n_masks=9, generator=seeded())
    assert actual.dtype == dtype
    assert_close(actual, expected, tolerance)


def test_autocast_makes_and_sums_masks_in_float32() -> None:
    # the score does not go through autocast's matrix products here, so what is left of its rounding would be the masks'
    def mean(x: Tensor) -> Tensor:
        return x.double().mean((1, 2, 3))

    x = images(dtype=torch.float32)
    expected = RISE(mean).attribute(x, n_masks=50, score="output", generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        actual = RISE(mean).attribute(x, n_masks=50, score="output", generator=seeded())
    assert_close(actual, expected, 1e-6)


def test_compiled_model_and_view_of_the_default_memory_format() -> None:
    class Viewing(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0 * x.view(len(x), -1)[:, :1]

    net, x = Net(), images()
    expected = RISE(net).attribute(x, 2, n_masks=9, generator=seeded())
    compiled = torch.compile(Net(), backend="eager")
    assert_close(RISE(compiled).attribute(x, 2, n_masks=9, generator=seeded()), expected)
    torch.compiler.reset()
    assert_close(RISE(Viewing()).attribute(x, 2, n_masks=9, generator=seeded()), expected)


def test_progress_bar_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    RISE(Net()).attribute(images(), 2, n_masks=3, show_progress=True)
    assert "RISE attribution: 100%" in capsys.readouterr().err


# --- Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_masks": 0}, "Expected `n_masks` to be at least 1, but got 0"),
        ({"mask_cells": 0}, "Expected `mask_cells` to be at least 1, but got 0"),
        ({"mask_cells": (3, -1)}, "Expected `mask_cells` to be at least 1, but got"),
        ({"mask_cells": (3, 3, 3)}, "Expected `mask_cells` to be one number or 2, but got"),
        ({"keep_probability": 0.0}, r"Expected `keep_probability` in \(0, 1\), but got 0.0"),
        ({"keep_probability": 1.0}, r"Expected `keep_probability` in \(0, 1\), but got 1.0"),
        ({"keep_probability": float("nan")}, r"Expected `keep_probability` in \(0, 1\), but got nan"),
        ({"score": "logit"}, "Expected `score` to be 'output' or 'probability' or a callable, but got 'logit'"),
        ({"perturbations_per_eval": 0}, "Expected `perturbations_per_eval` to be at least 1, but got 0"),
    ],
)
def test_wrong_options_are_refused_before_any_forward(options: dict[str, Any], message: str) -> None:
    net, x = Net(), images()
    for method, target in (("attribute", 2), ("attribute_with_error", 2), ("attribute_targets", [2])):
        with pytest.raises(ValueError, match=message):
            getattr(RISE(net), method)(x, target, **options)
    assert net.forwards == 0


def test_bad_input_is_refused_before_any_masked_forward() -> None:
    net, x = Net(), images()
    with pytest.raises(ValueError, match="at least 2 for a standard error, but got 1"):
        RISE(net).attribute_with_error(x, 2, n_masks=1)
    with pytest.raises(ValueError, match="equally many spatial dimensions"):
        RISE(linear_softmax(2)).attribute((x, x.flatten(2)), 2)
    with pytest.raises(ValueError, match="at least one target"):
        RISE(net).attribute_targets(x, [])
    with pytest.raises(TypeError, match="floating-point inputs"):
        RISE(net).attribute(x.long(), 2)
    with pytest.raises(ValueError, match="N×C×spatial"):
        RISE(net).attribute(x[0, 0], 2)
    assert net.forwards == 0
    with pytest.raises(AssertionError, match="Target not provided"):
        RISE(net).attribute(x)
    with pytest.raises(IndexError, match="out of bounds"):
        RISE(net).attribute(x, 7)
    with pytest.raises(ValueError, match="rows grow with the input's"):
        RISE(lambda z: net(z).sum(0, keepdim=True)).attribute(x, 2)
    assert net.forwards == 3


def test_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite scores"):
        RISE(Net()).attribute(images() / 0, 2, n_masks=3)
    with pytest.raises(ValueError, match="NaN or Inf for"):  # finite for the input, not for masked ones
        RISE(lambda x: (x.flatten(1).amin(1) - 0.5).log()).attribute(torch.ones(1, 1, 6, 6), score="output", n_masks=9)


def test_signature_is_captums() -> None:
    names = list(inspect.signature(RISE.attribute).parameters)
    assert names[:4] == ["self", "inputs", "target", "additional_forward_args"]
    assert RISE.get_name() == "RISE"


# --- Captum's tools --------------------------------------------------------------------------------------------------


def test_sensitivity_of_an_unmoved_input_is_zero_and_of_a_moved_one_is_not() -> None:
    # with the global generator the calls share their masks, so that only the input makes a difference
    net, x, options = Net(), images(), {"target": 2, "n_masks": 9}
    rise = RISE(net)
    still = sensitivity_max(rise.attribute, x, lambda inputs, _radius: inputs, **options)
    assert float(still.max()) < 1e-12
    moved = sensitivity_max(rise.attribute, x, lambda inputs, _radius: inputs + 0.1, **options)
    maps, others = (rise.attribute(inputs, **options).flatten(1) for inputs in (x, x + 0.1))
    torch.testing.assert_close(moved, (others - maps).norm(dim=1) / maps.norm(dim=1))


def test_infidelity_takes_the_map() -> None:
    @infidelity_perturb_func_decorator(False)
    def darken(inputs: Tensor) -> Tensor:
        return inputs * 0.9

    net, x = Net(), images()
    maps = RISE(net).attribute(x, target=2, n_masks=9)
    actual = infidelity(net, darken, x, maps, target=2, n_perturb_samples=1)
    with torch.no_grad():
        expected = ((0.1 * x * maps).flatten(1).sum(1) - (net(x) - net(x * 0.9))[:, 2]).square()
    torch.testing.assert_close(actual, expected)


def test_noise_tunnel_without_noise_gives_the_map() -> None:
    net, x = Net(), images()
    options: dict[str, Any] = {"target": 2, "n_masks": 9}
    actual = NoiseTunnel(RISE(net)).attribute(x, nt_samples=2, stdevs=0.0, generator=seeded(), **options)
    assert_close(actual, RISE(net).attribute(x, generator=seeded(), **options))


def test_compiled_model_in_training_mode_keeps_its_statistics() -> None:
    net, x = Net().train(), images()
    compiled = torch.compile(net, backend="eager")
    with nothing_changes(net, x), pytest.warns(UserWarning, match="training mode"):
        RISE(compiled).attribute(x, 2, n_masks=5)
    torch.compiler.reset()
