"""Arguments of the wrong kind: every metric says what it expected and what it got, before any forward pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import Attribution
from torch import Tensor

from captum_scorecam import ScoreCAM
from captum_scorecam.metrics import (
    ADCC,
    ROAD,
    SRG,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    Coherency,
    DeletionAUC,
    EnergyPointingGame,
    InsertionAUC,
    IoU,
    LeRFAUC,
    MaxBoxAcc,
    MoRFAUC,
    PointingGame,
    RandomLogit,
    RelevanceRank,
)
from captum_scorecam.metrics import functional as F
from tests.support.small_net import Net, images

N, BOXES = 2, [torch.tensor([[0, 0, 2, 2]])] * 2
MAPS = torch.rand(N, 1, 12, 10, generator=torch.Generator().manual_seed(0))
SCORES = torch.tensor([0.25, 0.75])
CURVES = torch.tensor([[0.25, 0.5], [0.5, 1.0]])
NET = Net()
CAM = ScoreCAM(NET, NET.relu)


@pytest.fixture(autouse=True)
def _no_forward() -> Any:
    NET.forwards = 0
    yield
    assert NET.forwards == 0


# A name → a call with one argument left open, the argument's name, a right value, and what is expected of it.
TENSORS: dict[str, tuple[Callable[[Any], object], str, Tensor]] = {
    "masked_input_scores": (lambda maps: F.masked_input_scores(NET, images(), maps, 0), "attributions", MAPS),
    "insertion": (lambda maps: F.insertion(NET, images(), maps, 0), "attributions", MAPS),
    "deletion": (lambda maps: F.deletion(NET, images(), maps, 0), "attributions", MAPS),
    "morf": (lambda maps: F.morf(NET, images(), maps, 0), "attributions", MAPS),
    "lerf": (lambda maps: F.lerf(NET, images(), maps, 0), "attributions", MAPS),
    "srg": (lambda maps: F.srg(NET, images(), maps, 0), "attributions", MAPS),
    "explanation_map": (lambda maps: F.explanation_map(images(), maps), "attributions", MAPS),
    "road": (lambda maps: F.road(NET, images(), maps, 0), "attributions", MAPS),
    "coherency": (lambda maps: F.coherency(maps, MAPS), "attributions", MAPS),
    "Coherency": (lambda maps: Coherency().update(MAPS, maps), "masked_attributions", MAPS),
    "random_logit": (lambda maps: F.random_logit(maps, MAPS), "attributions", MAPS),
    "RandomLogit": (lambda maps: RandomLogit().update(MAPS, maps), "other_attributions", MAPS),
    "relevance_mass": (lambda maps: F.relevance_mass(maps, BOXES), "attributions", MAPS),
    "relevance_rank": (lambda maps: F.relevance_rank(maps, BOXES), "attributions", MAPS),
    "RelevanceRank": (lambda maps: RelevanceRank().update(maps, BOXES), "attributions", MAPS),
    "iou": (lambda maps: F.iou(maps, BOXES), "attributions", MAPS),
    "IoU": (lambda maps: IoU().update(maps, BOXES), "attributions", MAPS),
    "max_box_acc": (lambda maps: F.max_box_acc(maps, BOXES), "attributions", MAPS),
    "MaxBoxAcc": (lambda maps: MaxBoxAcc().update(maps, BOXES), "attributions", MAPS),
    "adcc": (lambda values: F.adcc(values, SCORES, SCORES), "drops", SCORES),
    "ADCC": (lambda values: ADCC().update(SCORES, values, SCORES), "coherencies", SCORES),
    "energy_pointing_game": (lambda maps: F.energy_pointing_game(maps, BOXES), "attributions", MAPS),
    "pointing_game": (lambda maps: F.pointing_game(maps, BOXES), "attributions", MAPS),
    "EnergyPointingGame": (lambda maps: EnergyPointingGame().update(maps, BOXES), "attributions", MAPS),
    "PointingGame": (lambda maps: PointingGame().update(maps, BOXES), "attributions", MAPS),
    "average_drop, before": (lambda scores: F.average_drop(scores, SCORES), "original_scores", SCORES),
    "average_drop, after": (lambda scores: F.average_drop(SCORES, scores), "masked_scores", SCORES),
    "average_increase": (lambda scores: F.average_increase(scores, SCORES), "original_scores", SCORES),
    "average_gain": (lambda scores: F.average_gain(SCORES, scores), "masked_scores", SCORES),
    "AverageDrop": (lambda scores: AverageDrop().update(scores, SCORES), "original_scores", SCORES),
    "AverageIncrease": (lambda scores: AverageIncrease().update(SCORES, scores), "masked_scores", SCORES),
    "AverageGain": (lambda scores: AverageGain().update(scores, SCORES), "original_scores", SCORES),
    "InsertionAUC": (lambda scores: InsertionAUC().update(torch.tensor([0.0, 1.0]), scores), "scores", CURVES),
    "MoRFAUC": (lambda scores: MoRFAUC().update(torch.tensor([0.0, 1.0]), scores), "scores", CURVES),
    "LeRFAUC": (lambda scores: LeRFAUC().update(torch.tensor([0.0, 1.0]), scores), "scores", CURVES),
    "SRG": (lambda scores: SRG().update(torch.tensor([0.0, 1.0]), CURVES, scores), "lerf", CURVES),
    "ROAD": (lambda scores: ROAD().update(scores, CURVES), "morf", CURVES),
    "DeletionAUC": (lambda fractions: DeletionAUC().update(fractions, CURVES), "fractions", torch.tensor([0.0, 1.0])),
}
MAPS_ONLY: dict[str, tuple[Callable[[Any], object], str, Tensor]] = {
    "sparseness": (F.sparseness, "attributions", MAPS),
    "complexity": (F.complexity, "attributions", MAPS),
    "l1_complexity": (F.l1_complexity, "attributions", MAPS),
}
NO_TENSORS: list[tuple[Callable[[Tensor], Any], str]] = [
    (lambda value: value.numpy(), "but got ndarray; use torch.from_numpy."),
    (lambda value: value.tolist(), "but got list."),
    (lambda _: 0.5, "but got float."),
    (lambda _: None, "but got NoneType."),
    (lambda _: "maps", "but got str."),
]


@pytest.mark.parametrize("metric", TENSORS | MAPS_ONLY)
def test_tensors_only(metric: str) -> None:
    call, name, right = (TENSORS | MAPS_ONLY)[metric]
    for convert, got in NO_TENSORS:
        with pytest.raises(TypeError, match=f"^Expected `{name}` to be a tensor .*{re.escape(got)}$"):
            call(convert(right))


@pytest.mark.parametrize("metric", TENSORS | MAPS_ONLY)
def test_floating_point_only(metric: str) -> None:
    call, name, right = (TENSORS | MAPS_ONLY)[metric]
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"^Expected `{name}` to be a floating-point tensor .*but got {dtype}.$"):
            call(right.to(dtype))


@pytest.mark.parametrize("metric", [name for name in TENSORS | MAPS_ONLY if name != "DeletionAUC"])
def test_finite_values_only(metric: str) -> None:
    call, name, right = (TENSORS | MAPS_ONLY)[metric]
    message = f"^Expected `{name}` to be finite, but got NaN or Inf for 1 of 2 examples, the first for example 1.$"
    for value in (float("nan"), float("inf"), -float("inf")):
        values = right.clone()
        values[1].flatten()[-1:] = value
        with pytest.raises(ValueError, match=message):
            call(values)


@pytest.mark.parametrize("metric", TENSORS)
def test_empty_batches_and_no_batch_dimension(metric: str) -> None:
    call, _, right = TENSORS[metric]
    for value in (right[:0], right[0]):
        with pytest.raises(ValueError, match=r"^Expected .*but got .*\d"):
            call(value)


@pytest.mark.parametrize("metric", [name for name in TENSORS if name not in ("InsertionAUC", "MoRFAUC", "LeRFAUC")])
def test_other_numbers_of_examples(metric: str) -> None:
    call, _, right = TENSORS[metric]
    for value in (right[:1], torch.cat([right, right])):
        with pytest.raises(ValueError, match=r"^Expected .*but got .*\d"):
            call(value)


@pytest.mark.parametrize(
    "metric", ["masked_input_scores", "insertion", "deletion", "morf", "lerf", "srg", "road", "explanation_map"]
)
@pytest.mark.parametrize(
    ("size", "got"), [((13, 10), (2, 1, 13, 10)), ((12, 11), (2, 1, 12, 11)), ((0, 10), (2, 1, 0, 10))]
)
def test_maps_larger_than_the_input_or_empty(metric: str, size: tuple[int, int], got: tuple[int, ...]) -> None:
    message = f"not larger than the input (2, 3, 12, 10), but got shape {got}"
    with pytest.raises(ValueError, match=re.escape(message)):
        TENSORS[metric][0](torch.ones(N, 1, *size))


# --- The other arguments of metrics that run a model ------------------------------------------------------------------


class OfNumber(Attribution):
    def attribute(self, inputs: Tensor, target: Any = None) -> Tensor:  # noqa: ARG002
        return inputs


def explain(x: Tensor) -> Tensor:
    maps: Tensor = CAM.attribute(x, 0)
    return maps


ARRAY_PART = (images(), images().numpy())
NO_INPUTS = "Expected `inputs` to be a tensor or a tuple of tensors, but got "
PIXEL_METRICS = {
    name: getattr(F, name) for name in ("masked_input_scores", "insertion", "deletion", "morf", "lerf", "srg")
}
CAPTUM_METRICS = {name: getattr(F, name) for name in ("infidelity", "sensitivity_max")}
RANDOMIZATION = F.cascading_parameter_randomization

BAD_CALLS: list[tuple[Callable[[], object], type[Exception], str]] = [
    *(
        (call, error, message)
        for f in PIXEL_METRICS.values()
        for call, error, message in [
            (lambda f=f: f(3, images(), MAPS, 0), TypeError, "Expected `forward_func` to be callable, but got 3."),
            (lambda f=f: f(None, images(), MAPS, 0), TypeError, "`forward_func` to be callable, but got None."),
            (lambda f=f: f(NET, images().numpy(), MAPS, 0), TypeError, f"{NO_INPUTS}ndarray; use torch.from_numpy."),
            (lambda f=f: f(NET, [images()], MAPS, 0), TypeError, f"{NO_INPUTS}list."),
            (lambda f=f: f(NET, (), MAPS, 0), TypeError, f"{NO_INPUTS}an empty tuple."),
            (lambda f=f: f(NET, ARRAY_PART, MAPS, 0), TypeError, f"{NO_INPUTS}a tuple with ndarray; use torch"),
            (
                lambda f=f: f(NET, images(), (MAPS.numpy(),), 0),
                TypeError,
                "Expected `attributions` to be a tensor or a tuple of tensors, but got a tuple with ndarray",
            ),
            (
                lambda f=f: f(NET, images().numpy(), MAPS, 0, baselines=torch.zeros_like),
                TypeError,
                f"{NO_INPUTS}ndarray",
            ),
            (lambda f=f: f(NET, images()[:0], MAPS[:0], 0), ValueError, "the same non-zero number of examples"),
            (
                lambda f=f: f(NET, images(), MAPS, 0, baselines=True),
                TypeError,
                "Expected `baselines` to be a number or a tensor for each input, but got True.",
            ),
            (
                lambda f=f: f(NET, images(), MAPS, 0, baselines=lambda x: x > 0),
                TypeError,
                "Expected `baselines` to hold real numbers, but got a tensor of torch.bool.",
            ),
            (
                lambda f=f: f(NET, images(), MAPS, 0, baselines=torch.zeros(3, 12, 10)),
                ValueError,
                "examples that match inputs of shape (2, 3, 12, 10), but got shape (3, 12, 10).",
            ),
        ]
    ),
    *(
        (call, error, message)
        for f in CAPTUM_METRICS.values()
        for call, error, message in [
            (lambda f=f: f(NET, images(), 0), TypeError, "Expected `attribution` to be an Attribution, but got Net."),
            (lambda f=f: f(CAM.attribute, images(), 0), TypeError, "to be an Attribution, but got method."),
            (
                lambda f=f: f(OfNumber(3), images(), 0),
                TypeError,
                "Expected `attribution.forward_func` to be callable, but got 3.",
            ),
            (lambda f=f: f(CAM, images().numpy(), 0), TypeError, f"{NO_INPUTS}ndarray; use torch.from_numpy."),
            (lambda f=f: f(CAM, images().tolist(), 0), TypeError, f"{NO_INPUTS}list."),
            (lambda f=f: f(CAM, ARRAY_PART, 0), TypeError, f"{NO_INPUTS}a tuple with ndarray"),
            (
                lambda f=f: f(CAM, images().to(torch.uint8), 0),
                TypeError,
                "Expected `inputs` to be a floating-point tensor of N examples, but got torch.uint8.",
            ),
            (
                lambda f=f: f(CAM, images() / 0, 0),
                ValueError,
                "Expected `inputs` to be finite, but got NaN or Inf for 2 of 2 examples",
            ),
            (
                lambda f=f: f(CAM, images()[:0], 0),
                ValueError,
                "Expected `inputs` with the same non-zero number of examples, but got shapes [(0, 3, 12, 10)].",
            ),
            (
                lambda f=f: f(CAM, (images(), images()[:1]), 0),
                ValueError,
                "number of examples, but got shapes [(2, 3, 12, 10), (1, 3, 12, 10)].",
            ),
            (
                lambda f=f: f(CAM, images(), 0, generator=7),
                TypeError,
                "Expected `generator` to be a torch.Generator or None, but got 7.",
            ),
            *(
                (
                    lambda f=f, target=target: f(CAM, images(), target),
                    TypeError,
                    "Expected `target` to hold class indices as integers",
                )
                for target in (True, torch.tensor([True, False]), torch.tensor([0.0, 1.0]))
            ),
        ]
    ),
    (
        lambda: F.infidelity(CAM, images(), 0, perturb_func=0.1),  # type: ignore[arg-type]
        TypeError,
        "Expected `perturb_func` to be callable, but got 0.1.",
    ),
    (
        lambda: F.infidelity(CAM, images(), 0, normalize="no"),  # type: ignore[arg-type]
        TypeError,
        "Expected `normalize` to be True or False, but got 'no'.",
    ),
    (
        lambda: RANDOMIZATION(NET.forward, explain, images()),  # type: ignore[arg-type]
        TypeError,
        "Expected `model` to be a module, but got method.",
    ),
    (
        lambda: RANDOMIZATION(NET, MAPS, images()),  # type: ignore[arg-type]
        TypeError,
        "Expected `explain` to be callable, but got tensor(",
    ),
    (
        lambda: RANDOMIZATION(NET, explain, images(), generator=0),  # type: ignore[arg-type]
        TypeError,
        "Expected `generator` to be a torch.Generator or None, but got 0.",
    ),
    (
        lambda: RANDOMIZATION(NET, explain, images(), layers="conv"),
        TypeError,
        "Expected `layers` to be a sequence of names, but got 'conv'.",
    ),
    (
        lambda: RANDOMIZATION(NET, explain, images(), layers=2),  # type: ignore[arg-type]
        TypeError,
        "Expected `layers` to be a sequence of names, but got 2.",
    ),
    (
        lambda: RANDOMIZATION(NET, explain, images(), layers=[NET.conv]),  # type: ignore[list-item]
        ValueError,
        "Expected `layers` to be names of modules of the model, but got Conv2d(",
    ),
    (
        lambda: F.average_drop(SCORES, SCORES, relative="yes"),  # type: ignore[arg-type]
        TypeError,
        "Expected `relative` to be True or False, but got 'yes'.",
    ),
    (lambda: AverageDrop(SCORES), TypeError, "Expected `relative` to be True or False, but got tensor("),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_bad_arguments(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("maps", "got"),
    [
        (lambda x: x.numpy(), "but got ndarray; use torch.from_numpy."),
        (lambda x: (x,), "but got tuple."),
        (lambda x: x > 0, "but got torch.bool."),
    ],
)
def test_what_explain_returns(maps: Callable[[Tensor], Any], got: str) -> None:
    with pytest.raises(TypeError, match=rf"Expected `explain\(inputs\)` to be .* N×C×spatial, {re.escape(got)}"):
        next(RANDOMIZATION(NET, maps, images()))
