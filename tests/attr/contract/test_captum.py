"""Captum's forms of targets, and Captum's tools, which accept every attribution unchanged."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from typing import Any

import pytest
import torch
from captum.attr import Attribution, LayerGradCam, NoiseTunnel
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from torch import Tensor, nn

from captum_scorecam import RISE, InputSpaceAttribution, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM
from tests.support.attributions import METHODS, Method, each, flat
from tests.support.small_net import Net, images


def of_one_target(method: Method) -> bool:
    return method.entry == "attribute"


def takes_plain_outputs(method: Method) -> bool:
    """Whether the score is not a class probability, which requires an output with classes."""
    parameters = signature(method.over or method.attribution).parameters
    return "score" not in parameters or method.options.get("score", parameters["score"].default) != "probability"


# --- Targets ---------------------------------------------------------------------------------------------------------

TARGETS: dict[str, Any] = {
    "int": 3,
    "0-d tensor": torch.tensor(3),
    "tensor of one": torch.tensor([3]),
    "tuple": (3,),
    "list": [3, 5],
    "1-d tensor": torch.tensor([3, 5]),
    "list of tuples": [(3,), (5,)],
}


@each(METHODS)
@pytest.mark.parametrize("form", TARGETS)
def test_every_form_of_target(method: Method, form: str) -> None:
    net, x = Net(), images()
    expected = method.expected(net, net.relu, x, TARGETS[form])
    method.assert_close(method.explain(net, net.relu, x, TARGETS[form]), expected)
    other = method.expected(net, net.relu, x, [3, 3] if isinstance(TARGETS[form], list) else [3, 5])
    alike = bool((other[0][1] - expected[0][1]).abs().max() < 1e-9)
    assert alike == (form == "1-d tensor")


class Pixelwise(nn.Module):
    """N×4×h×w, N×4×h or N values for N images."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.net, self.dimensions = Net(channels=4), dimensions

    def forward(self, x: Tensor) -> Tensor:
        maps = 9 * torch.tanh(self.net.norm(self.net.conv(x)))
        return {4: maps, 3: maps.sum(dim=3), 1: maps.sum(dim=(1, 2, 3))}[self.dimensions]


@each(METHODS)
@pytest.mark.parametrize(
    ("dimensions", "target"), [(4, (1, 2, 0)), (4, [(1, 2, 0), (3, 5, 4)]), (3, (2, 1)), (3, [(2, 1), (0, 5)])]
)
def test_targets_of_outputs_of_other_ranks(method: Method, dimensions: int, target: Any) -> None:
    model, x = Pixelwise(dimensions), images()
    actual = method.explain(model, model.net.conv, x, target)
    method.assert_close(actual, method.expected(model, model.net.conv, x, target))


@each(METHODS, takes_plain_outputs)
def test_output_of_one_value_for_each_example_needs_no_target(method: Method) -> None:
    model, x = Pixelwise(1), images()
    actual = method.explain(model, model.net.conv, x)
    method.assert_close(actual, method.expected(model, model.net.conv, x))


# --- The protocol ----------------------------------------------------------------------------------------------------

NAMES = {
    ScoreCAM: "Score-CAM",
    RISE: "RISE",
    MeaningfulPerturbation: "Mask",
    LayerGradCamPlusPlus: "Grad-CAM++",
    InputSpaceAttribution: "Input Space Attribution",
}


@each(METHODS)
def test_has_captums_attribution_protocol(method: Method) -> None:
    net, x = Net(), images()
    attribution = method.made(net, net.relu)
    assert isinstance(attribution, Attribution)
    assert attribution.forward_func is net
    assert attribution.has_convergence_delta() is False
    assert attribution.get_name() == NAMES[method.attribution]
    # a class activation map weighs activations, so that `infidelity` wants real-valued perturbations for it
    assert attribution.multiplies_by_inputs is not method.of_layer
    unlogged = getattr(attribution, method.entry).__wrapped__  # what Captum's tools call
    method.assert_close(flat(unlogged(attribution, x, **method.arguments(2))), method.expected(net, net.relu, x, 2))


@pytest.mark.parametrize("attribution", [ScoreCAM, RISE, MeaningfulPerturbation, LayerGradCamPlusPlus])
def test_signature_begins_with_captums(attribution: type[Attribution]) -> None:
    ours = list(signature(attribution.attribute).parameters.values())
    assert [p.name for p in ours[:4]] == ["self", "inputs", "target", "additional_forward_args"]
    if "layer" in signature(attribution).parameters:
        theirs = list(signature(LayerGradCam.attribute).parameters.values())
        assert [p.name for p in ours[: len(theirs)]] == [p.name for p in theirs]
        differ = [p.name for p, other in zip(ours, theirs, strict=False) if p.default != other.default]
        assert differ == (["relu_attributions"] if attribution is ScoreCAM else [])
        ours = ours[len(theirs) :]
        assert list(signature(attribution).parameters)[:3] == list(signature(LayerGradCam).parameters)[:3]
    else:
        ours = ours[4:]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours)


# --- Tools -----------------------------------------------------------------------------------------------------------


def in_input_space(method: Method, net: Net) -> Any:
    """Returns the attribution, with layer maps resized to the inputs, as Captum's metrics expect."""
    attribution = method.made(net, net.relu)
    return attribution if method.in_input_space else InputSpaceAttribution(attribution)


@each(METHODS, of_one_target)
def test_noise_tunnel_without_noise_is_the_plain_call(method: Method) -> None:
    net, x = Net(), images()
    method = replace(method, seed=3) if method.takes("generator") else method  # the tunnel draws from the global one
    tunnel = NoiseTunnel(method.made(net, net.relu))
    (plain,) = method.explain(net, net.relu, x, [3, 5])
    plain = plain.detach()

    def through_the_tunnel(**options: Any) -> Tensor:
        given = {"nt_samples": 3, "stdevs": 0.0, **method.arguments([3, 5]), **options}
        (result,) = flat(tunnel.attribute(x, **given))
        return result.detach()

    method.assert_close((through_the_tunnel(),), (plain,))
    method.assert_close((through_the_tunnel(nt_type="smoothgrad_sq"),), (plain**2,))
    variance = through_the_tunnel(nt_type="vargrad")
    assert float(variance.abs().max()) <= 1e-10 * max(1, float(plain.abs().max()) ** 2)
    if method.seed is None:  # one generator would move on from batch to batch
        method.assert_close((through_the_tunnel(nt_samples_batch_size=1),), (plain,))


@each(METHODS, of_one_target)
def test_infidelity_is_its_formula(method: Method) -> None:
    net, x, step = Net(), images(), 0.1 * images(seed=9)
    maps = in_input_space(method, net).attribute(x, **method.arguments([3, 5])).detach()
    with torch.no_grad():
        drop = net(x)[[0, 1], [3, 5]] - net(x - step)[[0, 1], [3, 5]]
    expected = ((step * maps).flatten(1).sum(dim=1) - drop) ** 2  # the mean over one perturbation
    perturb = infidelity_perturb_func_decorator(multiply_by_inputs=False)(lambda inputs: inputs - step)
    for perturb_func in (perturb, lambda inputs: (step, inputs - step)):
        actual = infidelity(net, perturb_func, x, maps, target=[3, 5], n_perturb_samples=1)
        torch.testing.assert_close(actual, expected)


@each(METHODS, of_one_target)
def test_sensitivity_is_zero_without_a_perturbation_and_its_formula_with_one(method: Method) -> None:
    net, x, step = Net(), images(3), 0.2 * images(3, seed=9)
    explain, options = in_input_space(method, net).attribute, method.arguments([3, 5, 0])
    for inputs, given in ((x, options), (x[:1], method.arguments([3]))):
        still = sensitivity_max(explain, inputs, lambda inputs, _radius: inputs, n_perturb_samples=2, **given)
        assert float(still.max()) < 1e-12
    moved = sensitivity_max(explain, x, lambda inputs, _radius: inputs + step, n_perturb_samples=1, **options)
    before, after = (explain(z, **options).detach().flatten(1) for z in (x, x + step))
    expected = (after - before).norm(dim=1) / before.norm(dim=1)
    assert float(expected.min()) > 1e-3
    torch.testing.assert_close(moved, expected)
