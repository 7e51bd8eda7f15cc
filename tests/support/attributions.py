"""The configurations of every attribution in the contract suite, each with its naive reference."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

import pytest
import torch
from captum.attr import Attribution, LayerGradCam
from torch import Generator, Tensor, nn

from captum_scorecam import (
    RISE,
    ChannelScores,
    InputSpaceAttribution,
    LayerGradCamPlusPlus,
    MeaningfulPerturbation,
    ScoreCAM,
)
from captum_scorecam.budget.within_budget import score_within_budget
from captum_scorecam.masking.channel_masks import ChannelMasks
from tests.naive_reference import naive_score_cam
from tests.support.naive_meaningful_perturbation import naive_meaningful_perturbation
from tests.support.naive_methods import (
    Forward,
    Tensors,
    as_tuple,
    in_input_space,
    naive_grad_cam_plus_plus,
    naive_rise_terms,
)
from tests.support.small_net import assert_close

Reference = Callable[[Forward, nn.Module, Tensors, Any, Any, dict[str, Any]], Tensors]


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def options_of(attribution: type[Attribution]) -> list[str]:
    """The names of the constructor's keyword-only options."""
    return [name for name, each in signature(attribution).parameters.items() if each.kind is Parameter.KEYWORD_ONLY]


@dataclass(frozen=True)
class Method:
    """An attribution in one configuration.

    Attributes:
        attribution: Its class.
        reference: Its naive twin. Takes the forward function, the layer, the inputs, the target, the additional
            arguments and all options.
        options: Of the constructor.
        call: Of each call.
        entry: The method that is called.
        over: The layer attribution inside an InputSpaceAttribution, whose options these are.
        seed: Of the generator that the call is given; None for PyTorch's global one.
        rounding: The relative difference from the reference that float64 allows.
        gradients: Whether it goes back through the model.
        captums: Whether Captum does the work, so that Captum's guarantees apply.
    """

    attribution: type[Attribution]
    reference: Reference
    options: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)
    entry: str = "attribute"
    over: type[Attribution] | None = None
    seed: int | None = None
    rounding: float = 1e-9
    gradients: bool = False
    captums: bool = False

    @property
    def of_layer(self) -> bool:
        """Whether it takes a layer."""
        return "layer" in signature(self.over or self.attribution).parameters

    @property
    def in_input_space(self) -> bool:
        """Whether the maps have the inputs' shape (their spatial shape for several targets)."""
        return self.over is not None or not self.of_layer

    @property
    def of_several_targets(self) -> bool:
        """Whether the call takes a sequence of targets."""
        return "targets" in signature(getattr(self.over or self.attribution, self.entry)).parameters

    @property
    def constructor_options(self) -> list[str]:
        return options_of(self.over or self.attribution)

    def takes(self, name: str) -> bool:
        """Whether the call has a parameter of that name."""
        return name in signature(getattr(self.over or self.attribution, self.entry)).parameters

    @property
    def one_row_each(self) -> dict[str, Any]:
        """The option of the call that makes the smallest chunks, where the method has chunks."""
        return {"perturbations_per_eval": 1} if self.takes("perturbations_per_eval") else {}

    def made(self, forward_func: Forward, layer: nn.Module, **options: Any) -> Any:
        """The attribution, with `options` in addition to the configuration's."""
        options = {**self.options, **options}
        given = (forward_func, layer) if self.of_layer else (forward_func,)
        inner = (self.over or self.attribution)(*given, **options)
        return inner if self.over is None else InputSpaceAttribution(inner)

    def arguments(self, target: Any, **call: Any) -> dict[str, Any]:
        """The keyword arguments of a call."""
        targets = {"targets": [target, target]} if self.of_several_targets else {"target": target}
        return {**targets, **self.call, **self.drawn(), **call}

    def drawn(self) -> dict[str, Any]:
        """A new generator for the call, where it is given one."""
        return {} if self.seed is None else {"generator": seeded(self.seed)}

    def explain(
        self, forward_func: Forward, layer: nn.Module, inputs: Any, target: Any = None, **options: Any
    ) -> Tensors:
        """What the method returns, as a tuple of tensors; `options` are the constructor's or the call's."""
        own = {name: value for name, value in options.items() if name in self.constructor_options}
        call = {name: value for name, value in options.items() if name not in own}
        attribution = self.made(forward_func, layer, **own)
        return flat(getattr(attribution, self.entry)(inputs, **self.arguments(target, **call)))

    def expected(
        self, forward_func: Forward, layer: nn.Module, inputs: Any, target: Any = None, **options: Any
    ) -> Tensors:
        """What the naive reference returns for it."""
        every = {**self.options, **self.call, **self.drawn(), **options}
        additional = every.pop("additional_forward_args", None)
        return self.reference(forward_func, layer, as_tuple(inputs), target, additional, every)

    def assert_close(self, actual: Tensors, expected: Tensors, tolerance: float | None = None) -> None:
        """Equal to `tolerance`, relative to the largest value of each tensor."""
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other, self.rounding if tolerance is None else tolerance)


def flat(value: Any) -> Tensors:
    """Tensors, tuples of them and nested tuples as one tuple of tensors; channel scores as their maps."""
    if isinstance(value, ChannelScores):
        return (value.maps("increase", relu_attributions=False),)
    return (value,) if isinstance(value, Tensor) else tuple(tensor for each in value for tensor in flat(each))


# --- The naive references --------------------------------------------------------------------------------------------


def score_cam_reference(
    forward_func: Forward, layer: nn.Module, inputs: Tensors, target: Any, additional: Any, options: dict[str, Any]
) -> Tensors:
    exact = {name: value for name, value in options.items() if name != "tolerance"}
    return as_tuple(naive_score_cam(forward_func, layer, inputs, target, additional, **exact))


def channel_scores_reference(
    forward_func: Forward, layer: nn.Module, inputs: Tensors, target: Any, additional: Any, options: dict[str, Any]
) -> Tensors:
    """The maps that `flat` makes of channel scores."""
    options = {**options, "channel_weighting": "increase", "relu_attributions": False}
    return score_cam_reference(forward_func, layer, inputs, target, additional, options)


def budget_reference(
    forward_func: Forward, layer: nn.Module, inputs: Tensors, target: Any, additional: Any, options: dict[str, Any]
) -> Tensors:
    """Map and error from the naive reference's scores of a few masks, which its maps of single channels show."""
    own = {name: value for name, value in options.items() if name not in ("max_forwards", "relu_attributions")}

    def channels(**other: Any) -> Tensor:
        every = {**own, "relu_attributions": False, "attr_dim_summation": False, **other}
        (maps,) = as_tuple(naive_score_cam(forward_func, layer, inputs, target, additional, **every))
        precise: Tensor = maps.double()
        return precise

    maps = channels(channel_weighting="score", score=torch.ones_like)
    largest = maps.flatten(2).abs().argmax(2, keepdim=True)

    def scores(**other: Any) -> Tensor:
        values: Tensor = channels(**other).flatten(2).gather(2, largest) / maps.flatten(2).gather(2, largest)
        return values.nan_to_num()  # 0/0 of constant channels

    masks = ChannelMasks.from_activations(maps, tuple(tuple(x.shape[2:]) for x in inputs))
    masked = scores(channel_weighting="score")
    unmasked = scores(channel_weighting="score", baselines=inputs)[:, masks.index.max(0).values >= 0].amax(1)
    of_masks = masks.sums(masked) / masks.n_sharing.unsqueeze(1)  # channels that share a mask have equal scores
    found = score_within_budget(
        ChannelScores(maps, masks, 0 * of_masks, unmasked),
        lambda chosen: of_masks[chosen.rows],  # type: ignore[attr-defined]
        masks.examples.bincount().clamp(max=options["max_forwards"]),
        "softmax",
        bounded=False,
    )
    return found.maps(relu_attributions=options.get("relu_attributions", True)), found.standard_errors()


def several_targets(reference: Reference) -> Reference:
    """The same target twice, as `Method.arguments` gives it."""

    def stacked(forward_func: Forward, layer: nn.Module, inputs: Tensors, *given: Any) -> Tensors:
        return tuple(torch.cat([m[:, :1], m[:, :1]], dim=1) for m in reference(forward_func, layer, inputs, *given))

    return stacked


def input_space_reference(reference: Reference) -> Reference:
    def spread(forward_func: Forward, layer: nn.Module, inputs: Tensors, *given: Any) -> Tensors:
        (layer_map,) = reference(forward_func, layer, inputs, *given)
        return in_input_space(layer_map, inputs)

    return spread


def layer_grad_cam_reference(
    forward_func: Forward, layer: nn.Module, inputs: Tensors, target: Any, additional: Any, options: dict[str, Any]
) -> Tensors:
    return (LayerGradCam(forward_func, layer).attribute(inputs, target, additional, **options).detach(),)


def rise_terms(
    forward_func: Forward, inputs: Tensors, target: Any, additional: Any, options: dict[str, Any]
) -> list[Tensor]:
    """The masks are drawn as the package draws them: first the grids, then the shifts."""
    n_masks, cells, rank = options["n_masks"], options.get("grid_size", 7), inputs[0].dim() - 2
    p, generator = options.get("keep_probability", 0.5), options.get("generator")
    with torch.random.fork_rng():
        grids = torch.rand(n_masks, *[cells] * rank, generator=generator, dtype=torch.float32) < p
        shifts = torch.rand(n_masks, rank, generator=generator, dtype=torch.float32)
    blank, score = options.get("baselines"), options.get("score", "probability")
    return naive_rise_terms(forward_func, inputs, target, grids, shifts, p, blank, additional, score)


def rise_reference(
    forward_func: Forward, _: nn.Module, inputs: Tensors, target: Any, additional: Any, options: dict[str, Any]
) -> Tensors:
    terms = rise_terms(forward_func, inputs, target, additional, options)
    return tuple(term.mean(0).expand_as(x) for term, x in zip(terms, inputs, strict=True))


def rise_reference_with_error(
    forward_func: Forward, _: nn.Module, inputs: Tensors, target: Any, additional: Any, options: dict[str, Any]
) -> Tensors:
    terms = rise_terms(forward_func, inputs, target, additional, options)
    maps = [term.mean(0).expand_as(x) for term, x in zip(terms, inputs, strict=True)]
    errors = [(term.std(0) / len(term) ** 0.5).expand_as(x) for term, x in zip(terms, inputs, strict=True)]
    return (*maps, *errors)


def mask_reference(
    forward_func: Forward, _: nn.Module, inputs: Tensors, target: Any, additional: Any, options: dict[str, Any]
) -> Tensors:
    maps = naive_meaningful_perturbation(forward_func, inputs, target, additional, **options)
    return tuple(m.expand_as(x) for m, x in zip(maps, inputs, strict=True))


def grad_cam_plus_plus_reference(
    forward_func: Forward, layer: nn.Module, inputs: Tensors, target: Any, additional: Any, options: dict[str, Any]
) -> Tensors:
    relu = options.get("relu_attributions", False)
    own = {name: value for name, value in options.items() if name != "relu_attributions"}
    maps = naive_grad_cam_plus_plus(forward_func, layer, inputs, target, additional, **own)
    return (maps.relu() if relu else maps,)


# --- The list --------------------------------------------------------------------------------------------------------

FEW_MASKS: dict[str, Any] = {"n_masks": 9}
FEW_STEPS: dict[str, Any] = {"n_iterations": 4, "grid_size": 4, "mask_blur": 1.0}
OF_MASK: dict[str, Any] = {"gradients": True, "rounding": 1e-6}  # Adam divides by the gradient, which may be near zero
PROBABILITY: dict[str, Any] = {"score": "probability", "channel_weighting": "score"}

METHODS: dict[str, Method] = {
    "ScoreCAM": Method(ScoreCAM, score_cam_reference),
    "ScoreCAM, probability": Method(ScoreCAM, score_cam_reference, PROBABILITY),
    "ScoreCAM, increase": Method(
        ScoreCAM, score_cam_reference, {"channel_weighting": "increase"}, {"baselines": 0.5, "relu_attributions": False}
    ),
    "ScoreCAM, max_channels": Method(ScoreCAM, score_cam_reference, {"max_channels": 4}),
    "ScoreCAM, tolerance": Method(ScoreCAM, score_cam_reference, {**PROBABILITY, "tolerance": 1e-3}),
    "ScoreCAM, layer input": Method(
        ScoreCAM, score_cam_reference, call={"attribute_to_layer_input": True, "relu_attributions": False}
    ),
    "ScoreCAM, several targets": Method(
        ScoreCAM, several_targets(score_cam_reference), {"score": torch.sigmoid}, entry="attribute_targets"
    ),
    "ScoreCAM, channel scores": Method(ScoreCAM, several_targets(channel_scores_reference), entry="channel_scores"),
    "ScoreCAM, max_forwards": Method(
        ScoreCAM, budget_reference, {"max_forwards": 3}, entry="attribute_with_error", rounding=1e-6
    ),
    "RISE": Method(RISE, rise_reference, FEW_MASKS),
    "RISE, output": Method(RISE, rise_reference, {**FEW_MASKS, "score": "output"}, {"baselines": -0.5}),
    "RISE, several targets": Method(RISE, several_targets(rise_reference), FEW_MASKS, entry="attribute_targets"),
    "RISE, with error": Method(RISE, rise_reference_with_error, FEW_MASKS, entry="attribute_with_error"),
    "Mask": Method(MeaningfulPerturbation, mask_reference, FEW_STEPS, **OF_MASK),
    "Mask, baseline": Method(
        MeaningfulPerturbation,
        mask_reference,
        {**FEW_STEPS, "perturbation": "baseline", "score": "output"},
        {"baselines": 0.5},
        **OF_MASK,
    ),
    "Mask, noise": Method(MeaningfulPerturbation, mask_reference, {**FEW_STEPS, "perturbation": "noise"}, **OF_MASK),
    "Grad-CAM++": Method(LayerGradCamPlusPlus, grad_cam_plus_plus_reference, gradients=True),
    "Grad-CAM++, probability": Method(
        LayerGradCamPlusPlus,
        grad_cam_plus_plus_reference,
        {"score": "probability"},
        {"relu_attributions": True},
        gradients=True,
    ),
    "Grad-CAM++, layer input": Method(
        LayerGradCamPlusPlus, grad_cam_plus_plus_reference, call={"attribute_to_layer_input": True}, gradients=True
    ),
    "input space of ScoreCAM": Method(InputSpaceAttribution, input_space_reference(score_cam_reference), over=ScoreCAM),
    "input space of Grad-CAM++": Method(
        InputSpaceAttribution,
        input_space_reference(grad_cam_plus_plus_reference),
        over=LayerGradCamPlusPlus,
        gradients=True,
    ),
    "input space of Captum's Grad-CAM": Method(
        InputSpaceAttribution,
        input_space_reference(layer_grad_cam_reference),
        over=LayerGradCam,
        gradients=True,
        captums=True,
    ),
}
OURS = {name: method for name, method in METHODS.items() if not method.captums}
# One configuration of each attribution, and of each way in; the quick suite runs the others in a few tests only.
QUICK = {
    "ScoreCAM",
    "ScoreCAM, several targets",
    "ScoreCAM, max_forwards",
    "RISE",
    "Mask",
    "Grad-CAM++",
    "input space of ScoreCAM",
    "input space of Captum's Grad-CAM",
}


def each(
    methods: dict[str, Method], *where: Callable[[Method], bool], quick: Container[str] = QUICK
) -> pytest.MarkDecorator:
    """Parametrises a test over the methods for which every condition holds; those that aren't `quick` are slow."""
    return pytest.mark.parametrize(
        "method",
        [
            pytest.param(method, id=name, marks=() if name in quick else pytest.mark.slow)
            for name, method in methods.items()
            if all(condition(method) for condition in where)
        ],
    )
