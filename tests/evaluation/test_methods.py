"""The methods by name: each returns the maps that its class returns, for several classes at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from captum_scorecam import RISE, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM, vit_activation_maps
from captum_scorecam.evaluation import (
    METHODS,
    ExplanationRequest,
    Method,
    MethodOptions,
    MethodRun,
    chosen_methods,
    layer_to_explain,
    methods,
    register_method,
    run_method,
)
from captum_scorecam.evaluation.method_choice import check_options_of_run, warn_of_unused_options
from captum_scorecam.models import find_layer, load_classifier
from tests.support import colour_classifier
from tests.support.tiny_classifier import picture

OF_PLUGIN = Method(lambda request: (request.inputs, MethodRun(1)))
OPTIONS = MethodOptions(n_masks=40, seed=3, mask_iterations=15, perturbations_per_eval=8)
RED_SQUARE, GREEN_SQUARE = (slice(0, 16), slice(0, 16)), (slice(24, 32), slice(24, 32))


def request_of_colours(options: MethodOptions = OPTIONS) -> ExplanationRequest:
    classifier = load_classifier("tests.support.colour_classifier:with_names")
    inputs = classifier.inputs(colour_classifier.red_and_green())
    return ExplanationRequest(classifier.model, find_layer(classifier.model, inputs), inputs, [0, 1], options=options)


def request_of_tokens() -> ExplanationRequest:
    model = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    inputs = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    return ExplanationRequest(model, find_layer(model, inputs), inputs, [0, 2], options=OPTIONS)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(OPTIONS.seed)


DIRECT_CALLS: dict[str, Callable[[Any, Tensor, int], Any]] = {
    "grad_cam": lambda model, x, target: LayerGradCam(model, model.features).attribute(
        x, target, relu_attributions=True
    ),
    "grad_cam_plus_plus": lambda model, x, target: LayerGradCamPlusPlus(model, model.features).attribute(
        x, target, relu_attributions=True
    ),
    "score_cam": lambda model, x, target: ScoreCAM(model, model.features).attribute(x, target),
    "rise": lambda model, x, target: RISE(model, n_masks=40).attribute(x, target, generator=generator())[:, :1],
    "mask": lambda model, x, target: MeaningfulPerturbation(model, n_iterations=15).attribute(
        x, target, generator=generator()
    )[:, :1],
}


def test_seconds_include_the_wait_for_the_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, upsampled = [0.0], methods.upsampled

    def waiting(maps: Tensor, request: ExplanationRequest) -> Tensor:
        clock[0] += 5  # as to copy from a GPU that still computes
        return upsampled(maps, request)

    monkeypatch.setattr(methods, "upsampled", waiting)
    monkeypatch.setattr("captum_scorecam.evaluation.methods.time.perf_counter", lambda: clock[0])
    assert run_method("grad_cam", request_of_colours())[1].seconds == 5


@pytest.mark.parametrize("name", METHODS)
def test_the_maps_are_those_of_one_class_at_a_time(name: str) -> None:
    request = request_of_colours()
    maps, run = run_method(name, request)
    for target, found in zip(request.targets, maps, strict=True):
        expected = DIRECT_CALLS[name](request.model, request.inputs.clone().requires_grad_(), target).detach()
        torch.testing.assert_close(
            found, LayerAttribution.interpolate(expected, (32, 32), "bilinear")[0, 0], atol=1e-5, rtol=1e-4
        )
    assert run.forwards == {"grad_cam": 1, "grad_cam_plus_plus": 1, "score_cam": 2, "rise": 40, "mask": 15}[name]
    assert (run.channels is not None) == (name == "score_cam")


@pytest.mark.parametrize("name", METHODS)
def test_the_map_of_a_colour_is_higher_on_its_square_than_that_of_the_other(name: str) -> None:
    (red, green), _ = run_method(name, request_of_colours(MethodOptions(n_masks=400, mask_iterations=15)))
    for square, own, other in ((RED_SQUARE, red, green), (GREEN_SQUARE, green, red)):
        assert own[square].mean() / own.mean() > 1.1 * other[square].mean() / other.mean()


@pytest.mark.parametrize("name", ["rise", "mask"])
def test_the_seed_alone_governs_chance(name: str) -> None:
    first, _ = run_method(name, request_of_colours())
    torch.rand(1)
    again, _ = run_method(name, request_of_colours())
    other, _ = run_method(name, request_of_colours(replace(OPTIONS, seed=4)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", [*METHODS, "captum:LayerGradCam", "captum:Saliency", "captum:FeatureAblation"])
def test_a_model_that_overwrites_its_input_is_explained_as_one_that_does_not(name: str) -> None:
    class Overwriting(colour_classifier.ColourClassifier):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs.mul_(0.5))

    class Careful(colour_classifier.ColourClassifier):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs * 0.5)

    (method,), request = chosen_methods([name]).values(), request_of_colours()
    found, expected = (
        run_method(method, replace(request, model=model, layer=find_layer(model, request.inputs)))[0]
        for model in (Overwriting(), Careful())
    )
    assert torch.equal(found, expected)
    assert torch.equal(request.inputs, request_of_colours().inputs)


def test_grad_cam_of_tokens_is_grad_cams_formula_on_maps_of_the_tokens() -> None:
    request = request_of_tokens()
    found, run = run_method("grad_cam", request)
    assert run.forwards == 2
    for target, of_target in zip(request.targets, found, strict=True):
        tokens: list[Tensor] = []
        hook = request.layer.module.register_forward_hook(lambda *call, tokens=tokens: tokens.append(call[2]))
        gradient = torch.autograd.grad(request.model(request.inputs)[0, target], tokens)[0]
        hook.remove()
        weights = maps_of(gradient).mean((1, 2), keepdim=True)
        expected = F.relu((weights * maps_of(tokens[0])).sum(0)).detach()
        assert expected.max() > 0
        expected = F.interpolate(expected[None, None], (32, 32), mode="bilinear")[0, 0]
        torch.testing.assert_close(of_target, expected, atol=1e-6, rtol=1e-4)


def maps_of(tokens: Tensor) -> Tensor:
    return tokens[0, 1:].T.reshape(8, 4, 4)


@pytest.mark.parametrize(("name", "method"), [("grad_cam_plus_plus", LayerGradCamPlusPlus), ("score_cam", ScoreCAM)])
def test_layer_methods_take_tokens_as_maps(name: str, method: Any) -> None:
    request = request_of_tokens()
    found, _ = run_method(name, request)
    by_class = method(request.model, request.layer.module, activation_transform=vit_activation_maps)
    for target, of_target in zip(request.targets, found, strict=True):
        expected = by_class.attribute(request.inputs, target, relu_attributions=True)
        assert expected.max() > 0
        expected = LayerAttribution.interpolate(expected, (32, 32), "bilinear")[0, 0]
        torch.testing.assert_close(of_target, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["rise", "mask"])
def test_a_model_that_returns_probabilities_gets_no_second_softmax(name: str) -> None:
    maps = []
    for factory in ("with_names", "with_probabilities"):
        classifier = load_classifier(f"tests.support.colour_classifier:{factory}")
        inputs = classifier.inputs(colour_classifier.red_and_green())
        prediction = classifier.predict(inputs)
        assert float(prediction.probabilities[0]) == pytest.approx(0.93624, abs=1e-5)
        layer = find_layer(classifier.model, inputs)
        maps.append(
            run_method(name, ExplanationRequest(classifier.model, layer, inputs, [0], prediction.score, OPTIONS))[0]
        )
    torch.testing.assert_close(maps[0], maps[1])


def test_score_cam_weighs_the_probabilities_that_a_model_returns() -> None:
    classifier = load_classifier("tests.support.colour_classifier:with_probabilities")
    inputs = classifier.inputs(colour_classifier.red_and_green())
    layer = find_layer(classifier.model, inputs)
    found, _ = run_method("score_cam", ExplanationRequest(classifier.model, layer, inputs, [0], score="output"))
    score_cam = ScoreCAM(classifier.model, layer.module, channel_weighting="score")
    expected = score_cam.attribute(inputs, 0, attribute_to_layer_input=layer.of_input)
    assert isinstance(expected, Tensor)
    assert expected.max() > 0
    expected = LayerAttribution.interpolate(expected, tuple(inputs.shape[2:]), "bilinear")
    torch.testing.assert_close(found, expected[0])


def test_score_cam_takes_the_softmax_of_outputs_that_are_no_probabilities() -> None:
    classifier = replace(load_classifier("tests.support.colour_classifier:with_names"), score="output")
    inputs = classifier.inputs(colour_classifier.red_and_green())
    layer = find_layer(classifier.model, inputs)
    assert not classifier.predict(inputs).has_probabilities
    request = ExplanationRequest(classifier.model, layer, inputs, [0], "output", unbounded=True)
    expected = ScoreCAM(classifier.model, layer.module).attribute(inputs, 0, attribute_to_layer_input=layer.of_input)
    expected = LayerAttribution.interpolate(expected, tuple(inputs.shape[2:]), "bilinear")
    torch.testing.assert_close(run_method("score_cam", request)[0], expected[0])


def request_of_pictures(**options: Any) -> ExplanationRequest:
    classifier = load_classifier("tests.support.tiny_classifier:tiny")
    inputs = classifier.inputs(picture(0)[0])  # with four masks
    layer = find_layer(classifier.model, inputs)
    return ExplanationRequest(classifier.model, layer, inputs, [0, 2], options=MethodOptions(**options))


@pytest.mark.parametrize("with_errors", [False, True])
def test_score_cam_keeps_to_its_budget(with_errors: bool) -> None:
    request = request_of_pictures(max_forwards=2, with_errors=with_errors)
    maps, run = run_method("score_cam", request)
    assert run.forwards == 2
    assert run.channels is not None
    assert run.channels.omitted == 2
    score_cam = ScoreCAM(request.model, request.layer.module, max_forwards=2)
    expected = score_cam.attribute_targets(request.inputs, request.targets)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(maps, LayerAttribution.interpolate(expected, (21, 21), "bilinear")[0])
    assert (run.errors is not None) == with_errors
    if run.errors is not None:
        assert run.errors.shape == maps.shape
        largest = run.errors.flatten(1).amax(1) / maps.flatten(1).amax(1)
        torch.testing.assert_close(largest, torch.tensor(run.channels.errors), rtol=0.1, atol=0)  # as both are resized


def test_errors_are_those_of_score_cam() -> None:
    request = request_of_pictures(max_forwards=2, with_errors=True)
    one_class = replace(request, targets=[2])
    score_cam = ScoreCAM(request.model, request.layer.module, max_forwards=2)
    errors = score_cam.attribute_with_error(request.inputs, 2)[1]
    assert isinstance(errors, Tensor)
    found = run_method("score_cam", one_class)[1].errors
    assert found is not None
    torch.testing.assert_close(found, LayerAttribution.interpolate(errors, (21, 21), "bilinear")[0])


def test_score_cam_stops_at_its_error() -> None:
    _, loose = run_method("score_cam", request_of_pictures(error=0.99))
    _, tight = run_method("score_cam", request_of_pictures(error=1e-6))
    assert tight.channels is not None
    assert tight.channels.errors == (0.0, 0.0)
    assert loose.forwards <= tight.forwards == 4


def test_a_budget_is_of_score_cam_or_of_a_plugins_method() -> None:
    register_method("of_plugin", OF_PLUGIN)
    options = MethodOptions(max_forwards=3)
    check_options_of_run(chosen_methods(["rise", "score_cam"]), options)
    check_options_of_run(chosen_methods(["rise"]), MethodOptions())
    check_options_of_run(chosen_methods(["of_plugin"]), options)
    with pytest.raises(ValueError, match="to include score_cam, the only method with `max_forwards`, but got rise"):
        check_options_of_run(chosen_methods(["rise"]), options)


NEAR = "near=score_cam:score=probability,channel_weighting=score,tolerance=0.1"


@pytest.mark.parametrize(
    ("option", "texts", "warned"),
    [
        ({"max_forwards": 3}, ["score_cam:max_forwards=2", "rise"], "`max_forwards` has no effect: only score_cam"),
        ({"max_forwards": 3}, ["score_cam:max_forwards=None"], "`max_forwards` has no effect"),
        ({"max_forwards": 3}, ["score_cam:max_forwards=2", "other=score_cam"], None),
        ({"error": 0.1}, ["score_cam:error=0.2", NEAR], "only score_cam without error of its own uses it"),
        ({"error": 0.1}, [NEAR], "`error` has no effect"),
        ({"n_masks": 20}, ["grad_cam", "score_cam"], "`n_masks` has no effect: only rise without n_masks of its own"),
        ({"n_masks": 20}, ["rise:n_masks=30"], "`n_masks` has no effect"),
        ({"n_masks": 20}, ["a=rise:n_masks=30", "rise"], None),
        ({"n_masks": 2000, "mask_iterations": 300, "seed": 1}, ["grad_cam"], None),
        ({"mask_iterations": 2}, ["mask:n_iterations=3"], "only mask without n_iterations of its own uses it"),
        ({"mask_iterations": 2}, ["captum:Saliency"], "and `methods` includes none"),
        ({"mask_iterations": 2}, ["mask"], None),
        ({"mask_iterations": 2}, ["of_plugin"], None),
    ],
)
def test_a_number_that_no_method_uses_is_warned_of(
    option: dict[str, Any], texts: list[str], warned: str | None
) -> None:
    register_method("of_plugin", OF_PLUGIN)
    with nullcontext() if warned is None else pytest.warns(UserWarning, match=warned):
        warn_of_unused_options(chosen_methods(texts), MethodOptions(**option))


def test_a_layer_that_returns_several_tensors_is_refused() -> None:
    register_method("two", Method(lambda request: ((request.inputs, request.inputs), MethodRun(1))))
    with pytest.raises(ValueError, match="Expected features to return one tensor, but it returns 2"):
        run_method("two", request_of_colours())


def test_a_layer_that_no_method_explains_is_warned_of() -> None:
    classifier = load_classifier("tests.support.colour_classifier:with_names")
    inputs = classifier.inputs(colour_classifier.red_and_green())
    with pytest.warns(UserWarning, match="`layer` has no effect: none of `methods` explains a layer"):
        found = layer_to_explain(["rise"], classifier, inputs, "nonsense")
    assert found.of_copy(classifier.model).module is classifier.model


def test_the_layer_is_the_classifiers_own_unless_it_is_named() -> None:
    classifier = replace(load_classifier("tests.support.colour_classifier:with_names"), layer="features:input")
    inputs = classifier.inputs(colour_classifier.red_and_green())
    assert layer_to_explain(["rise", "score_cam"], classifier, inputs).name == "features:input"
    assert layer_to_explain(["score_cam"], classifier, inputs, "features").name == "features"


def test_methods_without_a_layer_take_a_model_without_maps() -> None:
    classifier = load_classifier("tests.support.colour_classifier:without_maps")
    inputs = classifier.inputs(colour_classifier.red_and_green())
    assert layer_to_explain(["rise", "mask"], classifier, inputs).name == "none"
    with pytest.raises(ValueError, match="Expected a model with a layer that is certain to hold the last maps"):
        layer_to_explain(["rise", "grad_cam"], classifier, inputs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("score_cam", "Expected a new name for a method, but 'score_cam' is taken"),
        ("../up", "Expected the name of a method to be letters, digits and underscores, but got '../up'"),
        ("", "Expected the name of a method to be letters, digits and underscores, but got ''"),
    ],
)
def test_a_method_that_does_not_fit_is_not_registered(name: str, message: str) -> None:
    before = dict(METHODS)
    with pytest.raises(ValueError, match=message):
        register_method(name, Method(METHODS["rise"].explain))
    assert before == METHODS


def test_methods_have_one_title() -> None:
    assert [method.title for method in METHODS.values()] == ["Grad-CAM", "Grad-CAM++", "Score-CAM", "RISE", "Mask"]


@pytest.mark.parametrize(("forwards", "error"), [(1.5, TypeError), (-1, ValueError), (None, TypeError)])
def test_forwards_that_could_not_be_read_back_are_refused(forwards: Any, error: type[Exception]) -> None:
    register_method("own", Method(lambda request: (request.inputs[:, :2], MethodRun(forwards))))
    with pytest.raises(error, match="Expected `forwards` to be"):
        run_method("own", request_of_colours())


def test_forwards_may_be_a_number_of_numpys() -> None:
    register_method("own", Method(lambda request: (request.inputs[:, :2], MethodRun(cast(int, np.int64(3))))))
    assert type(run_method("own", request_of_colours())[1].forwards) is int
