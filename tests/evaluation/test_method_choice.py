"""Methods with options and names of one's own: how they are read, run, recorded and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_scorecam import RISE, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM
from captum_scorecam.evaluation import (
    METHODS,
    ExplanationRequest,
    Method,
    MethodOptions,
    MethodRun,
    chosen_methods,
    plan_evaluation,
    read_records,
    read_settings,
    register_method,
    run_method,
)
from captum_scorecam.evaluation.method_choice import layer_to_explain
from captum_scorecam.models import Classifier, find_layer
from tests.support.tiny_classifier import Pictures, picture
from tests.support.tiny_evaluation import evaluate

METRIC = ["average_drop"]


def request_of(classifier: Classifier, **options: Any) -> ExplanationRequest:
    inputs = classifier.inputs(picture(1)[0])
    layer = find_layer(classifier.model, inputs)
    return ExplanationRequest(classifier.model, layer, inputs, [2], options=MethodOptions(**options))


@pytest.mark.parametrize(
    ("text", "name", "base", "options"),
    [
        ("rise", "rise", "rise", {}),
        ("mine=rise", "mine", "rise", {}),
        ("score_cam:max_forwards=3", "score_cam", "score_cam", {"max_forwards": 3}),
        (
            "fast=score_cam:score=probability, channel_weighting='score',max_forwards=None",
            "fast",
            "score_cam",
            {"score": "probability", "channel_weighting": "score", "max_forwards": None},
        ),
        ("rise:grid_size=(3, 5),keep_probability=.25", "rise", "rise", {"grid_size": (3, 5), "keep_probability": 0.25}),
        ("captum:Saliency", "Saliency", "captum:Saliency", {}),
        ("captum:Saliency:abs=false", "Saliency", "captum:Saliency", {"abs": False}),
        ("score_cam:max_forwards=none", "score_cam", "score_cam", {"max_forwards": None}),
        (
            "o=captum:Occlusion:sliding_window_shapes=(3,4,4),strides=2,baselines=-1.5",
            "o",
            "captum:Occlusion",
            {"sliding_window_shapes": (3, 4, 4), "strides": 2, "baselines": -1.5},
        ),
    ],
)
def test_a_method_is_read_from_its_text(text: str, name: str, base: str, options: dict[str, Any]) -> None:
    (found,) = chosen_methods([text]).values()
    assert (found.name, found.base, found.options) == (name, base, options)
    assert chosen_methods([f"{name}={found.text}"])[name] == found


def test_methods_are_kept_once_in_their_order() -> None:
    assert [*chosen_methods(["mask", "rise", "mask", "a=rise:n_masks=3", "a=rise:n_masks= 3"])] == ["mask", "rise", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("captm:Occlusion:strides=2", "captum:CLASS, but got 'captm'. Closest matches: captum:Occlusion.$"),
        ("Captum:Occlusion", "but got 'Captum'. Closest matches: captum:Occlusion.$"),
        ("quantum:X", "but got 'quantum'. Closest matches: captum:CLASS.$"),
        ("Occlusion", "but got 'Occlusion'. Closest matches: captum:Occlusion.$"),
        ("mine=saliency:abs=False", "but got 'saliency'. Closest matches: captum:Saliency.$"),
        ("captum:Oclusion:14", "but got 'Oclusion'. Closest matches: Occlusion.$"),
        ("zzz:14", "captum:CLASS, but got 'zzz'.$"),
        ("my-fast=score_cam", "name of a method to be letters, digits and underscores, but got 'my-fast'"),
        ("a b=score_cam:error=", "name of a method to be letters, digits and underscores, but got 'a b'"),
        ("=score_cam", "name of a method to be letters, digits and underscores, but got ''"),
        ("", "Expected each of `methods` to be one of grad_cam, .*mask, captum:CLASS, but got ''"),
        ("score_cm", "but got 'score_cm'. Closest matches: score_cam"),
        ("captum", "that begins with captum: to name a class of captum.attr, but got ''"),
        ("captum:Oclusion", "but got 'Oclusion'. Closest matches: Occlusion"),
        ("captum:NoiseTunnel", "but got NoiseTunnel: it wraps another attribution; `register_captum` takes"),
        ("captum:Occlusion", "captum:Occlusion: Expected the option `sliding_window_shapes`, which has no default"),
        ("captum:Saliency:abz=False", "captum:Saliency: Expected the option to be one of abs, sign, but got 'abz'"),
        ("captum:Saliency:abs=maybe", "captum:Saliency: Expected `abs` to be True or False, but got 'maybe'"),
        ("captum:Saliency:sign=plus", "captum:Saliency: Expected `sign` to be 'positive', .* but got 'plus'"),
        ("captum:Lime:patches=0", "captum:Lime: Expected `patches` to be at least 1"),
        ("captum:Saliency:target=3", "to be one of abs, sign, but got 'target'"),
        ("grad_cam:score=output", "grad_cam: Expected no options, but got score"),
        (
            "score_cam:max_forward=3",
            "score_cam: Expected the option to be one of .*'max_forward'. Closest .* max_forwards",
        ),
        ("score_cam:max_forwards=0", "score_cam: Expected `max_forwards` to be at least 1, but got 0"),
        ("score_cam:score=logits", "score_cam: Expected `score` to be 'output', 'probability', 'sigmoid' or "),
        ("score_cam:masked_forward_func=3", "Expected the option to be one of"),
        ("rise:n_masks=many", "rise: Expected `n_masks` to be an int, but got 'many'"),
        (
            "score_cam:max_forwards",
            "Expected options of the form NAME=VALUE,NAME=VALUE after score_cam:, but got 'max",
        ),
        ("score_cam:**{}", "Expected options of the form"),
        ("score_cam:error=1/3", "Expected options of the form"),
        ("score_cam:error=f(3)", "Expected options of the form"),
        ("rise:n_masks={[1]:2}", "Expected options of the form"),
        ("score_cam:error=", "Expected options of the form"),
        (
            "score_cam:max_forwards=64,error=0.1,max_forwards=8",
            "Expected each option of score_cam once, but got max_forwards twice in 'max_forwards=64,error=0.1,max",
        ),
        ("captum:Saliency:abs=true,abs=true", "Expected each option of captum:Saliency once, but got abs twice"),
        ("rise=score_cam", "Expected a new name for score_cam, but 'rise' is the name of another method"),
    ],
)
def test_a_text_that_names_no_method_is_refused(text: str, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        chosen_methods(["grad_cam", text])


def test_a_name_is_of_one_method() -> None:
    message = "Expected a name for each of several `methods` score_cam, as in NAME=score_cam:max_forwards=3, but 'score"
    with pytest.raises(ValueError, match=message):
        chosen_methods(["score_cam", "score_cam:max_forwards=3"])


@pytest.mark.parametrize("texts", [["A=rise:n_masks=5", "mask", "a=grad_cam"], ["rise", "Rise=rise"]])
def test_names_that_are_one_file_where_case_does_not_matter_are_refused(texts: list[str]) -> None:
    first, second = texts[0].partition("=")[0], texts[-1].partition("=")[0]
    message = f"Expected names of `methods` that differ in more than case, .* but got {first} and {second}"
    with pytest.raises(ValueError, match=message):
        chosen_methods(texts)


def test_options_are_those_of_the_class(classifier: Classifier) -> None:
    request = request_of(classifier, n_masks=7, mask_iterations=3, max_forwards=1)
    model, features, inputs = classifier.model, classifier.model.get_submodule("features"), request.inputs

    def found(text: str) -> torch.Tensor:
        (method,) = chosen_methods([text]).values()
        return run_method(method, request)[0]

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    expected = {
        "score_cam:score=probability,channel_weighting=increase,max_forwards=None": ScoreCAM(
            model, features, score="probability", channel_weighting="increase"
        ).attribute(inputs, 2),
        "score_cam:max_channels=2": ScoreCAM(model, features, max_channels=2, max_forwards=1).attribute(inputs, 2),
        "rise:grid_size=3,score=output": RISE(model, n_masks=7, grid_size=3, score="output").attribute(
            inputs, 2, generator=generator()
        )[:, :1],
        "mask:l1_weight=0.1,n_iterations=4": MeaningfulPerturbation(model, n_iterations=4, l1_weight=0.1).attribute(
            inputs, 2, generator=generator()
        )[:, :1],
        "grad_cam_plus_plus:score=probability": LayerGradCamPlusPlus(model, features, score="probability").attribute(
            inputs, 2, relu_attributions=True
        ),
    }
    for text, maps in expected.items():
        resized = torch.nn.functional.interpolate(maps, (21, 21), mode="bilinear", align_corners=False)
        torch.testing.assert_close(found(text), resized[:, 0].detach())
    assert run_method(chosen_methods(["rise:n_masks=9"])["rise"], request)[1].forwards == 9
    assert run_method(chosen_methods(["mask:n_iterations=2"])["mask"], request)[1].forwards == 2


def test_a_tolerance_overrides_the_budget_of_the_run(classifier: Classifier, tmp_path: Path) -> None:
    near = "near=score_cam:score=probability,channel_weighting=score,tolerance=0.01"
    of_both = MethodOptions(perturbations_per_eval=4)
    options = replace(of_both, max_forwards=2, error=0.5)
    evaluate(classifier, Pictures(2), tmp_path / "both", methods=["score_cam", near], metrics=METRIC, options=options)
    of_budget, of_tolerance, *_ = records = read_records(tmp_path / "both")
    assert [record.error for record in records] == [None] * 4
    assert (of_budget.forwards, of_budget.map_error is None) == (2, False)
    evaluate(classifier, Pictures(2), tmp_path / "near", methods=[near], metrics=METRIC, options=of_both)
    assert (of_tolerance.forwards, of_tolerance.map_error) == (4, None)
    assert read_records(tmp_path / "near") == records[1::2]


def test_options_of_the_run_are_checked_as_the_method_gets_them(classifier: Classifier) -> None:
    options = MethodOptions(n_masks=2**31, mask_iterations=2**31)
    for method, name in (("rise", "n_masks"), ("a=mask:jitter=2", "n_iterations")):
        with pytest.raises(ValueError, match=f"Expected `{name}` to be at most 2147483647, but got 2147483648"):
            plan_evaluation(classifier, Pictures(1), methods=[method], metrics=METRIC, options=options)
    methods = ["rise:n_masks=5", "mask:n_iterations=2", "grad_cam"]
    assert plan_evaluation(classifier, Pictures(1), methods=methods, metrics=METRIC, options=options).options == options


def test_a_run_records_names_and_options(classifier: Classifier, tmp_path: Path) -> None:
    methods = ["grad_cam", "small=score_cam:max_forwards=2", "captum:Saliency", "rise:n_masks=5"]
    summary = evaluate(classifier, Pictures(2), tmp_path, methods=methods, metrics=["average_drop"])
    assert summary is not None
    assert summary.methods == ("grad_cam", "small", "Saliency", "rise")
    settings = read_settings(tmp_path)
    assert settings.methods == summary.methods
    assert settings.method_options == {
        "small": "score_cam:max_forwards=2",
        "Saliency": "captum:Saliency",
        "rise": "rise:n_masks=5",
    }
    records = read_records(tmp_path)
    assert [record.method for record in records] == [*settings.methods] * 2
    assert all(record.error is None for record in records)
    small = [record for record in records if record.method == "small"]
    assert [(r.forwards, (r.map_error or 0) > 0) for r in small] == [(2, True)] * 2
    assert [record.forwards for record in records if record.method == "rise"] == [5, 5]


def test_a_run_is_resumed_with_the_same_options_only(classifier: Classifier, tmp_path: Path) -> None:
    def run(text: str) -> None:
        evaluate(classifier, Pictures(1), tmp_path, methods=[text], metrics=["average_drop"])

    run("a=rise:n_masks=5,grid_size=3")
    run("a=rise:grid_size=3, n_masks=5")
    with pytest.raises(ValueError, match=r"`method_options`: .*n_masks=5.* -> .*n_masks=6"):
        run("a=rise:n_masks=6,grid_size=3")


def test_a_plugins_method_takes_the_options_that_it_checks(classifier: Classifier) -> None:
    def explain(request: ExplanationRequest, factor: int = 1) -> tuple[torch.Tensor, MethodRun]:
        return request.inputs[:, :1] * factor, MethodRun(0)

    def check(options: Any) -> None:
        if options.keys() - {"factor"}:
            raise ValueError(f"no option {[*options]}")

    register_method("scaled", Method(explain, of_layer=False, check_options=check))
    chosen = chosen_methods(["scaled", "three=scaled:factor=3"])
    request = request_of(classifier)
    once, thrice = (run_method(method, request)[0] for method in chosen.values())
    torch.testing.assert_close(3 * once, thrice)
    with pytest.raises(ValueError, match="scaled: no option"):
        chosen_methods(["scaled:factors=3"])


def test_a_run_without_layer_methods_needs_no_layer(classifier: Classifier) -> None:
    inputs = classifier.inputs(picture(1)[0])
    assert layer_to_explain(["captum:Saliency"], classifier, inputs).name == "none"
    assert layer_to_explain(["captum:GuidedGradCam"], classifier, inputs).name == "features"


def test_few_masks_are_not_tuned(classifier: Classifier) -> None:
    plan = plan_evaluation(classifier, Pictures(1), methods=["captum:Saliency"], metrics=["average_drop"])
    assert [method.method.in_chunks for method in plan.methods.values()] == [False]
    assert [name for name, method in METHODS.items() if method.in_chunks] == ["score_cam", "rise"]
    assert chosen_methods(["captum:KernelShap"])["KernelShap"].method.in_chunks
