"""Warnings point at the user's line for every public call, and errors for options have one form."""

from __future__ import annotations

import linecache
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import NoiseTunnel
from captum.metrics import sensitivity_max
from torch import Tensor, nn

from captum_scorecam import InputSpaceAttribution, LayerGradCamPlusPlus, ScoreCAM
from captum_scorecam._messages import (
    check_at_least,
    check_choice,
    check_fraction,
    check_positive,
    check_whole_number,
    closest_matches,
    closest_names,
    warn_caller,
    without_constructor_options,
)
from captum_scorecam.metrics import functional
from tests.support.attributions import OURS, Method, each
from tests.support.small_net import NARROW, Net, images


@contextmanager
def every_warning(of_narrow_scores: bool = False) -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not of_narrow_scores:
            warnings.filterwarnings("ignore", message=NARROW)
        yield caught


def assert_point_here(caught: list[warnings.WarningMessage], message: str) -> None:
    """Checks that the only warning is the expected one, at a line of this file that ends in `# here`."""
    assert caught
    for warning in caught:
        assert re.search(message, str(warning.message))
        assert warning.category is UserWarning
        assert warning.filename == __file__
        assert linecache.getline(__file__, warning.lineno).endswith("# here\n")


# --- Every warning, through every call -------------------------------------------------------------------------------


class Twice(Net):
    def forward(self, x: Tensor) -> Tensor:
        z = self.relu(self.norm(self.conv(x)))
        scores: Tensor = self.fc(F.adaptive_avg_pool2d(self.relu(1 - z), 2).flatten(1))
        return scores


class Probabilities(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class Ones(nn.ReLU):
    def forward(self, z: Tensor) -> Tensor:
        return torch.ones_like(z)


class Constant(Net):
    def __init__(self) -> None:
        super().__init__()
        self.relu = Ones()


# The model that causes a warning, and its text
WARNINGS: dict[str, tuple[Callable[[], Net], str]] = {
    "training mode": (lambda: Net().train(), "The model is in training mode: scores depend on the batch"),
    "runs twice": (Twice, r"layer ReLU\(\) ran 2 times in one forward pass"),
    "probabilities": (Probabilities, NARROW),
    "constant": (Constant, "All channels of the layer are constant for 2 of 2 examples"),
}
Explainer = Any


def directly(attribution: Explainer, x: Tensor) -> None:
    attribution.attribute(x, target=2)  # here


def for_several_targets(attribution: Explainer, x: Tensor) -> None:
    attribution.attribute_targets(x, [2, 4])  # here


def unlogged(attribution: Explainer, x: Tensor) -> None:
    type(attribution).attribute.__wrapped__(attribution, x, target=2)  # here


def through_noise_tunnel(attribution: Explainer, x: Tensor) -> None:
    NoiseTunnel(attribution).attribute(x, nt_samples=1, stdevs=0.0, target=2)  # here


def in_input_space(attribution: Explainer, x: Tensor) -> None:
    InputSpaceAttribution(attribution).attribute(x, target=2)  # here


def in_input_space_through_noise_tunnel(attribution: Explainer, x: Tensor) -> None:
    NoiseTunnel(InputSpaceAttribution(attribution)).attribute(x, nt_samples=1, target=2)  # here


def through_captums_sensitivity(attribution: Explainer, x: Tensor) -> None:
    explain = InputSpaceAttribution(attribution).attribute
    sensitivity_max(explain, x, perturb_func=lambda inputs: inputs, n_perturb_samples=1, target=2)  # here


def in_a_function_given_to_captums_sensitivity(attribution: Explainer, x: Tensor) -> None:
    def explain(inputs: tuple[Tensor, ...]) -> Any:
        return InputSpaceAttribution(attribution).attribute(inputs, target=2)  # here

    sensitivity_max(explain, x, perturb_func=lambda inputs: inputs, n_perturb_samples=1)


def through_infidelity(attribution: Explainer, x: Tensor) -> None:
    functional.infidelity(attribution, x, 2, n_perturb_samples=1)  # here


def through_sensitivity(attribution: Explainer, x: Tensor) -> None:
    functional.sensitivity_max(attribution, x, 2, n_perturb_samples=1)  # here


def in_a_lambda_given_to_randomization(attribution: Explainer, x: Tensor) -> None:
    explain = lambda inputs: attribution.attribute(inputs, target=2) + varied(inputs)  # noqa: E731  # here
    list(functional.cascading_parameter_randomization(attribution.forward_func, explain, x, layers=["fc"]))


def in_an_object_given_to_randomization(attribution: Explainer, x: Tensor) -> None:
    class Varied:
        def __call__(self, inputs: Any) -> Any:
            return attribution.attribute(inputs, target=2) + varied(inputs)  # here

    records = functional.cascading_parameter_randomization(attribution.forward_func, Varied(), x, layers=["fc"])
    assert next(records).layer == "fc"


def varied(inputs: Tensor) -> Tensor:
    """No map is constant, which randomisation would reject."""
    return torch.arange(30, dtype=inputs.dtype).view(1, 1, 6, 5)


def in_a_list_of_partials(attribution: Explainer, x: Tensor) -> None:
    list(map(partial(attribution.attribute, target=2), [x]))  # here


def under_decorators_of_torch(attribution: Explainer, x: Tensor) -> None:
    torch.inference_mode()(torch.no_grad()(attribution.attribute))(x, target=2)  # here


PATHS = [
    directly,
    for_several_targets,
    unlogged,
    through_noise_tunnel,
    in_input_space,
    in_input_space_through_noise_tunnel,
    through_captums_sensitivity,
    in_a_function_given_to_captums_sensitivity,
    through_infidelity,
    through_sensitivity,
    in_a_lambda_given_to_randomization,
    in_an_object_given_to_randomization,
    in_a_list_of_partials,
    under_decorators_of_torch,
]


@pytest.mark.parametrize("name", WARNINGS)
@pytest.mark.parametrize("path", PATHS)
def test_warning_points_at_the_users_line(path: Callable[[Explainer, Tensor], None], name: str) -> None:
    make, message = WARNINGS[name]
    net = make()
    with every_warning(of_narrow_scores=message == NARROW) as caught:
        path(ScoreCAM(net, net.relu), images())
    assert_point_here(caught, message)


@each(OURS)
def test_warning_of_every_attribution_points_at_the_users_line(method: Method) -> None:
    net, x = Net().train(), images()
    attribution, arguments = method.made(net, net.relu), method.arguments(2)
    with every_warning() as caught:
        getattr(attribution, method.entry)(x, **arguments)  # here
    assert_point_here(caught, "training mode")
    assert len(caught) == 1


def test_warning_of_every_metric_that_runs_a_model_points_at_the_users_line() -> None:
    net, x = Net().train(), images()
    with every_warning() as caught:
        functional.masked_input_scores(net, x, x, 2)  # here
        functional.insertion(net, x, x, 2, step=0.5)  # here
        functional.deletion(net, x, x, 2, step=0.5)  # here
    assert_point_here(caught, "training mode")
    assert len(caught) == 3


def test_warning_of_a_method_given_to_randomization_points_at_the_line_that_takes_a_record() -> None:
    net, x = Net().train(), images()
    explain = partial(ScoreCAM(net, net.relu).attribute, target=2, relu_attributions=False)
    with every_warning() as caught:
        records = functional.cascading_parameter_randomization(net, explain, x, layers=["conv", "fc"])
        assert caught == []
        next(records)  # here
        assert len(caught) == 2  # the original model's maps too
        for _ in records:  # here
            pass
    assert_point_here(caught, "training mode")
    assert len(caught) == 3


def test_warning_of_ignored_grad_kwargs_points_at_the_users_line() -> None:
    net, x = Net(), images()
    score_cam, options = ScoreCAM(net, net.relu), {"materialize_grads": True}
    with every_warning() as caught:
        score_cam.attribute(x, 2, grad_kwargs=options)  # here
        InputSpaceAttribution(score_cam).attribute(x, 2, grad_kwargs=options)  # here
        NoiseTunnel(score_cam).attribute(x, nt_samples=1, target=2, grad_kwargs=options)  # here
    assert_point_here(caught, r"Score-CAM uses no gradients; `grad_kwargs` is ignored\.")
    assert len(caught) == 3


def test_warning_of_a_constructor_points_at_the_users_line() -> None:
    class Mine(ScoreCAM):
        def __init__(self, net: Net) -> None:
            super().__init__(net, net.relu, score="probability")  # here

    net = Net()
    with every_warning() as caught:
        ScoreCAM(net, net.relu, score="probability")  # here
        InputSpaceAttribution(ScoreCAM(net, net.relu, score="probability"))  # here
        [explain(net, net.relu, score="probability") for explain in (ScoreCAM,)]  # here
        Mine(net)
    assert_point_here(caught, "The softmax of probabilities hardly varies over the channels")
    assert len(caught) == 4


def test_warning_points_at_the_line_of_the_call_that_stands_in_the_users_score() -> None:
    net, inner, x = Net(), Twice(), images()

    def score(output: Tensor) -> Tensor:
        ScoreCAM(inner, inner.relu).attribute(x, target=2)  # here
        return output

    with every_warning() as caught:
        LayerGradCamPlusPlus(net, net.relu, score=score).attribute(x, target=2)
    assert_point_here(caught, "ran 2 times")
    assert len(caught) == 1


# --- The pieces ------------------------------------------------------------------------------------------------------


def test_warn_caller_outside_of_the_package_points_at_its_own_caller() -> None:
    with pytest.warns(DeprecationWarning, match="old") as caught:
        warn_caller("old", DeprecationWarning)  # here
    assert linecache.getline(caught[0].filename, caught[0].lineno).endswith("# here\n")


Colour = Literal["red", "green", "blue"]


def test_check_choice_lists_the_choices() -> None:
    check_choice("colour", "green", Colour)
    for value, got in [("pink", "'pink'"), (3, "3"), (None, "None"), (["red"], r"\['red'\]")]:
        with pytest.raises(ValueError, match=rf"^Expected `colour` to be 'red', 'green' or 'blue', but got {got}\.$"):
            check_choice("colour", value, Colour)
    with pytest.raises(
        ValueError, match=r"^Expected `colour` to be 'red', 'green', 'blue' or a callable, but got 3\.$"
    ):
        check_choice("colour", 3, Colour, otherwise="a callable")


@pytest.mark.parametrize("value", [-1, 0.5, float("nan")])
def test_check_at_least_refuses_what_is_less_and_nan(value: float) -> None:
    check_at_least("n", 1, 1)
    with pytest.raises(ValueError, match=rf"^Expected `n` to be at least 1, but got {re.escape(str(value))}\.$"):
        check_at_least("n", value, 1)


@pytest.mark.parametrize("value", [0, -0.5, 1, 1.5, float("nan")])
def test_check_fraction_takes_one_only_where_asked(value: float) -> None:
    check_fraction("share", 0.5)
    check_fraction("share", 1, with_one=True)
    with pytest.raises(ValueError, match=rf"^Expected `share` in \(0, 1\), but got {re.escape(str(value))}\.$"):
        check_fraction("share", value)


def check_non_negative(name: str, value: float) -> None:
    check_at_least(name, value, 0)


@pytest.mark.parametrize("check", [check_non_negative, check_positive, check_fraction])
def test_checks_of_numbers_refuse_other_types_and_infinity(check: Callable[[str, Any], None]) -> None:
    for value in ("1", None, True, [1]):
        with pytest.raises(TypeError, match=rf"^Expected `n` to be a number, but got {re.escape(repr(value))}\.$"):
            check("n", value)
    for infinity in (float("inf"), -float("inf")):
        with pytest.raises(ValueError, match=rf"^Expected `n` to be a finite number, but got {infinity}\.$"):
            check("n", infinity)


@pytest.mark.parametrize("value", [0, -0.5, float("nan")])
def test_check_positive_refuses_zero_and_nan(value: float) -> None:
    check_positive("step", 1e-9)
    with pytest.raises(ValueError, match=rf"^Expected `step` to be positive, but got {re.escape(str(value))}\.$"):
        check_positive("step", value)


def test_check_whole_number_tells_types_from_values() -> None:
    assert check_whole_number("n", 2, least=2) == 2
    assert type(check_whole_number("n", np.int8(2), least=2)) is int
    for value in (2.0, "2", None, torch.tensor(2), True):
        with pytest.raises(TypeError, match=rf"^Expected `n` to be an int, but got {re.escape(repr(value))}\.$"):
            check_whole_number("n", value, least=2)
    with pytest.raises(ValueError, match=r"^Expected `n` to be at least 2, but got 1\.$"):
        check_whole_number("n", 1, least=2)
    with pytest.raises(ValueError, match=r"^Expected `n` to be at most 9, but got 1000000000000000000\.$"):
        check_whole_number("n", 10**18, least=2, most=9)
    with pytest.raises(ValueError, match=r"^Expected `n` to be a finite number, but got 10+\.\.\.0+\.$"):
        check_positive("n", 10**400)


def test_option_of_the_constructor_is_no_option_of_the_call() -> None:
    class Explainer:
        def __init__(self, depth: int = 1) -> None:
            self.depth = depth

        @without_constructor_options
        def attribute(self, inputs: int, *, scale: int = 1) -> int:
            return self.depth * inputs * scale

    assert Explainer(depth=2).attribute(3, scale=5) == 30
    assert Explainer.attribute(Explainer(), inputs=4) == 4
    with pytest.raises(TypeError, match=r"^`depth` is an option of Explainer, not of Explainer\.attribute: pass it to"):
        Explainer().attribute(3, depth=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'width'"):
        Explainer().attribute(3, width=2)  # type: ignore[call-arg]


NAMES = ["grad_cam", "grad_cam_plus_plus", "score_cam", "rise", "Cardigan"]


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("scorecam", " Closest matches: score_cam."),
        ("SCORE-CAM", " Closest matches: score_cam."),
        ("cardigans", " Closest matches: Cardigan."),
        ("lime", ""),
        ("", ""),
    ],
)
def test_misspelled_names_have_closest_matches(name: str, closest: str) -> None:
    assert closest_matches(name, NAMES) == closest


def test_the_closest_name_comes_first_and_at_most_five_are_listed() -> None:
    assert closest_names("score_cat", NAMES)[0] == "score_cam"
    assert closest_names("layer1", [f"layer1.{index}" for index in range(9)]) == [
        f"layer1.{index}" for index in (8, 7, 6, 5, 4)
    ]


def test_a_misspelled_choice_has_its_closest_matches() -> None:
    with pytest.raises(ValueError, match=r"but got 'probabilty'\. Closest matches: probability\.$"):
        check_choice("score", "probabilty", Literal["output", "probability"])
