"""Score-CAM: a layer's activation maps, weighted by the class scores of the inputs they mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from captum.attr import LayerAttribution, PerturbationAttribution
from captum.log import log_usage
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import Module

from captum_scorecam import _captum
from captum_scorecam._captum import BaselineType, ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import (
    check_callable,
    check_choice,
    check_device_ids,
    check_flags,
    check_fraction,
    check_optional,
    check_whole_number,
    warn_caller,
    without_constructor_options,
)
from captum_scorecam.attr.run_statistics import RunStatistics
from captum_scorecam.budget.channel_scores import ChannelScores
from captum_scorecam.budget.within_budget import forwards_per_tensor, score_within_budget
from captum_scorecam.layer_evaluation import evaluate_layer
from captum_scorecam.layers import ExplainedLayer, FoundLayers, check_layer_choice
from captum_scorecam.masking.activation_maps import checked_activation_maps
from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.model_state import unchanged_model_state
from captum_scorecam.scoring.chunk_size import ChunkSize, ChunkSizes
from captum_scorecam.scoring.chunks import score_baselines, score_masked_inputs
from captum_scorecam.scoring.class_scores import BOUNDED_SCORES, Score, score_function
from captum_scorecam.scoring.masked_forward import MaskedForward
from captum_scorecam.scoring.memory_format import MemoryFormats
from captum_scorecam.scoring.process_group import check_process_group, failing_together, from_first_rank
from captum_scorecam.scoring.tolerance import scores_within_tolerance
from captum_scorecam.scoring.twin import Twins
from captum_scorecam.weighting import ChannelWeighting

NARROW = 1.0  # scores that span less are nearly equal after the softmax


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
            ``logits`` of an output that is not a tensor.
        channel_weighting (str): α from S: ``"softmax"`` (default), ``"increase"`` (S − f(B)) or ``"score"`` (S).
        activation_transform (callable, optional): Converts the layer's activation to maps N×K×spatial.
        max_channels (int, optional): Use only the channels with the largest standard deviation (Faster-Score-CAM).
        tolerance (float, optional): Stop once the remaining channels cannot change the map, scaled to [0, 1], by more
            than this. Requires score="probability" and channel_weighting="score". Default: None, exact.
        max_forwards (int, optional): Run at most this many masks per example and predict the scores of the others, as
            :meth:`attribute_with_error` shows. Default: None, run all.
        error (float, optional): Run masks until the largest standard error of a map is at most this share of the map's
            largest value, in (0, 1), or `max_forwards` were run. Default: None.
        masked_forward_func (callable, optional): A faster function that gives the output of `forward_func`, such as one
            of `captum_scorecam.engines`. It runs the masked inputs once it was found to agree; compiled code runs
            eagerly in this comparison. Default: None.

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
        max_forwards: int | None = None,
        error: float | None = None,
        masked_forward_func: ForwardFunction | None = None,
    ) -> None:
        LayerAttribution.__init__(self, forward_func, layer, device_ids)
        PerturbationAttribution.__init__(self, forward_func)
        check_layer_choice(forward_func, layer, activation_transform)
        check_device_ids(device_ids)
        _check_options(score, channel_weighting, max_channels, tolerance)
        _check_budget(max_forwards, error, tolerance)
        if masked_forward_func is not None:
            check_callable("masked_forward_func", masked_forward_func)
        self.score = score
        self.channel_weighting = channel_weighting
        self.activation_transform = activation_transform
        self.max_channels = max_channels
        self.tolerance = tolerance
        self.max_forwards = max_forwards
        self.error = error
        self.masked_forward_func = masked_forward_func
        self.last_run: RunStatistics | None = None
        self._layers = FoundLayers()
        self._chunk_sizes = ChunkSizes()
        self._memory_formats = MemoryFormats()
        self._twins = Twins()

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
            additional_forward_args (optional): Arguments of `forward_func` after the inputs; not masked. Tensors and
                NumPy arrays with N rows, also in lists, tuples and dictionaries, follow their examples.
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
        check_optional("grad_kwargs", grad_kwargs, dict, "a dict")
        if grad_kwargs is not None:
            warn_caller("Score-CAM uses no gradients; `grad_kwargs` is ignored.")
        maps: Tensor | Tensors = self.attribute_targets(
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
        if attr_dim_summation:
            return maps
        return maps[:, 0] if isinstance(maps, Tensor) else tuple(each[:, 0] for each in maps)

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
        check_flags(relu_attributions=relu_attributions, attr_dim_summation=attr_dim_summation)
        check_process_group(process_group)
        _check_tolerance_of_call(self.tolerance, attr_dim_summation, process_group)
        found = self._scored(
            inputs,
            targets,
            additional_forward_args,
            attribute_to_layer_input,
            baselines=baselines,
            perturbations_per_eval=perturbations_per_eval,
            process_group=process_group,
            show_progress=show_progress,
        )
        return _captum.format_output(
            tuple(scores.maps(self.channel_weighting, relu_attributions, attr_dim_summation) for scores in found)
        )

    @log_usage()
    @without_constructor_options
    def attribute_with_error(
        self,
        inputs: Tensor | Tensors,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = True,
        *,
        baselines: BaselineType = None,
        perturbations_per_eval: int | None = None,
        process_group: ProcessGroup | None = None,
        show_progress: bool = False,
    ) -> tuple[Tensor | Tensors, Tensor | Tensors]:
        """Computes the map and its standard error from the same forward passes; arguments as for :meth:`attribute`.

        The error is that of the scores which `max_forwards` or `error` left to be predicted, before the ReLU; 0 where
        the map is exact, or all scores that were run equal that of the unmasked input. Errors of neighbouring positions
        are correlated.

        Returns:
            tuple: The result of :meth:`attribute`, and the standard error of each value, in the same shape.

        Raises:
            Same as :meth:`attribute`, and ValueError with `tolerance`, whose error is a bound.
        """
        check_flags(relu_attributions=relu_attributions)
        _check_no_tolerance(self.tolerance)
        found = self._scored(
            inputs,
            [target],
            additional_forward_args,
            attribute_to_layer_input,
            baselines=baselines,
            perturbations_per_eval=perturbations_per_eval,
            process_group=process_group,
            show_progress=show_progress,
        )
        maps = tuple(scores.maps(self.channel_weighting, relu_attributions) for scores in found)
        errors = tuple(scores.standard_errors(self.channel_weighting) for scores in found)
        return _captum.format_output(maps), _captum.format_output(errors)

    @log_usage()
    @without_constructor_options
    def channel_scores(
        self,
        inputs: Tensor | Tensors,
        targets: Sequence[TargetType] | Tensor,
        additional_forward_args: object | None = None,
        attribute_to_layer_input: bool = False,
        *,
        baselines: BaselineType = None,
        perturbations_per_eval: int | None = None,
        process_group: ProcessGroup | None = None,
        show_progress: bool = False,
    ) -> ChannelScores | tuple[ChannelScores, ...]:
        """Scores the channels for T targets; the result gives the maps of every weighting without further passes.

        Args:
            targets (sequence or Tensor): T targets, as for :meth:`attribute_targets`. The other arguments are those of
                :meth:`attribute`.

        Returns:
            ChannelScores or tuple of ChannelScores: A tuple if the layer returns several tensors. With `max_forwards`
            or `error`, the masks that are run are those that count for `channel_weighting`.

        Raises:
            Same as :meth:`attribute_targets`, and ValueError with `tolerance`, which leaves scores unknown.
        """
        _check_no_tolerance(self.tolerance)
        found = self._scored(
            inputs,
            targets,
            additional_forward_args,
            attribute_to_layer_input,
            baselines=baselines,
            perturbations_per_eval=perturbations_per_eval,
            process_group=process_group,
            show_progress=show_progress,
            with_baselines=True,
        )
        return found if len(found) > 1 else found[0]

    def _scored(
        self,
        inputs: Tensor | Tensors,
        targets: Sequence[TargetType] | Tensor,
        additional_forward_args: object | None,
        attribute_to_layer_input: bool,
        *,
        baselines: BaselineType,
        perturbations_per_eval: int | None,
        process_group: ProcessGroup | None,
        show_progress: bool,
        with_baselines: bool = False,
    ) -> tuple[ChannelScores, ...]:
        """Runs the forward passes: the scores of the channels of each tensor that the layer returns."""
        check_flags(attribute_to_layer_input=attribute_to_layer_input, show_progress=show_progress)
        check_process_group(process_group)
        forward = MaskedForward.from_call(
            self.forward_func, inputs, targets, additional_forward_args, baselines, self.score
        )
        twin = self.masked_forward_func
        of_masked = self.forward_func if twin is None else twin
        chunk_size = self._chunk_sizes.get(of_masked, forward.inputs, perturbations_per_eval)
        progress = f"{self.get_name()} attribution" if show_progress else None
        together = partial(failing_together, process_group, forward.device)
        with together():
            layer = self._layers.find(
                self.forward_func,
                self.layer,
                self.activation_transform,
                forward.inputs,
                forward.additional_forward_args,
                self.score,
                attribute_to_layer_input,
            )
        of_input = attribute_to_layer_input or layer.of_input
        run, has_budget = RunStatistics(), self.max_forwards is not None or self.error is not None
        found = []
        with (
            unchanged_model_state(self.forward_func, forward.inputs, draws_only_in_forwards=True) as state,
            unchanged_model_state(of_masked, forward.inputs, draws_only_in_forwards=True) as state_of_twin,
        ):
            with together():
                activations, output = state.first_forward(
                    lambda: self._evaluated(forward, layer, of_input),
                    lambda result, changed: forward.is_reproducible(
                        result[1], changed, sum(maps.shape[1] for maps in result[0]), perturbations_per_eval
                    ),
                )
            forward = self._twins.faster(forward, twin, output, state_of_twin, perturbations_per_eval, process_group)
            if process_group is not None:
                activations = from_first_rank(activations, process_group)
            with together():
                masks = [ChannelMasks.from_activations(a, forward.sizes, self.max_channels) for a in activations]
                limits = forwards_per_tensor(masks, len(forward.inputs[0]), self.max_forwards)
                scores_of_inputs = forward.class_scores.select_examples(output)
                needs_baselines = with_baselines or self.channel_weighting == "increase"
                scores_of_baselines = score_baselines(forward, chunk_size) if needs_baselines else None
            for activation, masks_of_activation, limit in zip(activations, masks, limits, strict=True):
                _warn_of_constant_maps(masks_of_activation)
                forward = self._memory_formats.fastest(forward, int(limit.sum()), perturbations_per_eval)
                no_scores = forward.class_scores.zeros(len(masks_of_activation), forward.inputs[0])
                unscored = ChannelScores(
                    activation, masks_of_activation, no_scores, scores_of_inputs, scores_of_baselines
                )
                scored, rows = self._masks_scored(unscored, forward, limit, chunk_size, progress, process_group)
                found.append(scored)
                run = run.plus(scored, rows, chunk_size.rows, self.channel_weighting, has_budget)
                warn_of_narrow_scores(scored, self.channel_weighting, self.score)
        self.last_run = run
        return tuple(found)

    def _masks_scored(
        self,
        unscored: ChannelScores,
        forward: MaskedForward,
        limit: Tensor,
        chunk_size: ChunkSize,
        progress: str | None,
        process_group: ProcessGroup | None,
    ) -> tuple[ChannelScores, int]:
        """Scores the masks of one tensor that the layer returns; returns the number that were run, too."""
        masks = unscored.masks
        if self.tolerance is not None:
            scores, rows = scores_within_tolerance(
                forward, masks, unscored.activations, self.tolerance, chunk_size, progress
            )
            return replace(unscored, mask_scores=scores), rows
        score = partial(
            score_masked_inputs, forward, chunk_size=chunk_size, progress=progress, process_group=process_group
        )
        if self.error is None and int(limit.sum()) == len(masks):
            return replace(unscored, mask_scores=score(masks)), len(masks)
        bounded = self.score in BOUNDED_SCORES
        scored = score_within_budget(unscored, score, limit, self.channel_weighting, bounded, self.error, process_group)
        return scored, scored.n_forwards

    def _evaluated(self, forward: MaskedForward, layer: ExplainedLayer, of_input: bool) -> tuple[Tensors, Any]:
        """Runs the unmasked forward pass; returns the layer's maps and the output, checked against the targets."""
        inputs = tuple(x.clone() for x in forward.inputs)
        with forward.copied_arguments() as arguments:
            evaluation = evaluate_layer(self.forward_func, layer.module, inputs, arguments, self.device_ids, of_input)
        maps = checked_activation_maps(evaluation.activations, forward.inputs, layer.activation_transform)
        forward.class_scores.select_examples(evaluation.output)
        (output,) = _captum.copies_of_arguments((evaluation.output,))  # the model may reuse the memory of its output
        return tuple(x.detach().to(forward.device) for x in maps), output


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


def _check_budget(max_forwards: int | None, error: float | None, tolerance: float | None) -> None:
    if max_forwards is not None:
        check_whole_number("max_forwards", max_forwards, least=1)
    if error is not None:
        check_fraction("error", error)
    if tolerance is not None and (max_forwards is not None or error is not None):
        raise ValueError("Expected neither `max_forwards` nor `error` with `tolerance`.")


def _check_no_tolerance(tolerance: float | None) -> None:
    if tolerance is not None:
        raise ValueError("Expected no `tolerance`, with which the scores of some channels stay unknown.")


def _check_tolerance_of_call(tolerance: float | None, summed: bool, process_group: ProcessGroup | None) -> None:
    if tolerance is not None and (not summed or process_group is not None):
        raise ValueError("Expected neither attr_dim_summation=False nor a `process_group` with `tolerance`.")


def warn_of_narrow_scores(scored: ChannelScores, weighting: ChannelWeighting, score: Score) -> None:
    """Warns if the softmax of scores hardly differs from channel to channel."""
    if weighting != "softmax" or score == "probability":  # of which the constructor has warned
        return
    examples = scored.masks.examples
    run = torch.ones_like(examples, dtype=torch.bool) if scored.prediction is None else scored.prediction.run
    of_examples = [scored.mask_scores[run & (examples == number)] for number in range(len(scored.activations))]
    spans = [scores.amax(0) - scores.amin(0) for scores in of_examples if len(scores) > 1]
    if spans and (torch.stack(spans) < NARROW).any():
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
