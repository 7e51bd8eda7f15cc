"""Attribution methods of Captum: each class runs or is refused with its reason, and gives what Captum gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from captum_scorecam.evaluation import (
    METHODS,
    ExplanationRequest,
    MethodOptions,
    chosen_methods,
    plan_evaluation,
    read_records,
    read_settings,
    register_captum,
    run_method,
)
from captum_scorecam.evaluation.captum_methods import CLASSES, REFUSED
from captum_scorecam.evaluation.presentation import method_title
from captum_scorecam.models import Classifier, find_layer, load_classifier
from tests.support.guide_tables import rows_below
from tests.support.tiny_classifier import Pictures, picture
from tests.support.tiny_evaluation import evaluate

pytestmark = pytest.mark.slow

OPTIONS_NEEDED = {
    "Occlusion": ":sliding_window_shapes=(3,7,7),strides=(3,7,7)",
    **dict.fromkeys(("FeatureAblation", "KernelShap", "Lime", "ShapleyValueSampling"), ":patches=3"),
}
LAYER_NEEDED = {"LayerLRP": "features.0"}  # Captum has no rule for the Sequential around it
TRIED = sorted(CLASSES.keys() - REFUSED)


def text_of(name: str) -> str:
    return f"captum:{name}{OPTIONS_NEEDED.get(name, '')}"


def request_of(
    classifier: Classifier, targets: list[int], layer_name: str = "auto", **options: Any
) -> ExplanationRequest:
    inputs = classifier.inputs(picture(1)[0])
    layer = find_layer(classifier.model, inputs, layer_name)
    return ExplanationRequest(classifier.model, layer, inputs, targets, options=MethodOptions(**options))


def found(request: ExplanationRequest, text: str) -> Tensor:
    (method,) = chosen_methods([text]).values()
    return run_method(method, request)[0]


def test_each_class_is_tried_or_refused_with_a_reason() -> None:
    of_captum = {
        name
        for name in dir(captum.attr)
        if isinstance(value := getattr(captum.attr, name), type) and issubclass(value, captum.attr.Attribution)
    }
    assert CLASSES.keys() == of_captum
    for name, reason in REFUSED.items():
        if name in CLASSES:
            with pytest.raises(ValueError, match=f"but got {name}: {reason[:20]}"):
                chosen_methods([f"captum:{name}"])


@pytest.mark.parametrize("name", TRIED)
def test_each_class_explains_several_targets_like_one_by_one(name: str, classifier: Classifier) -> None:
    layer = LAYER_NEEDED.get(name, "auto")
    together = found(request_of(classifier, [2, 0], layer, perturbations_per_eval=3), text_of(name))
    assert together.shape == (2, 21, 21)
    assert together.isfinite().all()
    if name in ("Lime", "KernelShap", "ShapleyValueSampling", "GradientShap", "LayerGradientShap"):
        return  # the draws for the second target are others
    for row, target in enumerate((2, 0)):
        alone = found(request_of(classifier, [target], layer, perturbations_per_eval=3), text_of(name))
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("name", TRIED)
def test_each_class_repeats_its_map_and_leaves_the_random_state(name: str, classifier: Classifier) -> None:
    request = request_of(classifier, [1], LAYER_NEEDED.get(name, "auto"), seed=5)
    torch.manual_seed(1)
    np.random.seed(1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]
    first = found(request, text_of(name))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)
    torch.rand(3)
    np.random.rand(3)
    torch.testing.assert_close(found(request, text_of(name)), first, rtol=0, atol=0)
    assert not any(module._forward_hooks or module._backward_hooks for module in classifier.model.modules())


def resized(maps: Tensor) -> Tensor:
    return F.interpolate(maps, (21, 21), mode="bilinear", align_corners=False)[:, 0]


def test_attributions_are_those_of_captum(classifier: Classifier) -> None:
    request = request_of(classifier, [3])
    model, inputs = classifier.model, request.inputs
    layer = model.get_submodule("features")
    summed: Callable[[Tensor], Tensor] = lambda values: values.detach().sum(1, keepdim=True)  # noqa: E731
    saliency = captum.attr.Saliency(model).attribute(inputs.clone().requires_grad_(), 3, abs=False)
    integrated = captum.attr.IntegratedGradients(model).attribute(inputs, -0.4, 3, n_steps=20)
    occlusion = captum.attr.Occlusion(model).attribute(inputs, (3, 5, 5), (3, 4, 4), target=3)
    conductance = captum.attr.LayerConductance(model, layer).attribute(inputs, target=3)
    for text, expected in {
        "captum:Saliency:abs=False": summed(saliency).relu(),
        "captum:Saliency:abs=False,sign=negative": (-summed(saliency)).relu(),
        "captum:Saliency:abs=False,sign=absolute_value": summed(saliency).abs(),
        "captum:Saliency:abs=False,sign=all": summed(saliency),
        "captum:IntegratedGradients:baselines=-0.4,n_steps=20": summed(integrated).relu(),
        "captum:Occlusion:sliding_window_shapes=(3,5,5),strides=(3,4,4)": summed(occlusion).relu(),
        "captum:LayerConductance": summed(conductance).relu(),
    }.items():
        torch.testing.assert_close(found(request, text), resized(expected))


@pytest.mark.parametrize(("given", "most"), [(64, 8), (3, 3), (None, 8)])
def test_gradients_are_integrated_over_few_rows_at_once(given: int | None, most: int, classifier: Classifier) -> None:
    rows: list[int] = []
    request = request_of(classifier, [3], perturbations_per_eval=given)
    with classifier.model.register_forward_pre_hook(lambda _, taken: rows.append(len(taken[0]))):
        found(request, "captum:IntegratedGradients:n_steps=40")
    assert max(rows) == most


def test_captums_grad_cam_is_ours(classifier: Classifier) -> None:
    request = request_of(classifier, [0, 3])
    torch.testing.assert_close(found(request, "captum:LayerGradCam"), found(request, "grad_cam"))


def test_patches_are_ablated_as_one(classifier: Classifier) -> None:
    request = request_of(classifier, [1])
    maps = found(request, "captum:FeatureAblation:patches=3,sign=all")
    assert len({*maps.flatten().tolist()}) <= 9
    blocks = maps.view(3, 7, 3, 7)
    assert torch.equal(blocks, blocks[:, :1, :, :1].expand_as(blocks))
    masked = request.inputs.clone()
    masked[:, :, :7, :7] = 0
    with torch.no_grad():
        expected = (classifier.model(request.inputs) - classifier.model(masked))[0, 1]
    torch.testing.assert_close(maps[0, 0, 0], 3 * expected)  # summed over the channels, which share their patch


@pytest.mark.parametrize("name", ["Lime", "KernelShap"])
def test_a_linear_fit_has_60_samples_for_each_of_16_patches_or_the_users(name: str, classifier: Classifier) -> None:
    request = request_of(classifier, [1], perturbations_per_eval=8)
    for options, rows in {"": 16 * 60, ":patches=2": 4 * 60, ":patches=2,n_samples=5": 5}.items():
        (method,) = chosen_methods([f"captum:{name}{options}"]).values()
        assert run_method(method, request)[1].forwards == rows


@pytest.mark.parametrize("name", ["Lime", "KernelShap"])
def test_fewer_samples_than_patches_are_warned_of(name: str, classifier: Classifier) -> None:
    def plan(n_samples: int) -> object:
        method = f"captum:{name}:patches=3,n_samples={n_samples}"
        return plan_evaluation(classifier, Pictures(1), methods=[method], metrics=["average_drop"])

    with pytest.warns(UserWarning, match=f"{name} fits the weights of 9 patches to 8 samples") as found:
        plan(8)
    assert [warning.filename for warning in found] == [__file__]
    plan(9)


def test_masked_inputs_run_through_the_twin(classifier: Classifier) -> None:
    rows: list[int] = []

    def twin(inputs: Tensor) -> Tensor:
        rows.append(len(inputs))
        output: Tensor = classifier.model(inputs)
        return output

    request = request_of(classifier, [1])
    request = ExplanationRequest(request.model, request.layer, request.inputs, [1], masked_forward_func=twin)
    found(request, "captum:FeatureAblation:patches=2")
    assert sum(rows) == 5


class LayerCAM(LayerGradientXActivation):
    """LayerCAM for layers that end in a ReLU: the positive gradients, times the activations."""

    def attribute(self, *args: Any, **kwargs: Any) -> Any:
        return F.relu(super().attribute(*args, **kwargs))


def test_a_subclass_of_ones_own_is_registered_and_evaluated(classifier: Classifier, tmp_path: Path) -> None:
    register_captum("layer_cam", LayerCAM, title="LayerCAM")
    assert method_title("layer_cam") == "LayerCAM"
    request = request_of(classifier, [2])
    maps = classifier.model.get_submodule("features")(request.inputs).detach().requires_grad_()
    score = classifier.model.get_submodule("score")(F.adaptive_avg_pool2d(maps, 1).flatten(1))[0, 2]
    (gradient,) = torch.autograd.grad(score, maps)
    expected = (gradient.relu() * maps).sum(1, keepdim=True).detach()
    torch.testing.assert_close(run_method("layer_cam", request)[0], resized(expected))

    evaluate(classifier, Pictures(2), tmp_path, methods=["layer_cam"], metrics=["average_drop"])
    assert [record.error for record in read_records(tmp_path)] == [None, None]
    assert __name__ in read_settings(tmp_path).sources


def test_a_function_makes_the_attribution(classifier: Classifier) -> None:
    def smooth(model: nn.Module) -> captum.attr.Attribution:
        return captum.attr.NoiseTunnel(captum.attr.Saliency(model))

    register_captum("smooth_grad", smooth)
    assert method_title("smooth_grad") == "smooth_grad"
    assert plan_evaluation(classifier, Pictures(1), methods=["smooth_grad"], metrics=["average_drop"]).methods
    first, second = (run_method("smooth_grad", request_of(classifier, [2]))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not METHODS["smooth_grad"].of_layer
    with pytest.raises(TypeError, match="Expected `factory` to be a class or function, but got str"):
        register_captum("text", "Saliency")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected a new name for a method, but 'rise' is taken"):
        register_captum("rise", smooth)


def test_attributions_of_tokens_become_maps() -> None:
    model = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3).eval()
    draws = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5, generator=draws)
    inputs = torch.rand(1, 3, 32, 32, generator=draws)
    request = ExplanationRequest(model, find_layer(model, inputs), inputs, [0, 2])
    assert request.layer.activation_transform is not None
    maps = found(request, "captum:LayerGradientXActivation:sign=all")
    method = LayerGradientXActivation(model, request.layer.module)
    values = method.attribute(inputs.repeat(2, 1, 1, 1), [0, 2], attribute_to_layer_input=request.layer.of_input)
    expected = request.layer.activation_transform(values).sum(1, keepdim=True).detach()
    torch.testing.assert_close(maps, F.interpolate(expected, (32, 32), mode="bilinear")[:, 0])
    with pytest.raises(ValueError, match="Use grad_cam for Grad-CAM"):
        found(request, "captum:LayerGradCam")


def test_what_a_model_or_the_options_make_impossible_is_refused_before_the_run() -> None:
    classifier = load_classifier("tests.support.tiny_classifier:tiny")
    classifier.model.get_submodule("features").register_module("1", nn.SiLU())
    for text, message in {
        "captum:LRP": "LRP raised TypeError: .*SiLU",
        "captum:Occlusion:sliding_window_shapes=(3,50,50)": "Occlusion raised AssertionError",
        "captum:GradientShap:baselines=nothing": "GradientShap raised ",
    }.items():
        with pytest.raises(ValueError, match=f"Expected `methods` that explain this model, but {message}"):
            plan_evaluation(classifier, Pictures(2), methods=[text], metrics=["average_drop"])


def test_the_guide_lists_which_classes_run_and_which_are_refused() -> None:
    rows = rows_below("methods_and_options.rst", "Captum's methods")
    listed = {True: set[str](), False: set[str]()}
    for names, text in rows[1:]:  # below the headings
        listed[text.startswith("refused")] |= names
    assert listed == {True: {*REFUSED}, False: {*TRIED}}
