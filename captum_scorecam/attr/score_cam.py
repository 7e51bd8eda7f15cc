"""Score-CAM: a layer's activation maps, weighted by the class scores of the inputs they mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from captum.attr import LayerAttribution, PerturbationAttribution
from captum.log import log_usage
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import Module

from captum_scorecam import _captum
from captum_scorecam._captum import BaselineType, ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import (
    check_choice,
    check_flags,
    check_fraction,
    check_whole_number,
    warn_caller,
    without_constructor_options,
)
from captum_scorecam.layer_evaluation import evaluate_layer
from captum_scorecam.layers import ExplainedLayer, FoundLayers, check_layer_choice
from captum_scorecam.masking.activation_maps import checked_activation_maps
from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.model_state import unchanged_model_state
from captum_scorecam.scoring.chunk_size import ChunkSizes
from captum_scorecam.scoring.chunks import score_baselines, score_masked_inputs
from captum_scorecam.scoring.class_scores import Score, score_function
from captum_scorecam.scoring.masked_forward import MaskedForward
from captum_scorecam.scoring.memory_format import MemoryFormats
from captum_scorecam.scoring.process_group import check_process_group, from_first_rank
from captum_scorecam.scoring.tolerance import scores_within_tolerance
from captum_scorecam.weighting import (
    ChannelWeighting,
    channel_weights,
    effective_channels,
    score_spans,
    weighted_maps,
)

NARROW = 1.0  # scores that span less are nearly equal after the softmax


@dataclass(frozen=True)
class RunStatistics:
    """Statistics of the last call of :class:`ScoreCAM`.

    Attributes:
        channels (int): N·K, the number of channels over all examples.
        constant (int): Channels with constant maps, which have no mask.
        unselected (int): Channels excluded by ``max_channels``.
        shared (int): Channels that reused another channel's mask.
        omitted (int): Masks skipped by ``tolerance``.
        rows (int): Masked inputs run through the model, over all ranks.
        rows_per_forward (int): Masked inputs per full forward pass, tuned or given; 0 before the first pass.
        effective_channels (tuple of float): For each map, 1 / Σ α² of the softmax: the number of channels if they count
            alike, 1 if one takes all. Empty for other weightings.
    """

    channels: int = 0
    constant: int = 0
    unselected: int = 0
    shared: int = 0
    omitted: int = 0
    rows: int = 0
    rows_per_forward: int = 0
    effective_channels: tuple[float, ...] = ()

    def plus(
        self, masks: ChannelMasks, rows: int, rows_per_forward: int, effective_channels: list[float]
    ) -> RunStatistics:
        """Adds the channels of one activation and the `rows` masks that were run."""
        channels = masks.index.numel()
        masked = int((masks.index >= 0).sum())
        return RunStatistics(
            self.channels + channels,
            self.constant + masks.n_constant,
            self.unselected + channels - masks.n_constant - masked,
            self.shared + masked - len(masks),
            self.omitted + len(masks) - rows,
            self.rows + rows,
            rows_per_forward if rows else self.rows_per_forward,
            (*self.effective_channels, *effective_channels),
        )


class ScoreCAM(LayerAttribution, PerturbationAttribution):
    r"""Score-CAM (`arXiv 1910.01279 <https://arxiv.org/abs/1910.01279>`_), a class activation map without gradients.

    Each channel :math:`A_k` of a layer's activation, upsampled and scaled to [0, 1], masks the input. The class score
    of the masked input determines the channel's weight, and the map is the ReLU of the weighted sum of the channels:

    .. math::

        H_k = s(U(A_k)), \quad S_k = f^c(B + H_k \circ (X - B)), \quad L = \mathrm{ReLU}\left(\sum_k \alpha_k A_k\right)

    with :math:`\alpha` = softmax(S) over the channels by default. It is a drop-in replacement for Captum's
    ``LayerGradCam`` and runs one forward pass for each distinct, non-constant map of the layer.

    Args:
        forward_func (callable): The model, or any function of its inputs.
        layer (torch.nn.Module or str): The layer to explain, usually the last convolutional one: a module, its name in
            the model, or ``"auto"``, as for `find_layer`. The output (or input) of a module must have shape
            N×K×spatial, unless `activation_transform` converts it.
        device_ids (list of int, optional): The devices of a DataParallel model that `forward_func` wraps.
        score (str or callable): f: ``"output"`` (default), ``"probability"`` (softmax over dim 1), ``"sigmoid"``, or a
            callable that converts the output of `forward_func` to scores, one row per input row. The named scores read
            ``logits`` of an output that is no tensor.
        channel_weighting (str): α from S: ``"softmax"`` (default), ``"increase"`` (S − f(B)) or ``"score"`` (S).
        activation_transform (callable, optional): Converts the layer's activation to maps N×K×spatial.
        max_channels (int, optional): Use only the channels with the largest standard deviation (Faster-Score-CAM).
        tolerance (float, optional): Stop once the remaining channels cannot change the map, scaled to [0, 1], by more
            than this. Requires score="probability" and channel_weighting="score". Default: None, exact.

    Attributes:
        last_run (RunStatistics or None): What the last call ran and skipped; None before the first call.

    Raises:
        TypeError, ValueError: If an option has the wrong type or is out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from captum_scorecam import ScoreCAM
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
        >>> ScoreCAM(model, model[1]).attribute(torch.rand(2, 3, 32, 32), target=3).shape
        torch.Size([2, 1, 30, 30])
    """

    def __init__(
        self,
        forward_func: ForwardFunction,
        layer: Module | str,
        device_ids: list[int] | None = None,
        *,
        score: Score = "output",
        channel_weighting: ChannelWeighting = "softmax",
        activation_transform: Callable[[Tensor], Tensor] | None = None,
        max_channels: int | None = None,
        tolerance: float | None = None,
    ) -> None:
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        PerturbationAttribution.__init__(self, forward_func)
        check_layer_choice(forward_func, layer, activation_transform)
        _check_options(score, channel_weighting, max_channels, tolerance)
        self.score = score
        self.channel_weighting = channel_weighting
        self.activation_transform = activation_transform
        self.max_channels = max_channels
        self.tolerance = tolerance
        self.last_run: RunStatistics | None = None
        self._layers = FoundLayers()
        self._chunk_sizes = ChunkSizes()
        self._memory_formats = MemoryFormats()

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Score-CAM"

    @property
    def multiplies_by_inputs(self) -> bool:
        """False, as for LayerGradCam, since the map weights activations, not input differences."""
        return False

    @log_usage()
    @without_constructor_options
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
        perturbations_per_eval: int | None = None,
        process_group: ProcessGroup | None = None,
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        """Computes the map of one target for each example. The first seven parameters are LayerGradCam's.

        Args:
            inputs (Tensor or tuple of Tensor): N examples, each tensor N×C×spatial (1-D to 3-D). All inputs are masked.
            target: The class to explain, in any form that Captum accepts. Default: None, for one output per example.
            additional_forward_args (optional): Arguments of `forward_func` after the inputs; not masked.
            attribute_to_layer_input (bool): Explain the layer's input instead of its output. Default: False.
            relu_attributions (bool): Keep only positive values, as in the paper. Default: True (LayerGradCam: False).
            attr_dim_summation (bool): Sum over the channels. Default: True.
            grad_kwargs: Accepted for compatibility with LayerGradCam; ignored with a warning.
            baselines: B, which replaces the input where a mask is 0, as in Captum. Default: None, zeros.
            perturbations_per_eval (int, optional): At most this many × N rows per forward pass. Default: None, tuned.
            process_group (ProcessGroup, optional): Ranks that all make this call and share its forward passes. Default:
                None.
            show_progress (bool): Show Captum's progress bar. Default: False.

        Returns:
            Tensor or tuple of Tensor: Maps N×1×h×w at the layer's resolution (N×K×h×w without `attr_dim_summation`),
            in the activation's dtype; a tuple if the layer returns several tensors.

        Raises:
            ValueError, TypeError: If an argument or the layer's output is invalid, a value is not finite, or the
                model's output does not have one row per input row. The message says what was expected.
            AssertionError, IndexError, RuntimeError: Captum's errors for a target that is missing or out of range.
        """
        if grad_kwargs is not None:
            warn_caller("Score-CAM uses no gradients; `grad_kwargs` is ignored.")
        maps = self.attribute_targets(
            inputs,
            [target],
            additional_forward_args,
            attribute_to_layer_input,
            relu_attributions,
            attr_dim_summation,
            baselines=baselines,
            perturbations_per_eval=perturbations_per_eval,
            process_group=process_group,
            show_progress=show_progress,
        )
        per_target = (maps,) if isinstance(maps, Tensor) else maps
        return _captum.format_output(per_target if attr_dim_summation else tuple(m[:, 0] for m in per_target))

    @log_usage()
    @without_constructor_options
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
        perturbations_per_eval: int | None = None,
        process_group: ProcessGroup | None = None,
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        """Computes the maps of T targets for each example at the cost of one target.

        Args:
            targets (sequence or Tensor): T targets, each in any form that Captum accepts, or an integer tensor N×T
                (such as ``output.topk(5).indices``). The other arguments are those of :meth:`attribute`.

        Returns:
            Tensor or tuple of Tensor: N×T×h×w (N×T×K×h×w without `attr_dim_summation`); a tuple if the layer returns
            several tensors.

        Raises:
            Same as :meth:`attribute`, and ValueError if there is no target.
        """
        check_flags(
            attribute_to_layer_input=attribute_to_layer_input,
            relu_attributions=relu_attributions,
            attr_dim_summation=attr_dim_summation,
            show_progress=show_progress,
        )
        check_process_group(process_group)
        _check_tolerance_of_call(self.tolerance, attr_dim_summation, process_group)
        forward = MaskedForward.from_call(
            self.forward_func, inputs, targets, additional_forward_args, baselines, self.score
        )
        chunk_size = self._chunk_sizes.get(self.forward_func, forward.inputs, perturbations_per_eval)
        progress = f"{self.get_name()} attribution" if show_progress else None
        layer = self._layers.find(
            self.forward_func,
            self.layer,
            self.activation_transform,
            forward.inputs,
            forward.additional_forward_args,
            self.score,
        )
        of_input = attribute_to_layer_input or layer.of_input
        run = RunStatistics()
        maps = []
        with unchanged_model_state(self.forward_func, forward.inputs) as state:
            activations, output = state.first_forward(
                lambda: self._evaluated(forward, layer, of_input),
                lambda result: forward.is_reproducible(result[1], sum(maps.shape[1] for maps in result[0])),
            )
            if process_group is not None:
                activations = from_first_rank(activations, process_group)
            baseline_scores = score_baselines(forward, chunk_size) if self.channel_weighting == "increase" else None
            for activation in activations:
                masks = ChannelMasks.from_activations(activation, forward.sizes, self.max_channels)
                _warn_of_constant_maps(masks)
                forward = self._memory_formats.fastest(forward, output, len(masks))
                if self.tolerance is None:
                    scores = score_masked_inputs(forward, masks, chunk_size, progress, process_group)
                    rows = len(masks)
                else:
                    bound = self.tolerance
                    scores, rows = scores_within_tolerance(forward, masks, activation, bound, chunk_size, progress)
                scores, masked = masks.by_channel(scores), masks.index >= 0
                weights = channel_weights(scores, masked, self.channel_weighting, baseline_scores)
                maps.append(weighted_maps(activation, weights, attr_dim_summation))
                effective: list[float] = []
                if self.channel_weighting == "softmax":
                    effective = effective_channels(weights).flatten().tolist()
                    if self.score != "probability":  # the constructor has warned
                        _warn_of_narrow_scores(scores, masked)
                run = run.plus(masks, rows, chunk_size.rows, effective)
        self.last_run = run
        return _captum.format_output(tuple(x.relu() if relu_attributions else x for x in maps))

    def _evaluated(self, forward: MaskedForward, layer: ExplainedLayer, of_input: bool) -> tuple[Tensors, Any]:
        """Runs the unmasked forward pass; returns the layer's maps and the output, checked against the targets."""
        evaluation = evaluate_layer(
            self.forward_func,
            layer.module,
            tuple(x.clone() for x in forward.inputs),
            forward.additional_forward_args,
            self.device_ids,
            of_input,
        )
        maps = checked_activation_maps(evaluation.activations, forward.inputs, layer.activation_transform)
        forward.class_scores.select_examples(evaluation.output)
        return maps, evaluation.output


def _check_options(
    score: Score,
    channel_weighting: ChannelWeighting,
    max_channels: int | None,
    tolerance: float | None,
) -> None:
    score_function(score)
    check_choice("channel_weighting", channel_weighting, ChannelWeighting)
    if max_channels is not None:
        check_whole_number("max_channels", max_channels, least=1)
    if tolerance is not None:
        check_fraction("tolerance", tolerance)
        if score != "probability" or channel_weighting != "score":
            raise ValueError(
                "Expected score='probability' and channel_weighting='score' with `tolerance`, whose bound requires "
                f"weights in [0, 1], but got {score!r} and {channel_weighting!r}."
            )
    if score == "probability" and channel_weighting == "softmax":
        warn_caller(
            "The softmax of probabilities hardly varies over the channels, so the map is close to their plain sum. Use "
            "score='output' with 'softmax', or score='probability' with 'score' or 'increase'."
        )


def _check_tolerance_of_call(tolerance: float | None, summed: bool, process_group: ProcessGroup | None) -> None:
    if tolerance is not None and (not summed or process_group is not None):
        raise ValueError("Expected neither attr_dim_summation=False nor a `process_group` with `tolerance`.")


def _warn_of_narrow_scores(scores: Tensor, masked: Tensor) -> None:
    if (score_spans(scores, masked)[masked.sum(1) > 1] < NARROW).any():
        warn_caller(
            "The scores of the masked inputs differ by less than 1, so their softmax is nearly uniform and the map is "
            "close to the plain sum of the channels (see `last_run.effective_channels`). For probabilities and other "
            "bounded scores, use channel_weighting='increase' or 'score', or the model's logits."
        )


def _warn_of_constant_maps(masks: ChannelMasks) -> None:
    unexplained = int((masks.index < 0).all(1).sum())
    if unexplained:
        warn_caller(
            f"All channels of the layer are constant for {unexplained} of {len(masks.index)} examples, "
            "so none can mask the input: their maps are zero."
        )
