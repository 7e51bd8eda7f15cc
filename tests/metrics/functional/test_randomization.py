"""The sanity check: which layers are randomised, how maps are compared, and that the model comes back to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from scipy.stats import spearmanr
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from captum_scorecam.metrics.functional import LayerSimilarity, cascading_parameter_randomization
from captum_scorecam.metrics.functional.randomization import _similarity

ORDERS = ["top_down", "bottom_up", "independent"]
MEASURES = ["spearman", "absolute_spearman", "ssim", "cosine"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Scale(nn.Module):
    """A module without ``reset_parameters``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(1.0, 5.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.view(1, 4, 1, 1)


def small_net() -> nn.Sequential:
    """Conv 0, BatchNorm 1, ReLU 2, Scale 3, pooling, linear 6: four modules with parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Scale(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(16, 5),
        )  # fmt: skip
        net[1].running_mean.uniform_()
        net[1].running_var.uniform_(0.5, 2)
        nn.init.uniform_(net[1].weight)
    return net.eval()


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 12, 9, generator=seeded(1))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def recorder(model: nn.Module, states: list[dict[str, Tensor]]) -> Callable[[Tensor], Tensor]:
    """Explains by a fixed map, and keeps the model's state in each call."""

    def explain(inputs: Tensor) -> Tensor:
        states.append(state_of(model))
        return inputs

    return explain


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    before, tensors = state_of(model), [*model.parameters(), *model.buffers()]
    random_state = torch.get_rng_state()
    yield
    assert changed(model, before) == set()
    assert all(now is then for now, then in zip([*model.parameters(), *model.buffers()], tensors, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)


# --- Which layers -----------------------------------------------------------------------------------------------------

CONV = {"0.weight", "0.bias"}
NORM = {"1.weight", "1.running_mean", "1.running_var"}  # the bias is 0 before and after
SCALE = {"3.weight"}
LINEAR = {"6.weight", "6.bias"}


@pytest.mark.parametrize(
    ("order", "names", "expected"),
    [
        (
            "top_down",
            ["6", "3", "1", "0"],
            [LINEAR, LINEAR | SCALE, LINEAR | SCALE | NORM, LINEAR | SCALE | NORM | CONV],
        ),
        ("bottom_up", ["0", "1", "3", "6"], [CONV, CONV | NORM, CONV | NORM | SCALE, CONV | NORM | SCALE | LINEAR]),
        ("independent", ["0", "1", "3", "6"], [CONV, NORM, SCALE, LINEAR]),
    ],
)
def test_what_is_randomised_when(order: str, names: list[str], expected: list[set[str]]) -> None:
    model, states = small_net(), []
    before = state_of(model)
    records = cascading_parameter_randomization(
        model, recorder(model, states), images(), order=order, generator=seeded()
    )
    assert [record.layer for record in records] == names
    assert all(torch.equal(states[0][name], value) for name, value in before.items())
    for state, wanted in zip(states[1:], expected, strict=True):
        assert {name for name in state if not torch.equal(state[name], before[name])} == wanted


def test_a_cascade_keeps_what_it_randomised() -> None:
    model, states = small_net(), []
    list(cascading_parameter_randomization(model, recorder(model, states), images(), generator=seeded()))
    for state in states[2:]:
        assert torch.equal(state["6.weight"], states[1]["6.weight"])


def test_layers_are_initialised_by_pytorch_or_shuffled() -> None:
    model, states = small_net(), []
    before = state_of(model)
    list(cascading_parameter_randomization(model, recorder(model, states), images(), generator=seeded()))
    last = states[-1]
    bound = 1 / 27**0.5  # of nn.Conv2d's default initialisation, 3 channels of 3×3
    assert last["0.weight"].abs().max() <= bound
    assert last["0.weight"].std().item() == pytest.approx(bound / 3**0.5, rel=0.2)
    assert torch.equal(last["1.weight"], torch.ones(4))
    assert torch.equal(last["1.running_mean"], torch.zeros(4))
    assert sorted(last["3.weight"].tolist()) == before["3.weight"].tolist()


def test_a_layer_gets_the_same_parameters_in_any_order() -> None:
    lasts = []
    for order in ["top_down", "bottom_up"]:
        model, states = small_net(), []
        list(
            cascading_parameter_randomization(model, recorder(model, states), images(), order=order, generator=seeded())
        )
        lasts.append(states[-1])
    assert all(torch.equal(lasts[0][name], lasts[1][name]) for name in lasts[0])


def test_chosen_layers_with_all_their_submodules() -> None:
    model, states = nn.Sequential(), []
    model.stem, model.head = small_net()[:2], small_net()[4:]
    before = state_of(model)
    records = cascading_parameter_randomization(
        model, recorder(model, states), images(), layers=["stem", "head.6"], generator=seeded()
    )
    assert [record.layer for record in records] == ["head.6", "stem"]
    differing = [{name for name in state if not torch.equal(state[name], before[name])} for state in states[1:]]
    assert differing[0] == {"head.6.weight", "head.6.bias"}
    assert differing[1] == differing[0] | {f"stem.{name}" for name in CONV | NORM}


def test_a_model_that_is_one_layer() -> None:
    model = nn.Conv2d(3, 2, 3)
    records = cascading_parameter_randomization(model, lambda x: model(x), images(), generator=seeded())
    assert [record.layer for record in records] == ["Conv2d"]


def test_the_generator_decides() -> None:
    def run(generator: torch.Generator | None) -> list[Tensor]:
        model = small_net()
        return [r.spearman for r in cascading_parameter_randomization(model, model[:3], images(), generator=generator)]

    first, again, other = run(seeded(5)), run(seeded(5)), run(seeded(6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[-1], other[-1])
    with torch.random.fork_rng():
        torch.manual_seed(3)
        of_global, of_same = run(None), run(None)
        torch.manual_seed(4)
        of_other = run(None)
    assert torch.equal(of_global[-1], of_same[-1])
    assert not torch.equal(of_global[-1], of_other[-1])


# --- The model, and everything else, as before ------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_the_model_is_as_before_at_every_record(order: str) -> None:
    model = small_net()
    with unchanged(model):
        for _ in cascading_parameter_randomization(model, model[:3], images(), order=order):
            with unchanged(model):
                model(images())


def test_the_model_is_as_before_where_the_loop_stops_early() -> None:
    model = small_net()
    with unchanged(model):
        records = cascading_parameter_randomization(model, model[:3], images())
        next(records)
        next(records)
        records.close()


@pytest.mark.parametrize("failing_call", [0, 1, 3])
def test_the_model_is_as_before_after_an_exception(failing_call: int) -> None:
    model, calls = small_net(), iter(range(10))

    def explain(inputs: Tensor) -> Tensor:
        if next(calls) == failing_call:
            torch.rand(1)
            raise RuntimeError("stop")
        return inputs

    with unchanged(model), pytest.raises(RuntimeError, match="stop"):
        list(cascading_parameter_randomization(model, explain, images()))


def test_running_statistics_are_as_before_in_training_mode() -> None:
    model = small_net().train()
    with unchanged(model):
        list(cascading_parameter_randomization(model, model[:3], images()))
    assert model.training


def test_a_parameter_that_is_replaced_comes_back() -> None:
    model = small_net()

    def reset() -> None:
        model[6].weight = nn.Parameter(torch.zeros(5, 16))

    model[6].reset_parameters = reset
    states: list[dict[str, Tensor]] = []
    with unchanged(model):
        list(cascading_parameter_randomization(model, recorder(model, states), images()))
    assert states[-1]["6.weight"].count_nonzero() == 0


def test_every_explanation_finds_the_same_random_state() -> None:
    model, drawn = small_net(), []

    def explain(inputs: Tensor) -> Tensor:
        drawn.append(torch.rand(3).tolist())
        return inputs

    list(cascading_parameter_randomization(model, explain, images()))
    assert len(drawn) == 5
    assert all(numbers == drawn[0] for numbers in drawn)


def test_gradients_are_not_lost() -> None:
    model = small_net()
    model(images()).sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    cam = LayerGradCam(model, model[2])
    list(cascading_parameter_randomization(model, lambda x: cam.attribute(x, target=1), images()))
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), before, strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())


# --- Similarities -----------------------------------------------------------------------------------------------------


def similarity(maps: Tensor, original: Tensor) -> dict[str, list[float]]:
    record = _similarity("layer", maps, original)
    return {name: getattr(record, name).tolist() for name in MEASURES}


def naive_ssim(a: np.ndarray, b: np.ndarray, window: tuple[int, ...]) -> float:
    """SSIM of maps in [0, 1] (Wang et al. 2004) in uniform windows, edges mirrored, population variances."""
    widths = [(size // 2, size // 2) for size in window]
    a, b = (np.pad(x.astype(np.float64), widths, mode="reflect") for x in (a, b))
    c1, c2, values = 0.01**2, 0.03**2, []
    windows = [np.lib.stride_tricks.sliding_window_view(z, window).reshape(-1, np.prod(window)) for z in (a, b)]
    for x, y in zip(*windows, strict=True):
        covariance = ((x - x.mean()) * (y - y.mean())).mean()
        contrast = (2 * covariance + c2) / (x.var() + y.var() + c2)
        values.append((2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1) * contrast)
    return float(np.mean(values))


def test_a_map_is_most_similar_to_itself() -> None:
    maps = torch.randn(2, 1, 9, 8, generator=seeded())
    assert similarity(maps, maps) == {name: pytest.approx([1, 1]) for name in MEASURES}


def test_a_map_is_least_similar_to_its_opposite() -> None:
    maps = torch.randn(1, 1, 9, 8, generator=seeded())
    opposite = similarity(-maps, maps)
    assert opposite["spearman"] == pytest.approx([-1])
    assert opposite["cosine"] == pytest.approx([-1])
    assert opposite["absolute_spearman"] == pytest.approx([1])
    assert opposite["ssim"][0] < -0.5


def test_similarities_by_hand() -> None:
    original = torch.tensor([[[[1.0, 2.0, 3.0, -4.0]]]])
    maps = torch.tensor([[[[2.0, 1.0, 3.0, 4.0]]]])
    # Ranks 2 3 4 1 and 2 1 3 4: 1 − 6 · (0 + 4 + 1 + 9) / (4 · 15).
    # Of absolute values 1 2 3 4 and 2 1 3 4: 1 − 6 · 2 / (4 · 15).
    found = similarity(maps, original)
    assert found["spearman"] == pytest.approx([-0.4])
    assert found["absolute_spearman"] == pytest.approx([0.8])
    assert found["cosine"] == pytest.approx([(2 + 2 + 9 - 16) / 30])


@pytest.mark.parametrize(("size", "window"), [((9, 8), (7, 7)), ((5, 12), (5, 7)), ((4, 4), (3, 3)), ((7, 7), (7, 7))])
def test_structural_similarity_agrees_with_a_naive_loop(size: tuple[int, int], window: tuple[int, int]) -> None:
    maps, original = (torch.rand(2, 1, *size, generator=seeded(seed), dtype=torch.float64) for seed in (1, 2))
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    of_low, of_high = original.amin((2, 3), keepdim=True), original.amax((2, 3), keepdim=True)
    scaled = [((maps - low) / (high - low)).numpy(), ((original - of_low) / (of_high - of_low)).numpy()]
    expected = [naive_ssim(scaled[0][n, 0], scaled[1][n, 0], window) for n in range(2)]
    assert similarity(3 * maps - 1, original)["ssim"] == pytest.approx(expected)


@pytest.mark.parametrize(("size", "window"), [((15,), (7,)), ((4, 9, 5), (3, 7, 5))])
def test_structural_similarity_in_other_numbers_of_dimensions(size: tuple[int, ...], window: tuple[int, ...]) -> None:
    maps, original = (torch.rand(1, 1, *size, generator=seeded(seed), dtype=torch.float64) for seed in (1, 2))
    for x in (maps, original):
        x -= x.min()
        x /= x.max()
    expected = naive_ssim(maps[0, 0].numpy(), original[0, 0].numpy(), window)
    assert similarity(maps, original)["ssim"] == [pytest.approx(expected)]


@pytest.mark.parametrize("side", [7, 300])
def test_rank_correlation_agrees_with_scipy(side: int) -> None:
    # Mostly zeros, as after a ReLU: ranks of 300² pixels, most of them shared, do not fit into 32 bits when summed.
    maps, original = ((torch.randn(1, 1, side, side, generator=seeded(seed)) - 1.3).relu() for seed in (1, 2))
    maps[..., : side // 2] = original[..., : side // 2]
    expected = spearmanr(maps.flatten().numpy(), original.flatten().numpy()).statistic
    assert similarity(maps, original)["spearman"] == [pytest.approx(expected, abs=1e-6)]


def test_the_similarity_does_not_depend_on_the_scale() -> None:
    maps, original = (torch.randn(1, 1, 9, 9, generator=seeded(seed)) for seed in (1, 2))
    tiny = similarity(1e-30 * maps, 1e25 * original)
    assert tiny == {name: pytest.approx(value, abs=1e-4) for name, value in similarity(maps, original).items()}


@pytest.mark.parametrize(("value", "cosine"), [(0.0, 0.0), (2.0, 1 / 2**0.5)])
def test_a_constant_map_is_similar_to_nothing(value: float, cosine: float) -> None:
    original = torch.zeros(1, 1, 8, 8)
    original[..., 4:] = 1
    found = similarity(torch.full((1, 1, 8, 8), value), original)
    assert (found["spearman"], found["absolute_spearman"]) == ([0], [0])
    assert found["cosine"] == [pytest.approx(cosine)]
    assert found["ssim"] == [pytest.approx(naive_ssim(np.zeros((8, 8)), original[0, 0].numpy(), (7, 7)), abs=1e-6)]


def test_one_value_of_equal_sign_and_size_has_no_absolute_ranks() -> None:
    original = torch.ones(1, 1, 4, 4)
    original[..., :2] = -1
    assert similarity(original, original)["absolute_spearman"] == [0]


def test_channels_are_summed_first() -> None:
    model, x = small_net(), images()
    of_channels = list(cascading_parameter_randomization(model, model[:3], x, generator=seeded()))
    of_sum = list(cascading_parameter_randomization(model, lambda t: model[:3](t).sum(1, True), x, generator=seeded()))
    for a, b in zip(of_channels, of_sum, strict=True):
        for name in MEASURES:
            torch.testing.assert_close(getattr(a, name), getattr(b, name))


# --- Perfect and worst: an explanation that is the model's, and one that ignores it -----------------------------------


def test_an_explanation_of_the_input_alone_keeps_its_similarity() -> None:
    model = small_net()
    for record in cascading_parameter_randomization(model, lambda x: x, images()):
        for name in MEASURES:
            torch.testing.assert_close(getattr(record, name), torch.ones(2))


def test_an_explanation_of_the_parameters_loses_its_similarity() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 15, padding=7), nn.Flatten(), nn.Linear(900, 2, bias=False)).requires_grad_(
        False
    )
    maps = lambda x: model[2].weight[:1].reshape(1, 1, 30, 30) + 0 * x  # noqa: E731
    top, bottom = cascading_parameter_randomization(model, maps, torch.zeros(1, 1, 30, 30), generator=seeded())
    for record in (top, bottom):
        assert [abs(getattr(record, name).item()) < 0.15 for name in MEASURES] == [True] * 4


@pytest.mark.parametrize("method", [ScoreCAM, LayerGradCam])
def test_layer_attributions_at_their_own_resolution(method: Any) -> None:
    model, x, states = small_net(), images(), []
    cam = method(model, model[2])

    def explain(inputs: Tensor) -> Tensor:
        states.append(state_of(model))
        return cam.attribute(inputs, target=1)

    (record,) = cascading_parameter_randomization(model, explain, x, layers=["6"])
    # The same, worked out on a copy with the parameters that the explanation found.
    randomized = copy.deepcopy(model)
    randomized.load_state_dict(states[1])
    maps = [method(net, net[2]).attribute(x, target=1).detach() for net in (randomized, model)]
    assert isinstance(record, LayerSimilarity)
    for name in MEASURES:
        assert getattr(record, name).tolist() == similarity(*maps)[name]


# --- What makes no sense ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"order": "sideways"},
            "Expected `order` to be 'top_down' or 'bottom_up' or 'independent', but got 'sideways'",
        ),
        ({"layers": ["nothing"]}, "Expected `layers` to be names of modules of the model, but got 'nothing'"),
        ({"layers": ["2"]}, "Expected `layers` with parameters, but '2' has none"),
        ({"layers": []}, "Expected at least one layer"),
    ],
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cascading_parameter_randomization(small_net(), lambda x: x, images(), **options)


@pytest.mark.parametrize(
    ("explain", "message"),
    [
        (lambda x: x * float("nan"), "Expected finite attributions"),
        (lambda x: x.flatten(1), "Expected `explain` to return one tensor N×C×spatial"),
        (lambda x: (x,), "but got tuple"),
        (lambda x: 0 * x, "nothing can be similar to a constant one, but got 2 constant"),
    ],
)
def test_explanations_that_have_no_value(explain: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(cascading_parameter_randomization(small_net(), explain, images()))


def test_a_map_of_another_shape() -> None:
    calls = iter([images(), images()[..., :-1]])
    with pytest.raises(ValueError, match=r"Expected maps of shape \(2, 1, 12, 9\), but got \(2, 1, 12, 8\)"):
        list(cascading_parameter_randomization(small_net(), lambda _x: next(calls), images()))
