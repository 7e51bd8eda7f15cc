"""ROAD: MoRF and LeRF with noisy linear imputation instead of a baseline (Rong et al., arXiv 2202.00449)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from captum_scorecam._captum import ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import check_at_least, check_callable, check_finite, check_fraction, type_of
from captum_scorecam.masking.pixel_masks import pixel_ranks
from captum_scorecam.metrics.functional.arguments import check_tensor
from captum_scorecam.metrics.functional.linear_imputation import impute_linearly
from captum_scorecam.metrics.functional.pixel_scores import score_pixel_masks
from captum_scorecam.metrics.functional.pixel_values import pixel_values
from captum_scorecam.model_state import own_generator
from captum_scorecam.scoring.class_scores import Score
from captum_scorecam.scoring.masked_forward import MaskedForward

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class RoadCurves(NamedTuple):
    """The class score as the most and as the least relevant pixels are imputed.

    Attributes:
        fractions (Tensor): Shape S, the fraction of pixels imputed.
        morf (Tensor): N×S, the class score at each fraction, most relevant pixels first.
        lerf (Tensor): N×S, the same, least relevant pixels first.
        road (Tensor): Shape N, half the mean difference of LeRF and MoRF.
    """

    fractions: Tensor
    morf: Tensor
    lerf: Tensor
    road: Tensor


def road(
    forward_func: ForwardFunction,
    inputs: Tensor,
    attributions: Tensor,
    target: TargetType = None,
    *,
    fractions: Sequence[float] = FRACTIONS,
    noise: float = 0.01,
    generator: torch.Generator | None = None,
    score: Score = "probability",
    additional_forward_args: object | None = None,
    perturbations_per_eval: int | None = None,
) -> RoadCurves:
    """Computes ROAD: the class score as imputed pixels replace the most, or the least, relevant ones.

    Each removed pixel becomes the weighted mean of its neighbours, all of them solved for together, plus noise, so that
    the mask's shape tells the model less about the class than a baseline does. `road` is (LeRF − MoRF) / 2, averaged
    over the fractions, as in grad-cam's ``ROADCombined``. Pixels of equal value are in a random order that both curves
    share. SciPy is needed: a linear system is solved on the CPU for each row.

    Args:
        forward_func (callable): The model, or any function of its inputs.
        inputs (Tensor): N images, N×C×H×W.
        attributions (Tensor): N×1×H×W or N×C×H×W (summed over the channels). Smaller maps are resized linearly.
        target: The class, in any form that Captum accepts. Default: None, for one output per example.
        fractions (sequence of float): Fractions of pixels to impute, ascending in (0, 1). Default: 0.1, 0.2, …, 0.9.
        noise (float): Standard deviation of the noise, in the units of the inputs, at least 0. Default: 0.01.
        generator (torch.Generator, optional): Draws the noise and the order of ties. Default: None, a copy of PyTorch's
            global generator, whose state is left unchanged.
        score (str or callable): As for :func:`insertion`. Default: ``"probability"``.
        additional_forward_args (optional): Arguments of `forward_func` after the inputs; never changed.
        perturbations_per_eval (int, optional): At most this many × N rows per forward pass. Default: None, tuned.

    Returns:
        RoadCurves: `fractions` S, `morf` and `lerf` N×S and `road` N, higher is better.

    Raises:
        TypeError, ValueError: If an argument is invalid, the attribution does not match the inputs, or an attribution
            or score is not finite.
        ModuleNotFoundError: If SciPy is not installed.
    """
    _check_options(inputs, fractions, noise)
    check_callable("forward_func", forward_func)
    forward = _ImputedForward.from_call(forward_func, inputs, [target], additional_forward_args, None, score)
    values = pixel_values(attributions, forward.inputs)
    images = _imputed_images(
        forward, values, _pixel_counts(fractions, values.shape[1]), noise, own_generator(generator)
    )
    scores = score_pixel_masks(forward, images, perturbations_per_eval).reshape(len(values), 2, -1)
    most, least = scores.unbind(1)
    points = images.counts.to(scores) / values.shape[1]
    return RoadCurves(points, most, least, _road_update(most, least))


class _ImputedForward(MaskedForward):
    """A forward pass of images that are imputed already."""

    def __call__(self, masks: Tensors, examples: Tensor) -> Tensor:
        """Runs one forward pass of the images, which take the place of masks."""
        return self.class_scores.select_rows(self.run(masks, examples), examples)


@dataclass(frozen=True)
class _ImputedImages:
    """Imputed images, computed a few at a time in the place of masks; each example has S for MoRF and S for LeRF.

    Attributes:
        inputs (Tensor): N×C×H×W.
        ranks (Tensor): 2N×P, the rank of each pixel, 0 for the first to be imputed; MoRF's and LeRF's in turns.
        counts (Tensor): Shape S, the numbers of pixels to impute.
        seeds (Tensor): Shape 2N·S, of each image's noise.
        noise (float): The noise's standard deviation.
    """

    inputs: Tensor
    ranks: Tensor
    counts: Tensor
    seeds: Tensor
    noise: float

    @property
    def examples(self) -> Tensor:
        """The example of each image, shape 2N·S."""
        return torch.arange(len(self.inputs), device=self.inputs.device).repeat_interleave(2 * len(self.counts))

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, rows: Tensor) -> Tensors:
        """Returns the images at the given rows, len(rows)×C×H×W."""
        return (torch.stack([self._image(row) for row in rows.tolist()]),)

    def _image(self, row: int) -> Tensor:
        order, step = divmod(row, len(self.counts))
        image = self.inputs[order // 2]
        removed = (self.ranks[order] < self.counts[step]).reshape(image.shape[1:])
        draws = torch.Generator("cpu").manual_seed(int(self.seeds[row]))
        noise = torch.randn(image.shape, generator=draws, dtype=torch.float32, device="cpu").to(image)
        return impute_linearly(image, removed) + self.noise * noise * removed


def _imputed_images(
    forward: MaskedForward, values: Tensor, counts: list[int], noise: float, generator: torch.Generator
) -> _ImputedImages:
    device = generator.device
    n_orders = 2 * len(values)
    seeds = torch.randint(2**62, (n_orders * len(counts),), generator=generator, device=device)
    draws = torch.rand(values.shape, generator=generator, dtype=torch.float32, device=device)
    shuffled = draws.argsort(1).to(values.device)
    mixed = values.gather(1, shuffled)
    ranks = torch.stack([torch.zeros_like(shuffled).scatter(1, shuffled, pixel_ranks(v)) for v in (mixed, -mixed)], 1)
    return _ImputedImages(
        forward.inputs[0], ranks.flatten(0, 1), torch.tensor(counts, device=values.device), seeds.cpu(), noise
    )


def _pixel_counts(fractions: Sequence[float], n_pixels: int) -> list[int]:
    """Returns the number of pixels to impute at each fraction; at least one is imputed and one kept."""
    counts = [min(max(1, round(fraction * n_pixels)), n_pixels - 1) for fraction in fractions]
    if n_pixels < 2 or len({*counts}) < len(counts):
        raise ValueError(f"Expected `fractions` that differ by a pixel of {n_pixels}, but got {list(fractions)}.")
    return counts


def _road_update(morf: Tensor, lerf: Tensor) -> Tensor:
    """Returns each example's value, shape N.

    Raises:
        TypeError: If scores are not floating-point tensors.
        ValueError: If the shapes differ or are not N×S, there is no example or fraction, or a score is not finite.
    """
    for name, scores in {"morf": morf, "lerf": lerf}.items():
        check_tensor(name, scores, "N×S")
    if morf.shape != lerf.shape or morf.dim() != 2 or morf.numel() == 0:
        raise ValueError(
            "Expected MoRF and LeRF scores of the same shape N×S, with at least one example and fraction, "
            f"but got {tuple(morf.shape)} and {tuple(lerf.shape)}."
        )
    for name, scores in {"morf": morf, "lerf": lerf}.items():
        check_finite(name, scores)
    return (lerf - morf).mean(1) / 2


def _check_options(inputs: object, fractions: object, noise: float) -> None:
    if find_spec("scipy") is None:
        raise ModuleNotFoundError("road needs scipy: pip install scipy.", name="scipy")
    if not isinstance(inputs, Tensor) or inputs.dim() != 4:
        got = f"a tensor of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type_of(inputs)
        raise (ValueError if isinstance(inputs, Tensor) else TypeError)(
            f"Expected `inputs` to be images N×C×H×W, but got {got}."
        )
    if not isinstance(fractions, Sequence) or isinstance(fractions, str) or not fractions:
        raise TypeError(f"Expected `fractions` to be a sequence of numbers, but got {fractions!r}.")
    for fraction in fractions:
        check_fraction("fractions", fraction)
    if sorted({*fractions}) != list(fractions):
        raise ValueError(f"Expected `fractions` to ascend, but got {list(fractions)}.")
    check_at_least("noise", noise, 0)
