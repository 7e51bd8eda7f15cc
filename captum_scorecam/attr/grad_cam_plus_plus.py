"""Grad-CAM++: a layer's activation maps, weighted by their positive gradients."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from captum.attr import GradientAttribution, LayerAttribution
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_scorecam import _captum
from captum_scorecam._captum import ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import (
    check_device_ids,
    check_finite,
    check_flags,
    check_optional,
    without_constructor_options,
)
from captum_scorecam.layer_evaluation import evaluate_layer
from captum_scorecam.layers import ExplainedLayer, FoundLayers, check_layer_choice
from captum_scorecam.masking.activation_maps import checked_activation_maps
from captum_scorecam.masking.scaling import working_dtype
from captum_scorecam.model_state import gradients_enabled, unchanged_model_state
from captum_scorecam.scoring.chunks import is_out_of_memory
from captum_scorecam.scoring.class_scores import ClassScores, Score, score_function
from captum_scorecam.scoring.masked_forward import forward_of_rows
from captum_scorecam.scoring.repeated_forward import is_reproducible
from captum_scorecam.weighting import weighted_maps


def grad_cam_plus_plus_weights(activations: Tensor, gradients: Tensor) -> Tensor:
    r"""Computes the weight of each channel: w = Σ_ij α_ij ReLU(g_ij) (arXiv 1710.11063, section 3).

    For a score that is the exponential of the target's output, whose gradient is g, the paper's closed form becomes
    α_ij = g² / (2 g² + Σ_ab A_ab g³) = 1 / (2 + g Σ_ab A_ab). The second form avoids 0/0 where the gradient
    vanishes, and underflow of g³. The factor exp(output), common to all weights, is omitted.

    Args:
        activations (Tensor): A, N×K×spatial.
        gradients (Tensor): g, of the same shape.

    Returns:
        Tensor: w, N×K, in float32 (float64 for float64). Always finite: if 2 + g Σ A is 0 (possible only for a
        negative Σ A), α has a pole and is set to 0.
    """
    positive = gradients.to(working_dtype(activations.dtype)).flatten(2).relu()
    total = activations.to(positive.dtype).flatten(2).sum(2, keepdim=True)
    denominator = 2 + positive * total
    return torch.where(denominator == 0, 0.0, positive / denominator).sum(2)


class LayerGradCamPlusPlus(LayerAttribution, GradientAttribution):
    r"""Grad-CAM++ (`arXiv 1710.11063 <https://arxiv.org/abs/1710.11063>`_), with Captum's ``LayerGradCam`` interface.

    Grad-CAM weights a channel by its mean gradient; Grad-CAM++ sums the positive gradients, each with a coefficient:

    .. math::

        w_k = \sum_{ij} \alpha^k_{ij} \mathrm{ReLU}(g^k_{ij}), \quad
        \alpha^k_{ij} = \frac{(g^k_{ij})^2}{2 (g^k_{ij})^2 + \sum_{ab} A^k_{ab} (g^k_{ij})^3}, \quad
        L = \sum_k w_k A_k

    It runs one forward and one backward pass.

    Args:
        forward_func, layer, device_ids: Same as for :class:`ScoreCAM`.
        score (str or callable): The score to differentiate, as for :class:`ScoreCAM`. Default: ``"output"``, as in
            the paper.
        activation_transform (callable, optional): Converts the layer's activation, and its gradient, to maps
            N×K×spatial. It may only rearrange and drop values, as :func:`vit_activation_maps` does. Default: None.

    Raises:
        TypeError, ValueError: If an option has the wrong type or is out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from captum_scorecam import LayerGradCamPlusPlus
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
        >>> LayerGradCamPlusPlus(model, model[1]).attribute(torch.rand(2, 3, 32, 32), target=3).shape
        torch.Size([2, 1, 30, 30])
    """

    def __init__(
        self,
        forward_func: ForwardFunction,
        layer: Module | str,
        device_ids: list[int] | None = None,
        *,
        score: Score = "output",
        activation_transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        GradientAttribution.__init__(self, forward_func)
        check_layer_choice(forward_func, layer, activation_transform)
        check_device_ids(device_ids)
        score_function(score)
        self.score = score
        self.activation_transform = activation_transform
        self._layers = FoundLayers()

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Grad-CAM++"

    @log_usage()
    @without_constructor_options
    def attribute(
        self,
        inputs: Tensor | Tensors,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Tensor | Tensors:
        """Computes the map of one target for each example, with LayerGradCam's signature and defaults.

        Args:
            grad_kwargs (dict, optional): Additional arguments of ``torch.autograd.grad``. The other arguments are those
                of :meth:`ScoreCAM.attribute`, except that `relu_attributions` is False by default.

        Returns:
            Tensor or tuple of Tensor: Maps, as returned by :meth:`ScoreCAM.attribute`, detached.

        Raises:
            Same as :meth:`ScoreCAM.attribute`.
        """
        check_flags(
            attribute_to_layer_input=attribute_to_layer_input,
            relu_attributions=relu_attributions,
            attr_dim_summation=attr_dim_summation,
        )
        check_optional("grad_kwargs", grad_kwargs, dict, "a dict")
        tensors = _captum.format_inputs(inputs)
        for x in tensors:
            check_finite("inputs", x)
        arguments = _captum.format_forward_args(additional_forward_args)
        scores = ClassScores(score_function(self.score), [target], len(tensors[0]), tensors[0].device)
        with _refused_types_named(tensors):
            layer = self._layers.find(
                self.forward_func,
                self.layer,
                self.activation_transform,
                tensors,
                arguments,
                self.score,
                attribute_to_layer_input,
            )
        of_input, options = attribute_to_layer_input or layer.of_input, grad_kwargs or {}
        run = partial(forward_of_rows, self.forward_func, arguments, len(tensors[0]))
        with unchanged_model_state(self.forward_func, tensors) as state:
            maps, slopes, _ = state.first_forward(
                lambda: self._maps_and_gradients(layer, tensors, arguments, scores, of_input, options),
                lambda result, changed: not changed or is_reproducible(run, tensors, result[2], scores.all_of_rows),
            )
            attributions = [
                _attribution(of_map.detach(), slope.detach(), attr_dim_summation)
                for of_map, slope in zip(maps, slopes, strict=True)
            ]
        return _captum.format_output(tuple(x.relu() if relu_attributions else x for x in attributions))

    def _maps_and_gradients(
        self,
        layer: ExplainedLayer,
        inputs: Tensors,
        arguments: tuple[Any, ...],
        scores: ClassScores,
        of_input: bool,
        grad_kwargs: dict[str, Any],
    ) -> tuple[Tensors, Tensors, Any]:
        """Runs a forward and a backward pass; returns the layer's maps, their gradients, and the output."""
        with gradients_enabled():
            with _refused_types_named(inputs):
                evaluation = evaluate_layer(
                    self.forward_func,
                    layer.module,
                    # The model may modify them, and autograd does not accept tensors made in ``inference_mode``.
                    tuple(x.detach().clone() for x in inputs),
                    _captum.copies_of_arguments(arguments),
                    self.device_ids,
                    of_input,
                    with_graph=True,
                )
            maps = checked_activation_maps(evaluation.activations, inputs, layer.activation_transform)
            gradients = evaluation.gradients(scores.select_examples(evaluation.output)[:, 0], grad_kwargs)
        slopes = checked_activation_maps(gradients, inputs, layer.activation_transform, are_gradients=True)
        return maps, slopes, evaluation.output


@contextmanager
def _refused_types_named(inputs: Tensors) -> Iterator[None]:
    """Raises TypeError if a forward pass fails for the dtype of inputs that are not floating-point.

    Some models take such inputs.
    """
    try:
        yield
    except RuntimeError as error:
        others = [str(x.dtype) for x in inputs if not x.is_floating_point()]
        if not others or is_out_of_memory(error) or not re.search("type|not implemented for", str(error)):
            raise
        raise TypeError(
            f"Expected `inputs` of a type that `forward_func` takes, usually floating-point, but it failed with "
            f"{', '.join(others)}."
        ) from error


def _attribution(activations: Tensor, gradients: Tensor, summed: bool) -> Tensor:
    weights = grad_cam_plus_plus_weights(activations, gradients).unsqueeze(2)
    maps = weighted_maps(activations, weights, summed)
    return maps if summed else maps[:, 0]
