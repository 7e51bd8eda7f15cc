"""Guided methods and DeepLift are refused for models whose activations Captum does not know, or warn of some."""

from __future__ import annotations

import warnings

import pytest
import torch
from captum.attr import GuidedBackprop, NoiseTunnel, Saliency
from torch import Tensor, nn

from captum_scorecam.evaluation import chosen_methods, register_captum
from captum_scorecam.evaluation.method_choice import check_methods_run
from captum_scorecam.models import find_layer

GUIDED = ("Deconvolution", "GuidedBackprop", "GuidedGradCam")
DEEP_LIFT = ("DeepLift", "DeepLiftShap")
INPUTS = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))


class OwnReLU(nn.ReLU):
    """A subclass, which the guided methods know and DeepLift does not."""


def net(*activations: nn.Module) -> nn.Sequential:
    """Convolutions "0", "2", … with an activation after each, and a linear layer."""
    layers = [layer for activation in activations for layer in (nn.LazyConv2d(4, 3), activation)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    model(INPUTS)  # which makes the lazy parameters
    draws = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=draws)
    return model


def check(model: nn.Module, name: str, layer: str = "0") -> None:
    check_methods_run(chosen_methods([name]), model, find_layer(model, INPUTS, layer), INPUTS, 2)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_captum_itself_passes_unknown_activations_by() -> None:
    model, inputs = net(nn.ReLU6()), INPUTS.clone().requires_grad_()
    plain = Saliency(model).attribute(inputs, 0, abs=False)
    assert plain.any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(GuidedBackprop(model).attribute(inputs, 0), plain)


@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.SiLU(), nn.GELU()])
@pytest.mark.parametrize("name", [*GUIDED, *DEEP_LIFT, "LayerDeepLift", "LayerDeepLiftShap"])
def test_a_model_without_known_activations_is_refused(name: str, activation: nn.Module) -> None:
    activations = f"activation modules are {type(activation).__name__}: the map would be that of the plain gradient"
    known = r"nn\.ReLU" if name in GUIDED else r"nn\.ReLU, nn\.ELU, .*nn\.Softmax"
    with pytest.raises(ValueError, match=f"but {name} replaces the gradients of modules {known}, and .*{activations}"):
        check(net(activation), f"captum:{name}")


@pytest.mark.parametrize("name", [*GUIDED, *DEEP_LIFT])
def test_a_model_that_calls_functions_is_refused(name: str) -> None:
    class Functional(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            scores: Tensor = self[1](self[0](inputs).relu().mean((2, 3)))
            return scores

    with pytest.raises(ValueError, match=f"but {name} replaces .* activation modules are none"):
        check(Functional(nn.Conv2d(3, 4, 3), nn.Linear(4, 2)).eval(), f"captum:{name}")


def test_a_wrapped_attribution_of_ones_own_is_refused() -> None:
    register_captum("smooth_guided", lambda model: NoiseTunnel(GuidedBackprop(model)))
    check(net(nn.ReLU()), "smooth_guided")
    with pytest.raises(ValueError, match="smooth_guided replaces the gradients"):
        check(net(nn.ReLU6()), "smooth_guided")


@pytest.mark.parametrize("name", [*GUIDED, *DEEP_LIFT, "LayerDeepLift"])
def test_activations_that_are_not_known_among_known_ones_are_named(name: str) -> None:
    check(net(nn.ReLU(), nn.ReLU()), f"captum:{name}")
    with pytest.warns(UserWarning, match=f"{name} replaces .* but not those of the model's GELU, Hardswish"):
        check(net(nn.ReLU(), nn.Hardswish(), nn.GELU(), nn.ReLU()), f"captum:{name}")


def test_each_class_has_its_own_known_activations() -> None:
    check(net(nn.Sigmoid()), "captum:DeepLift")
    check(net(OwnReLU()), "captum:GuidedBackprop")
    with pytest.raises(ValueError, match=r"GuidedBackprop replaces .* are Sigmoid"):
        check(net(nn.Sigmoid()), "captum:GuidedBackprop")
    with pytest.raises(ValueError, match=r"DeepLift replaces .* are OwnReLU"):
        check(net(OwnReLU()), "captum:DeepLift")


def test_only_activations_after_the_explained_layer_matter_to_it() -> None:
    model = net(nn.SiLU(), nn.ReLU6())
    check(model, "captum:LayerDeepLift", "3")
    for layer, names in {"0": "ReLU6, SiLU", "1": "ReLU6", "1:input": "ReLU6, SiLU", "3:input": "ReLU6"}.items():
        with pytest.raises(ValueError, match=f"LayerDeepLift replaces .* are {names}:"):
            check(model, "captum:LayerDeepLift", layer)


@pytest.mark.parametrize("name", [*GUIDED, *DEEP_LIFT])
def test_the_softmax_of_scores_and_attention_are_no_activations(name: str) -> None:
    class Attending(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            tokens = self[0](inputs).flatten(2).transpose(1, 2)
            scores: Tensor = self[2](self[1](tokens, tokens, tokens)[0].mean(1))
            return scores

    check(net(nn.ReLU()).append(nn.Softmax(1)), f"captum:{name}")
    with pytest.raises(ValueError, match=f"but {name} replaces .* activation modules are SiLU:"):
        check(net(nn.SiLU()).append(nn.Softmax(1)), f"captum:{name}")
    attention = nn.MultiheadAttention(4, 1, batch_first=True)
    with pytest.raises(ValueError, match=f"but {name} replaces .* activation modules are none:"):
        check(Attending(nn.Conv2d(3, 4, 3), attention, nn.Linear(4, 2)).eval(), f"captum:{name}")
