"""Score-CAM: a layer's activation maps, weighted by the class scores of the inputs that they mask."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from captum.attr import LayerAttribution, PerturbationAttribution
from captum.log import log_usage
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import Module

from captum_scorecam import _captum
from captum_scorecam._captum import BaselineType, ForwardFunction, TargetType, Tensors
from captum_scorecam.activation_maps import checked_activation_maps
from captum_scorecam.attr.options import check_options, check_tolerance, warn_of_probabilities
from captum_scorecam.attr.run_statistics import RunStatistics
from captum_scorecam.attr.tolerance import scores_within_tolerance
from captum_scorecam.chunk_size import ChunkSizes
from captum_scorecam.class_scores import ScoreFunction
from captum_scorecam.masked_forward import MaskedForward
from captum_scorecam.masks import ChannelMasks
from captum_scorecam.model_state import unchanged_model_state
from captum_scorecam.process_group import from_first_rank
from captum_scorecam.scoring import score_baselines, score_masked_inputs
from captum_scorecam.weighting import channel_weights, weighted_maps


class ScoreCAM(LayerAttribution, PerturbationAttribution):
    r"""Score-CAM (`arXiv 1910.01279 <https://arxiv.org/abs/1910.01279>`_), a class activation map without gradients.

    Each channel :math:`A_k` of a layer's activation, upsampled and scaled to [0, 1], masks the input; the class score
    of the masked input becomes the channel's weight; the map is the ReLU of the weighted sum of the channels:

    .. math::

        H_k = s(U(A_k)), \quad S_k = f^c(B + H_k \circ (X - B)), \quad L = \mathrm{ReLU}\left(\sum_k \alpha_k A_k\right)

    with :math:`\alpha` = softmax(S) over the channels by default. Swap it for Captum's ``LayerGradCam``: the call stays
    as it is. It costs one forward pass for each distinct map of the layer that is not constant.

    Args:
        forward_func (callable): The model, or any function of its inputs.
        layer (torch.nn.Module): The layer to explain, usually the last convolutional one. Its output (or input) must
            have shape N×K×spatial, or be given that shape by ``activation_transform``.
        device_ids (list of int, optional): The devices of a DataParallel model that `forward_func` wraps.

    Attributes:
        last_run (RunStatistics or None): What the last call ran and what it could leave out.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from captum_scorecam import ScoreCAM
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
        >>> ScoreCAM(model, model[1]).attribute(torch.rand(2, 3, 32, 32), target=3).shape
        torch.Size([2, 1, 30, 30])
    """

    def __init__(self, forward_func: ForwardFunction, layer: Module, device_ids: list[int] | None = None) -> None:
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        PerturbationAttribution.__init__(self, forward_func)
        self.last_run: RunStatistics | None = None
        self._chunk_sizes = ChunkSizes()

    @classmethod
    def get_name(cls) -> str:
        """The method's name as it is written."""
        return "Score-CAM"

    @property
    def multiplies_by_inputs(self) -> bool:
        """False, as for LayerGradCam, since the map weighs activations, not differences of inputs from a baseline."""
        return False

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | Tensors,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = True,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        baselines: BaselineType = None,
        score: str | ScoreFunction = "output",
        channel_weighting: str = "softmax",
        max_channels: int | None = None,
        activation_transform: Callable[[Tensor], Tensor] | None = None,
        tolerance: float | None = None,
        process_group: ProcessGroup | None = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        """Computes the map of one target for each example; the first seven parameters are LayerGradCam's.

        Args:
            inputs (Tensor or tuple of Tensor): N examples, each tensor N×C×spatial (1-D to 3-D). All are masked.
            target: The class to explain, in any form that Captum accepts. Default: None, for one output per example.
            additional_forward_args (optional): What `forward_func` takes after the inputs; not masked.
            attribute_to_layer_input (bool): Explain the layer's input instead of its output. Default: False.
            relu_attributions (bool): Keep positive values only, as the paper does. Default: True (LayerGradCam: False).
            attr_dim_summation (bool): Sum over the channels. Default: True.
            grad_kwargs: Accepted for LayerGradCam's calls; a value warns and is ignored.
            baselines: What is left where a mask is 0, as in Captum. Default: None, zeros.
            score (str or callable): f: ``"output"`` (default), ``"probability"`` (softmax over dim 1), or a callable
                that takes what `forward_func` returns and gives scores, one row per input row.
            channel_weighting (str): α from S: ``"softmax"`` (default), ``"increase"`` (S − f(B)) or ``"score"`` (S).
            max_channels (int, optional): Only the channels of largest standard deviation (Faster-Score-CAM).
            activation_transform (callable, optional): Turns the layer's activation into maps N×K×spatial.
            tolerance (float, optional): Stop when the channels not yet run can no longer change the map, scaled to
                [0, 1], by more. For score="probability" with channel_weighting="score". Default: None, exact.
            process_group (ProcessGroup, optional): Ranks that make this same call and share its forwards.
            perturbations_per_eval (int, optional): A forward takes at most this many × N rows. Default: None, tuned.
            show_progress (bool): Show Captum's progress bar. Default: False.

        Returns:
            Tensor or tuple of Tensor: Maps N×1×h×w at the layer's resolution (N×K×h×w without `attr_dim_summation`),
            of the activation's dtype; a tuple if the layer gives several tensors.

        Raises:
            ValueError, TypeError: If an option, the layer's output or its rank does not fit, a value is not finite,
                or output rows do not grow with input rows. The message says what was expected.
            AssertionError, IndexError, RuntimeError: Captum's errors for a target that is missing or out of range.
        """
        if grad_kwargs is not None:
            warnings.warn("Score-CAM takes no gradients: `grad_kwargs` is ignored.", stacklevel=3)
        maps = self.attribute_targets(
            inputs,
            [target],
            additional_forward_args,
            attribute_to_layer_input,
            relu_attributions,
            attr_dim_summation,
            baselines=baselines,
            score=score,
            channel_weighting=channel_weighting,
            max_channels=max_channels,
            activation_transform=activation_transform,
            tolerance=tolerance,
            process_group=process_group,
            perturbations_per_eval=perturbations_per_eval,
            show_progress=show_progress,
        )
        per_target = (maps,) if isinstance(maps, Tensor) else maps
        return _captum.format_output(per_target if attr_dim_summation else tuple(m[:, 0] for m in per_target))

    @log_usage()
    def attribute_targets(
        self,
        inputs: Tensor | Tensors,
        targets: Sequence[TargetType] | Tensor,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = True,
        attr_dim_summation: bool = True,
        *,
        baselines: BaselineType = None,
        score: str | ScoreFunction = "output",
        channel_weighting: str = "softmax",
        max_channels: int | None = None,
        activation_transform: Callable[[Tensor], Tensor] | None = None,
        tolerance: float | None = None,
        process_group: ProcessGroup | None = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        """Computes the maps of T targets for each example, from the forwards that one target costs.

        Args:
            inputs (Tensor or tuple of Tensor): As for :meth:`attribute`, and so is all that is not named here.
            targets (sequence or Tensor): T targets, each in any form that Captum accepts, or an integer tensor N×T
                (such as ``output.topk(5).indices``).

        Returns:
            Tensor or tuple of Tensor: N×T×h×w (N×T×K×h×w without `attr_dim_summation`); a tuple if the layer gives
            several tensors.

        Raises:
            As :meth:`attribute` does, and ValueError if there is no target.
        """
        check_options(score, channel_weighting, max_channels, activation_transform)
        if tolerance is not None:
            check_tolerance(tolerance, score, channel_weighting, attr_dim_summation, process_group)
        forward = MaskedForward.of(self.forward_func, inputs, targets, additional_forward_args, baselines, score)
        chunk_size = self._chunk_sizes.of(self.forward_func, forward.inputs, perturbations_per_eval)
        progress = f"{self.get_name()} attribution" if show_progress else None
        self.last_run = RunStatistics()
        maps = []
        with unchanged_model_state(forward.inputs) as state:
            with state.recorded():
                activations, output = self._evaluated(forward, attribute_to_layer_input, activation_transform)
            warn_of_probabilities(output, score, channel_weighting)
            if process_group is not None:
                activations = from_first_rank(activations, process_group)
            baseline_scores = score_baselines(forward, chunk_size) if channel_weighting == "increase" else None
            for activation in activations:
                masks = ChannelMasks.of(activation, forward.sizes, max_channels)
                _warn_of_constant_maps(masks)
                if tolerance is None:
                    scores = score_masked_inputs(forward, masks, chunk_size, progress, process_group)
                    n_run = len(masks)
                else:
                    scores, n_run = scores_within_tolerance(forward, masks, activation, tolerance, chunk_size, progress)
                weights = channel_weights(
                    masks.of_channels(scores), masks.index >= 0, channel_weighting, baseline_scores
                )
                maps.append(weighted_maps(activation, weights, attr_dim_summation))
                self.last_run = self.last_run.plus(masks, n_run)
        return _captum.format_output(tuple(x.relu() if relu_attributions else x for x in maps))

    def _evaluated(
        self,
        forward: MaskedForward,
        attribute_to_layer_input: bool,
        activation_transform: Callable[[Tensor], Tensor] | None,
    ) -> tuple[Tensors, Any]:
        """Runs the one unmasked forward: the layer's maps, and an output that fits the targets."""
        activations, output = _captum.evaluate_layer(
            self.forward_func,
            self.layer,
            tuple(x.clone() for x in forward.inputs),
            forward.additional_forward_args,
            self.device_ids,
            attribute_to_layer_input,
        )
        maps = checked_activation_maps(activations, forward.inputs, activation_transform)
        forward.class_scores.of_examples(output)
        return maps, output


def _warn_of_constant_maps(masks: ChannelMasks) -> None:
    unexplained = int((masks.index < 0).all(1).sum())
    if unexplained:
        warnings.warn(
            f"All channels of the layer are constant for {unexplained} of {len(masks.index)} examples, "
            "so none can mask the input: their map is zero.",
            stacklevel=5,
        )
