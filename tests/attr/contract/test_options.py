"""Options are checked in the constructor, public on the instance, and rejected in a call."""

from __future__ import annotations

import re
import reprlib
from inspect import signature
from typing import Any

import pytest
import torch
from captum.attr import Attribution, LayerGradCam, NoiseTunnel
from torch import nn

from captum_scorecam import RISE, InputSpaceAttribution, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM
from tests.support.attributions import METHODS, OURS, Method, each, options_of
from tests.support.small_net import Net, images

NAN, INF = float("nan"), float("inf")
WEIGHTING = "Expected `channel_weighting` to be 'softmax', 'increase' or 'score', but got "
SCORE = "Expected `score` to be 'output', 'probability', 'sigmoid' or a callable, but got "

BAD_OPTIONS: list[tuple[type[Attribution], str, Any, type[Exception], str]] = [
    (ScoreCAM, "score", "logit", ValueError, SCORE + "'logit'."),
    (ScoreCAM, "score", 3, ValueError, SCORE + "3."),
    (ScoreCAM, "channel_weighting", "sigmoid", ValueError, WEIGHTING + "'sigmoid'."),
    (ScoreCAM, "channel_weighting", 3, ValueError, WEIGHTING + "3."),
    (ScoreCAM, "activation_transform", 3, TypeError, "Expected `activation_transform` to be callable, but got 3."),
    (ScoreCAM, "max_channels", 0, ValueError, "Expected `max_channels` to be at least 1, but got 0."),
    (ScoreCAM, "max_channels", -1, ValueError, "Expected `max_channels` to be at least 1, but got -1."),
    (ScoreCAM, "max_channels", 2.5, TypeError, "Expected `max_channels` to be an int, but got 2.5."),
    (ScoreCAM, "tolerance", 0.0, ValueError, "Expected `tolerance` in (0, 1), but got 0.0."),
    (ScoreCAM, "tolerance", 1.0, ValueError, "Expected `tolerance` in (0, 1), but got 1.0."),
    (ScoreCAM, "tolerance", "0.1", TypeError, "Expected `tolerance` to be a number, but got '0.1'."),
    (ScoreCAM, "tolerance", NAN, ValueError, "Expected `tolerance` in (0, 1), but got nan."),
    (
        ScoreCAM,
        "tolerance",
        0.1,
        ValueError,
        "Expected score='probability' and channel_weighting='score' with `tolerance`",
    ),
    (ScoreCAM, "max_forwards", 0, ValueError, "Expected `max_forwards` to be at least 1, but got 0."),
    (ScoreCAM, "max_forwards", 1.5, TypeError, "Expected `max_forwards` to be an int, but got 1.5."),
    (ScoreCAM, "max_forwards", True, TypeError, "Expected `max_forwards` to be an int, but got True."),
    (ScoreCAM, "error", 0.0, ValueError, "Expected `error` in (0, 1), but got 0.0."),
    (ScoreCAM, "error", 1.0, ValueError, "Expected `error` in (0, 1), but got 1.0."),
    (ScoreCAM, "error", NAN, ValueError, "Expected `error` in (0, 1), but got nan."),
    (ScoreCAM, "error", "0.1", TypeError, "Expected `error` to be a number, but got '0.1'."),
    (ScoreCAM, "masked_forward_func", 3, TypeError, "Expected `masked_forward_func` to be callable, but got 3."),
    (RISE, "n_masks", 0, ValueError, "Expected `n_masks` to be at least 1, but got 0."),
    (RISE, "n_masks", 9.0, TypeError, "Expected `n_masks` to be an int, but got 9.0."),
    (RISE, "grid_size", 0, ValueError, "Expected `grid_size` to be at least 1, but got 0."),
    (RISE, "grid_size", (3, -1), ValueError, "Expected `grid_size` to be at least 1, but got (3, -1)."),
    (RISE, "grid_size", 2.5, TypeError, "Expected `grid_size` to be an int or a sequence of ints, but got 2.5."),
    (RISE, "grid_size", "77", TypeError, "Expected `grid_size` to be an int or a sequence of ints, but got '77'."),
    (RISE, "grid_size", True, TypeError, "Expected `grid_size` to be an int or a sequence of ints, but got True."),
    (RISE, "grid_size", (), ValueError, "Expected `grid_size` to be at least 1, but got ()."),
    (RISE, "keep_probability", 0.0, ValueError, "Expected `keep_probability` in (0, 1), but got 0.0."),
    (RISE, "keep_probability", 1.0, ValueError, "Expected `keep_probability` in (0, 1), but got 1.0."),
    (RISE, "keep_probability", "0.5", TypeError, "Expected `keep_probability` to be a number, but got '0.5'."),
    (RISE, "keep_probability", NAN, ValueError, "Expected `keep_probability` in (0, 1), but got nan."),
    (RISE, "score", "logit", ValueError, SCORE + "'logit'."),
    (RISE, "masked_forward_func", "net", TypeError, "`masked_forward_func` to be callable, but got 'net'."),
    (
        MeaningfulPerturbation,
        "perturbation",
        "black",
        ValueError,
        "Expected `perturbation` to be 'blur', 'constant', 'noise' or 'baseline', but got 'black'.",
    ),
    (MeaningfulPerturbation, "perturbation", 0, ValueError, "'noise' or 'baseline', but got 0."),
    (MeaningfulPerturbation, "n_iterations", 0, ValueError, "Expected `n_iterations` to be at least 1, but got 0."),
    (MeaningfulPerturbation, "n_iterations", 2.5, TypeError, "Expected `n_iterations` to be an int, but got 2.5."),
    (MeaningfulPerturbation, "learning_rate", 0.0, ValueError, "Expected `learning_rate` to be positive, but got 0.0."),
    (MeaningfulPerturbation, "learning_rate", INF, ValueError, "`learning_rate` to be a finite number, but got inf."),
    (MeaningfulPerturbation, "learning_rate", NAN, ValueError, "Expected `learning_rate` to be positive, but got nan."),
    (MeaningfulPerturbation, "l1_weight", -1.0, ValueError, "Expected `l1_weight` to be at least 0, but got -1.0."),
    (MeaningfulPerturbation, "tv_weight", NAN, ValueError, "Expected `tv_weight` to be at least 0, but got nan."),
    (MeaningfulPerturbation, "tv_beta", 0.5, ValueError, "Expected `tv_beta` to be at least 1, but got 0.5."),
    (MeaningfulPerturbation, "grid_size", 0, ValueError, "Expected `grid_size` to be at least 1, but got 0."),
    (MeaningfulPerturbation, "mask_blur", INF, ValueError, "Expected `mask_blur` to be a finite number, but got inf."),
    (MeaningfulPerturbation, "mask_blur", -1.0, ValueError, "Expected `mask_blur` to be at least 0, but got -1.0."),
    (MeaningfulPerturbation, "jitter", -1, ValueError, "Expected `jitter` to be at least 0, but got -1."),
    (MeaningfulPerturbation, "jitter", 1.5, TypeError, "Expected `jitter` to be an int, but got 1.5."),
    (MeaningfulPerturbation, "score", "logit", ValueError, SCORE + "'logit'."),
    (LayerGradCamPlusPlus, "score", "logit", ValueError, SCORE + "'logit'."),
    (LayerGradCamPlusPlus, "activation_transform", 3, TypeError, "`activation_transform` to be callable, but got 3."),
]

GOOD_OPTIONS: dict[type[Attribution], dict[str, Any]] = {
    ScoreCAM: {
        "score": "probability",
        "channel_weighting": "score",
        "activation_transform": torch.relu,
        "max_channels": 3,
        "tolerance": None,  # excludes the next two
        "max_forwards": 5,
        "error": 0.25,
        "masked_forward_func": torch.sum,
    },
    RISE: {
        "n_masks": 5,
        "grid_size": (3, 4),
        "keep_probability": 0.25,
        "score": torch.sigmoid,
        "masked_forward_func": torch.sum,
    },
    MeaningfulPerturbation: {
        "perturbation": "noise",
        "n_iterations": 2,
        "learning_rate": 0.5,
        "l1_weight": 0.0,
        "tv_weight": 0.25,
        "tv_beta": 1.0,
        "grid_size": 3,
        "mask_blur": 0.0,
        "jitter": 0,
        "score": "output",
    },
    LayerGradCamPlusPlus: {"score": "probability", "activation_transform": torch.relu},
}


def made(attribution: type[Attribution], net: Net, **options: Any) -> Any:
    of_layer = attribution in (ScoreCAM, LayerGradCamPlusPlus)
    return attribution(net, net.relu, **options) if of_layer else attribution(net, **options)


@pytest.mark.parametrize("layer", [None, 3, [nn.ReLU()]], ids=str)
@pytest.mark.parametrize("attribution", [ScoreCAM, LayerGradCamPlusPlus])
def test_a_layer_that_is_no_module_raises_in_the_constructor(attribution: Any, layer: object) -> None:
    expected = f"Expected `layer` to be a module of the model, its name, or 'auto', but got {layer!r}."
    with pytest.raises(TypeError, match=re.escape(expected)):
        attribution(Net(), layer)


@pytest.mark.parametrize(
    ("attribution", "option", "value", "error", "message"),
    BAD_OPTIONS,
    ids=[f"{attribution.__name__}-{option}={value}" for attribution, option, value, *_ in BAD_OPTIONS],
)
def test_bad_option_raises_in_the_constructor(
    attribution: type[Attribution], option: str, value: Any, error: type[Exception], message: str
) -> None:
    net = Net()
    with pytest.raises(error, match=re.escape(message)):
        made(attribution, net, **{option: value})
    assert net.forwards == 0


def test_every_option_has_a_bad_value() -> None:
    listed = {(attribution, option) for attribution, option, *_ in BAD_OPTIONS}
    assert listed == {(attribution, name) for attribution in GOOD_OPTIONS for name in options_of(attribution)}


@pytest.mark.parametrize("attribution", GOOD_OPTIONS)
def test_options_are_public_attributes(attribution: type[Attribution]) -> None:
    options = GOOD_OPTIONS[attribution]
    assert list(options) == options_of(attribution)
    net = Net()
    explained = made(attribution, net, **options)
    assert {name: getattr(explained, name) for name in options} == options
    assert explained.forward_func is net
    if attribution in (ScoreCAM, LayerGradCamPlusPlus):
        assert (explained.layer, explained.device_ids) == (net.relu, None)


def test_tolerance_is_a_public_attribute() -> None:
    net = Net()
    options: dict[str, Any] = {"score": "probability", "channel_weighting": "score", "tolerance": 0.2}
    assert ScoreCAM(net, net.relu, **options).tolerance == 0.2


def test_options_of_input_space_attribution() -> None:
    net = Net()
    inner = LayerGradCam(net, net.relu)
    explained = InputSpaceAttribution(inner, interpolate_mode="nearest")
    assert (explained.attribution, explained.interpolate_mode) == (inner, "nearest")
    with pytest.raises(TypeError, match="Expected `attribution` to be a LayerAttribution, but got RISE"):
        InputSpaceAttribution(RISE(net))
    with pytest.raises(
        ValueError, match=r"Expected `interpolate_mode` to be .*, 'bicubic' or 'trilinear', but got 'cubic'"
    ):
        InputSpaceAttribution(inner, interpolate_mode="cubic")  # type: ignore[arg-type]
    assert net.forwards == 0


# --- Options in the wrong place --------------------------------------------------------------------------------------


ENTRIES = [
    (ScoreCAM, "attribute"),
    (ScoreCAM, "attribute_targets"),
    (ScoreCAM, "attribute_with_error"),
    (ScoreCAM, "channel_scores"),
    (RISE, "attribute"),
    (RISE, "attribute_targets"),
    (RISE, "attribute_with_error"),
    (MeaningfulPerturbation, "attribute"),
    (LayerGradCamPlusPlus, "attribute"),
]


def misplaced(attribution: type[Attribution], entry: str, option: str, value: Any) -> str:
    name = attribution.__name__
    return re.escape(
        f"`{option}` is an option of {name}, not of {name}.{entry}: "
        f"pass it to the constructor, as in {name}(..., {option}={reprlib.repr(value)})."
    )


@pytest.mark.parametrize(("attribution", "entry"), ENTRIES)
def test_constructor_option_passed_to_a_call_raises_type_error(attribution: type[Attribution], entry: str) -> None:
    net = Net()
    for option, value in GOOD_OPTIONS[attribution].items():
        with pytest.raises(TypeError, match=misplaced(attribution, entry, option, value)):
            getattr(made(attribution, net), entry)(images(), [2], **{option: value})
    assert net.forwards == 0


@pytest.mark.parametrize("attribution", GOOD_OPTIONS)
def test_constructor_option_passed_through_captums_tools_raises_type_error(attribution: type[Attribution]) -> None:
    net, x = Net(), images()
    explained = made(attribution, net)
    for option, value in GOOD_OPTIONS[attribution].items():
        given, message = {option: value}, misplaced(attribution, "attribute", option, value)
        with pytest.raises(TypeError, match=message):
            NoiseTunnel(explained).attribute(x, target=2, nt_samples=2, **given)
        if attribution in (ScoreCAM, LayerGradCamPlusPlus):
            in_input_space = InputSpaceAttribution(explained)
            with pytest.raises(TypeError, match=message):
                in_input_space.attribute(x, target=2, **given)
            with pytest.raises(TypeError, match=message):
                NoiseTunnel(in_input_space).attribute(x, target=2, nt_samples=2, **given)
    assert net.forwards == 0


@pytest.mark.parametrize(("attribution", "entry"), ENTRIES)
def test_unknown_keyword_raises_type_error(attribution: type[Attribution], entry: str) -> None:
    net = Net()
    with pytest.raises(TypeError, match=rf"{entry}\(\) got an unexpected keyword argument 'n_mask'"):
        getattr(made(attribution, net), entry)(images(), [2], n_mask=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'channel_weights'"):
        made(attribution, net, channel_weights="score")
    assert net.forwards == 0


@pytest.mark.parametrize(("attribution", "entry"), ENTRIES)
def test_a_call_has_at_most_twelve_parameters(attribution: type[Attribution], entry: str) -> None:
    parameters = signature(getattr(attribution, entry)).parameters
    assert next(iter(parameters)) == "self"
    assert len(parameters) - 1 <= 12


# --- Options of a call -----------------------------------------------------------------------------------------------


@each(OURS, lambda method: method.takes("perturbations_per_eval"))
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "Expected `perturbations_per_eval` to be at least 1, but got 0."),
        (-3, ValueError, "Expected `perturbations_per_eval` to be at least 1, but got -3."),
        (1.5, TypeError, "Expected `perturbations_per_eval` to be an int, but got 1.5."),
        ("many", TypeError, "Expected `perturbations_per_eval` to be an int, but got 'many'."),
    ],
)
def test_bad_chunk_size_raises_before_any_forward(
    method: Method, value: Any, error: type[Exception], message: str
) -> None:
    net = Net()
    with pytest.raises(error, match=re.escape(message)):
        method.explain(net, net.relu, images(), 2, perturbations_per_eval=value)
    assert net.forwards == 0


@each(METHODS, lambda method: method.takes("show_progress"))
def test_progress_bar_is_shown_on_demand(method: Method, capsys: pytest.CaptureFixture[str]) -> None:
    net, x = Net(), images()
    plain = method.explain(net, net.relu, x, 2)
    assert capsys.readouterr() == ("", "")
    shown = method.explain(net, net.relu, x, 2, show_progress=True)
    output = capsys.readouterr()
    assert f"{(method.over or method.attribution).get_name()} attribution: 100%" in output.err
    assert output.out == ""
    for one, other in zip(shown, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
