"""The sanity check: which layers are randomised, how maps are compared, and that the model is restored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from captum_scorecam.metrics.functional import LayerSimilarity, cascading_parameter_randomization

States = list[dict[str, Tensor]]

ORDERS = ["top_down", "bottom_up", "independent"]
SIMILARITIES = ["spearman", "absolute_spearman", "ssim", "cosine"]


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
        norm = nn.BatchNorm2d(4)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), norm, nn.ReLU(), Scale(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(16, 5),
        )  # fmt: skip
        norm.running_mean = torch.rand(4)
        norm.running_var = torch.rand(4) * 1.5 + 0.5
        nn.init.uniform_(norm.weight)
    return net.eval()


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 12, 9, generator=seeded(1))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def recorder(model: nn.Module, states: States) -> Callable[[Tensor], Tensor]:
    """Returns an explanation by the input itself that records the model's state in each call."""

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
def test_the_randomised_layers_of_each_record(order: Any, names: list[str], expected: list[set[str]]) -> None:
    model = small_net()
    states: States = []
    before = state_of(model)
    records = cascading_parameter_randomization(
        model, recorder(model, states), images(), order=order, generator=seeded()
    )
    assert [record.layer for record in records] == names
    assert all(torch.equal(states[0][name], value) for name, value in before.items())
    for state, wanted in zip(states[1:], expected, strict=True):
        assert {name for name in state if not torch.equal(state[name], before[name])} == wanted


def test_a_cascade_keeps_layers_randomised() -> None:
    model = small_net()
    states: States = []
    list(cascading_parameter_randomization(model, recorder(model, states), images(), generator=seeded()))
    for state in states[2:]:
        assert torch.equal(state["6.weight"], states[1]["6.weight"])


def test_layers_are_initialised_by_pytorch_or_shuffled() -> None:
    model = small_net()
    states: States = []
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
    orders: list[Any] = ["top_down", "bottom_up"]
    for order in orders:
        model = small_net()
        states: States = []
        list(
            cascading_parameter_randomization(model, recorder(model, states), images(), order=order, generator=seeded())
        )
        lasts.append(states[-1])
    assert all(torch.equal(lasts[0][name], lasts[1][name]) for name in lasts[0])


def test_chosen_layers_with_all_their_submodules() -> None:
    model = nn.Sequential()
    states: States = []
    model.stem, model.head = small_net()[:2], small_net()[4:]
    before = state_of(model)
    records = cascading_parameter_randomization(
        model, recorder(model, states), images(), layers=["stem", "head.6"], generator=seeded()
    )
    assert [record.layer for record in records] == ["head.6", "stem"]
    differing = [{name for name in state if not torch.equal(state[name], before[name])} for state in states[1:]]
    assert differing[0] == {"head.6.weight", "head.6.bias"}
    assert differing[1] == differing[0] | {f"stem.{name}" for name in CONV | NORM}


def test_a_layer_may_have_two_names() -> None:
    states: States = []
    model = small_net()
    model.add_module("head", model.get_submodule("6"))  # the usual wrapper also names a part of the net
    explain = recorder(model, states)
    (record,) = cascading_parameter_randomization(model, explain, images(), layers=["head"], generator=seeded())
    assert record.layer == "head"
    assert not torch.equal(states[0]["6.weight"], states[1]["6.weight"])


def test_a_model_of_one_layer() -> None:
    model = nn.Conv2d(3, 2, 3)
    records = cascading_parameter_randomization(model, lambda x: model(x), images(), generator=seeded())
    assert [record.layer for record in records] == ["Conv2d"]


def test_the_generator_seeds_the_layers() -> None:
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


# --- The model is restored --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_the_model_is_restored_at_every_record(order: Any) -> None:
    model = small_net()
    with unchanged(model):
        for _ in cascading_parameter_randomization(model, model[:3], images(), order=order):
            with unchanged(model):
                model(images())


def test_the_model_is_restored_if_the_loop_stops_early() -> None:
    model = small_net()
    with unchanged(model):
        for record in cascading_parameter_randomization(model, model[:3], images()):
            if record.layer == "3":
                break


@pytest.mark.parametrize("failing_call", [0, 1, 3])
def test_the_model_is_restored_after_an_exception(failing_call: int) -> None:
    model, calls = small_net(), iter(range(10))

    def explain(inputs: Tensor) -> Tensor:
        if next(calls) == failing_call:
            torch.rand(1)
            raise RuntimeError("stop")
        return inputs

    with unchanged(model), pytest.raises(RuntimeError, match="stop"):
        list(cascading_parameter_randomization(model, explain, images()))


def test_running_statistics_are_restored_in_training_mode() -> None:
    model = small_net().train()
    with unchanged(model):
        list(cascading_parameter_randomization(model, model[:3], images()))
    assert model.training


def test_a_replaced_parameter_is_restored() -> None:
    model = small_net()

    class Replacing(nn.Linear):
        def reset_parameters(self) -> None:
            self.weight = nn.Parameter(torch.zeros(5, 16))

    model[6].__class__ = Replacing
    states: States = []
    with unchanged(model):
        list(cascading_parameter_randomization(model, recorder(model, states), images()))
    assert states[-1]["6.weight"].count_nonzero() == 0


def test_every_explanation_sees_the_same_random_state() -> None:
    model = small_net()
    drawn: list[list[float]] = []

    def explain(inputs: Tensor) -> Tensor:
        drawn.append(torch.rand(3).tolist())
        return inputs

    list(cascading_parameter_randomization(model, explain, images()))
    assert len(drawn) == 5
    assert all(numbers == drawn[0] for numbers in drawn)


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_gradients_are_kept() -> None:
    model = small_net()
    model(images()).sum().backward()
    before = gradients(model)
    cam = LayerGradCam(model, model[2])
    list(cascading_parameter_randomization(model, lambda x: cam.attribute(x, target=1), images()))
    assert all(torch.equal(after, grad) for after, grad in zip(gradients(model), before, strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())


# --- Similarities -----------------------------------------------------------------------------------------------------


def similarity(maps: Tensor, original: Tensor) -> dict[str, list[float]]:
    """Returns the similarities of an explanation that changes from `original` to `maps`."""
    explanations = iter([original, maps])
    (record,) = cascading_parameter_randomization(nn.Linear(1, 1), lambda _: next(explanations), original)
    return {name: getattr(record, name).tolist() for name in SIMILARITIES}


def test_a_map_is_most_similar_to_itself() -> None:
    maps = torch.randn(2, 1, 9, 8, generator=seeded())
    assert similarity(maps, maps) == {name: pytest.approx([1, 1]) for name in SIMILARITIES}


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


def test_channels_are_summed_first() -> None:
    model, x = small_net(), images()
    per_channel = list(cascading_parameter_randomization(model, model[:3], x, generator=seeded()))
    summed = list(cascading_parameter_randomization(model, lambda t: model[:3](t).sum(1, True), x, generator=seeded()))
    for a, b in zip(per_channel, summed, strict=True):
        for name in SIMILARITIES:
            torch.testing.assert_close(getattr(a, name), getattr(b, name))


# --- Perfect and worst explanations: the model's parameters, and the input alone --------------------------------------


def test_an_explanation_that_ignores_the_model_stays_similar() -> None:
    model = small_net()
    for record in cascading_parameter_randomization(model, lambda x: x, images()):
        for name in SIMILARITIES:
            torch.testing.assert_close(getattr(record, name), torch.ones(2))


def test_an_explanation_by_the_parameters_becomes_dissimilar() -> None:
    head = nn.Linear(900, 2, bias=False)
    model = nn.Sequential(nn.Conv2d(1, 1, 15, padding=7), nn.Flatten(), head).requires_grad_(False)

    def explain(inputs: Tensor) -> Tensor:
        return head.weight[:1].reshape(1, 1, 30, 30) + 0 * inputs

    top, bottom = cascading_parameter_randomization(model, explain, torch.zeros(1, 1, 30, 30), generator=seeded())
    for record in (top, bottom):
        assert [abs(getattr(record, name).item()) < 0.15 for name in SIMILARITIES] == [True] * 4


@pytest.mark.parametrize("method", [ScoreCAM, LayerGradCam])
def test_layer_attributions_at_their_own_resolution(method: Any) -> None:
    model, x = small_net(), images()
    states: States = []
    cam = method(model, model[2])

    def explain(inputs: Tensor) -> Tensor:
        states.append(state_of(model))
        maps: Tensor = cam.attribute(inputs, target=1)
        return maps

    (record,) = cascading_parameter_randomization(model, explain, x, layers=["6"])
    # The same on a copy of the model with the parameters that the explanation saw.
    randomized = copy.deepcopy(model)
    randomized.load_state_dict(states[1])
    maps = [method(net, net[2]).attribute(x, target=1).detach() for net in (randomized, model)]
    assert isinstance(record, LayerSimilarity)
    for name in SIMILARITIES:
        assert getattr(record, name).tolist() == similarity(*maps)[name]


# --- Wrong explanations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("explain", "message"),
    [
        (
            lambda x: x * float("nan"),
            "Expected `explain\\(inputs\\)` to be finite, but got NaN or Inf for 2 of 2 examples",
        ),
        (lambda x: x.flatten(1), r"`explain\(inputs\)` to be attributions N×C×spatial .* but got shape \(2, 324\)"),
        (lambda x: x[:, 0], r"N×C×spatial for `inputs` of shape \(2, 3, 12, 9\), but got shape \(2, 12, 9\)"),
        (lambda x: x[0], r"N×C×spatial for `inputs` of shape \(2, 3, 12, 9\), but got shape \(3, 12, 9\)"),
        (lambda x: x[:0], r"N×C×spatial for `inputs` .* but got shape \(0, 3, 12, 9\)"),
        (lambda x: 0 * x, "similarity to a constant map is undefined, but 2 are constant"),
    ],
)
def test_malformed_explanations(explain: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(cascading_parameter_randomization(small_net(), explain, images()))


def test_maps_of_different_shapes() -> None:
    calls = iter([images(), images()[..., :-1]])
    with pytest.raises(ValueError, match=r"Expected maps of shape \(2, 1, 12, 9\), but got \(2, 1, 12, 8\)"):
        list(cascading_parameter_randomization(small_net(), lambda _x: next(calls), images()))
