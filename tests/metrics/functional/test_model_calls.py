"""All metrics that run a model: invalid options, warnings, and the model's state."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_scorecam import ScoreCAM
from captum_scorecam.metrics import functional
from tests.support.small_net import Net, images, nothing_changes

CURVES = ["insertion", "deletion", "morf", "lerf", "srg"]
PIXEL_METRICS = ["masked_input_scores", *CURVES]
CAPTUM_METRICS = ["infidelity", "sensitivity_max"]
RANDOMIZATION = "cascading_parameter_randomization"


def call(metric: str, net: Net, x: Tensor, forward_func: Any = None, **options: Any) -> Any:
    """Calls a metric of `net`, or of a function of it, with good arguments and the given options."""
    forward_func = net if forward_func is None else forward_func
    function, cam = getattr(functional, metric), ScoreCAM(forward_func, net.relu)
    if metric in CAPTUM_METRICS:
        return function(cam, x, 0, **options)
    if metric == RANDOMIZATION:
        return function(net, lambda inputs: cam.attribute(inputs, 0, relu_attributions=False), x, **options)
    return function(forward_func, x, x.detach()[:, :1], 0, **options)


# --- Bad options ------------------------------------------------------------------------------------------------------

NAN = float("nan")
BAD_OPTIONS: dict[str, list[tuple[dict[str, Any], type[Exception], str]]] = {
    "masked_input_scores": [
        ({"keep_fraction": 0.0}, ValueError, "Expected `keep_fraction` in (0, 1], but got 0.0"),
        ({"keep_fraction": 1.5}, ValueError, "Expected `keep_fraction` in (0, 1], but got 1.5"),
        ({"keep_fraction": NAN}, ValueError, "Expected `keep_fraction` in (0, 1], but got nan"),
        ({"mask": "hard"}, ValueError, "Expected `mask` to be 'soft' or 'binary', but got 'hard'"),
        ({"mask": "binary", "keep_fraction": None}, ValueError, "Expected a `keep_fraction` with mask='binary'"),
    ],
    "infidelity": [
        ({"noise_std": 0.0}, ValueError, "Expected `noise_std` to be positive, but got 0.0"),
        ({"noise_std": -1.0}, ValueError, "Expected `noise_std` to be positive, but got -1.0"),
        ({"noise_std": NAN}, ValueError, "Expected `noise_std` to be positive, but got nan"),
    ],
    "sensitivity_max": [
        ({"perturb_radius": 0.0}, ValueError, "Expected `perturb_radius` to be positive, but got 0.0"),
        ({"perturb_radius": -1.0}, ValueError, "Expected `perturb_radius` to be positive, but got -1.0"),
        ({"perturb_radius": NAN}, ValueError, "Expected `perturb_radius` to be positive, but got nan"),
    ],
    RANDOMIZATION: [
        (
            {"order": "sideways"},
            ValueError,
            "Expected `order` to be 'top_down', 'bottom_up' or 'independent', but got 'sideways'",
        ),
        ({"layers": ["head"]}, ValueError, "Expected `layers` to be names of modules of the model, but got 'head'"),
        ({"layers": ["relu"]}, ValueError, "Expected `layers` with parameters, but 'relu' has none"),
        ({"layers": []}, ValueError, "Expected at least one layer with parameters, but got none"),
    ],
}
for step in (0.0, -0.1, 1.5, NAN):
    for metric in CURVES:
        error = ({"step": step}, ValueError, f"Expected `step` in (0, 1], but got {step}")
        BAD_OPTIONS.setdefault(metric, []).append(error)
for metric in PIXEL_METRICS:
    BAD_OPTIONS[metric] += [
        (
            {"baselines": "black"},
            ValueError,
            "Expected `baselines` to be 'blur' or a number, tensor, tuple or callable",
        ),
        (
            {"score": "logit"},
            ValueError,
            "Expected `score` to be 'output', 'probability', 'sigmoid' or a callable, but got 'logit'",
        ),
        (
            {"perturbations_per_eval": 0},
            ValueError,
            "Expected `perturbations_per_eval` to be at least 1, but got 0",
        ),
        ({"perturbations_per_eval": 0.5}, TypeError, "Expected `perturbations_per_eval` to be an int, but got 0.5"),
    ]
for metric in CAPTUM_METRICS:
    BAD_OPTIONS[metric] += [
        ({"n_perturb_samples": 0}, ValueError, "Expected `n_perturb_samples` to be at least 1, but got 0"),
        ({"n_perturb_samples": 2.5}, TypeError, "Expected `n_perturb_samples` to be an int, but got 2.5"),
        ({"max_examples_per_batch": 1}, ValueError, "Expected `max_examples_per_batch` to be at least 2, but got 1"),
        (
            {"score": "probability"},
            TypeError,
            "`score` is an option of ScoreCAM, not of ScoreCAM.attribute: pass it to the constructor, as in "
            "ScoreCAM(..., score='probability').",
        ),
        (
            {"colour": "red"},
            TypeError,
            "Expected `attribute_options` to be arguments of ScoreCAM.attribute, but got `colour`.",
        ),
    ]


@pytest.mark.parametrize(
    ("metric", "options", "error", "message"),
    [(metric, *case) for metric, cases in BAD_OPTIONS.items() for case in cases],
)
def test_bad_options_raise_before_any_forward(
    metric: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    net = Net()
    with pytest.raises(error, match=re.escape(message)):
        call(metric, net, images(), **options)
    assert net.forwards == 0


# --- Warnings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [*PIXEL_METRICS, "road", *CAPTUM_METRICS])
def test_warnings_point_at_the_line_of_the_caller(metric: str) -> None:
    with pytest.warns(UserWarning, match="The model is in training mode") as caught:
        call(metric, Net().train(), images())
    assert {warning.filename for warning in caught} == {__file__}


# --- The state of the model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "compiled", "options"),
    [
        ("masked_input_scores", False, {}),
        ("masked_input_scores", True, {}),
        ("insertion", False, {"step": 0.5}),
        ("deletion", False, {"step": 0.5}),
        ("morf", False, {"step": 0.5}),
        ("lerf", False, {"step": 0.5}),
        ("srg", False, {"step": 0.5}),
        ("srg", True, {"step": 0.5}),
        ("road", False, {"fractions": [0.2, 0.5]}),
        ("infidelity", False, {"n_perturb_samples": 2}),
        ("infidelity", True, {"n_perturb_samples": 2}),
        ("sensitivity_max", False, {"n_perturb_samples": 2}),
        ("sensitivity_max", True, {"n_perturb_samples": 2}),
    ],
)
def test_nothing_changes(metric: str, compiled: bool, options: dict[str, Any]) -> None:
    net, x = Net(dropout=0.5).train(), images().requires_grad_()
    forward_func = torch.compile(net, backend="eager") if compiled else net
    with nothing_changes(net, x), pytest.warns(UserWarning, match="training mode"):
        values = call(metric, net, x, forward_func, **options)
    assert not any(part.requires_grad for part in (values if isinstance(values, tuple) else [values]))
    torch.compiler.reset()


@pytest.mark.parametrize("metric", [*PIXEL_METRICS, "road", *CAPTUM_METRICS])
def test_nothing_changes_after_an_exception(metric: str) -> None:
    net, x = Net(dropout=0.5).train(), images()
    # The second and third forward pass of curves compare scores with those of the first.
    net.fails_at = 4 if metric in (*CURVES, "road") else 2
    with (
        nothing_changes(net, x),
        pytest.warns(UserWarning, match="training mode"),
        pytest.raises(RuntimeError, match="no more"),
    ):
        call(metric, net, x)
