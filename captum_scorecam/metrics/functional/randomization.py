"""The sanity check by parameter randomisation (Adebayo et al., arXiv 1810.03292)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module
from torchmetrics.functional.image import structural_similarity_index_measure

from captum_scorecam._captum import Tensors
from captum_scorecam.masking.scaling import min_max_normalize, varies, working_dtype
from captum_scorecam.metrics.functional.model_parameters import ModelTensors, own_parameters, reinitialize

ORDERS = ("top_down", "bottom_up", "independent")
SSIM_WINDOW = 7


@dataclass(frozen=True)
class LayerSimilarity:
    """How alike the maps before and after the randomisation of a layer are; shape N each.

    Attributes:
        layer (str): The layer that was randomised last, by its name in the model.
        spearman (Tensor): Rank correlation of the maps.
        absolute_spearman (Tensor): Rank correlation of the maps' absolute values.
        ssim (Tensor): Structural similarity of the maps scaled to [0, 1], in uniform windows of 7 pixels (less where a
            map is smaller).
        cosine (Tensor): Cosine similarity of the maps.
    """

    layer: str
    spearman: Tensor
    absolute_spearman: Tensor
    ssim: Tensor
    cosine: Tensor


def cascading_parameter_randomization(
    model: Module,
    explain: Callable[[Tensor | Tensors], Tensor],
    inputs: Tensor | Tensors,
    *,
    order: str = "top_down",
    generator: torch.Generator | None = None,
    layers: Sequence[str] | None = None,
) -> Iterator[LayerSimilarity]:
    """Randomises a model layer by layer and compares its explanations with the original ones.

    An explanation that depends on what the model learned loses its similarity. A layer is re-initialised by its
    ``reset_parameters`` (which also resets BatchNorm's statistics), or, where it has none, by shuffling the values of
    each of its parameters. Whenever a record is handed out, the model is as it was, to the bit; and after an error.

    Args:
        model (nn.Module): What is randomised.
        explain (callable): Takes the inputs and returns attributions of `model`, N×C×spatial (summed over the
            channels). It finds the same random state in every call.
        inputs (Tensor or tuple of Tensor): What `explain` takes.
        order (str): ``"top_down"``, from the last layer to the first, ``"bottom_up"``, the other way, each keeping what
            was randomised before; or ``"independent"``, one layer at a time, the others as they were.
        generator (torch.Generator, optional): Where the layers' seeds come from; with the same state, a layer gets the
            same parameters in any order. Default: None, the global random state, which stays as it was.
        layers (sequence of str, optional): Modules of the model by name, from the input to the output, each randomised
            with all its submodules. Default: None, every module with parameters of its own, as registered.

    Yields:
        LayerSimilarity: One for each layer. A map that is constant after randomisation has correlations and cosine
        0, as has a zero map.

    Raises:
        ValueError: If an option does not fit, a layer has no parameters, maps are not finite or of another shape than
            the original ones, or an original map is constant, to which nothing can be similar.

    Example:
        >>> import torch
        >>> from captum_scorecam import ScoreCAM
        >>> from captum_scorecam.metrics.functional import cascading_parameter_randomization
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        >>> explain = lambda inputs: ScoreCAM(model, model[0]).attribute(inputs, target=0, relu_attributions=False)
        >>> [record.layer for record in cascading_parameter_randomization(model, explain, torch.rand(1, 3, 8, 8))]
        ['2', '0']
    """
    if order not in ORDERS:
        raise ValueError(f"Expected `order` to be {' or '.join(map(repr, ORDERS))}, but got {order!r}.")
    chosen = _layers(model, layers)
    seeded = list(zip(chosen, _seeds(len(chosen), generator), strict=True))
    return _randomized(model, explain, inputs, seeded[::-1] if order == "top_down" else seeded, order != "independent")


def _randomized(
    model: Module,
    explain: Callable[[Tensor | Tensors], Tensor],
    inputs: Tensor | Tensors,
    seeded_layers: Sequence[tuple[tuple[str, list[Module]], int]],
    cascading: bool,
) -> Iterator[LayerSimilarity]:
    tensors = ModelTensors(model)
    with tensors.unchanged():
        original_maps = _checked_maps(explain(inputs))
    _check_vary(original_maps)
    randomized = None
    for (name, modules), seed in seeded_layers:
        with tensors.unchanged():
            if randomized is not None:
                tensors.fill(randomized)
            reinitialize(modules, seed)
            randomized = tensors.copies() if cascading else None
            maps = _checked_maps(explain(inputs))
        yield _similarity(name, maps, original_maps)


def _seeds(count: int, generator: torch.Generator | None) -> list[int]:
    device = generator.device if generator is not None else torch.device("cpu")
    with torch.random.fork_rng([]):
        return [int(seed) for seed in torch.randint(2**62, (count,), generator=generator, device=device)]


def _layers(model: Module, names: Sequence[str] | None) -> list[tuple[str, list[Module]]]:
    """The names of the layers to randomise, and the modules with parameters of their own in each."""
    if names is None:
        chosen = [(name or type(model).__name__, [m]) for name, m in model.named_modules() if own_parameters(m)]
    else:
        chosen = [(name, _parametrized(model, name)) for name in names]
    if not chosen:
        raise ValueError("Expected at least one layer with parameters, but got none.")
    return chosen


def _parametrized(model: Module, name: str) -> list[Module]:
    module = dict(model.named_modules()).get(name)
    if module is None:
        raise ValueError(f"Expected `layers` to be names of modules of the model, but got {name!r}.")
    parametrized = [part for part in module.modules() if own_parameters(part)]
    if not parametrized:
        raise ValueError(f"Expected `layers` with parameters, but {name!r} has none.")
    return parametrized


def _checked_maps(attributions: Tensor) -> Tensor:
    """Maps N×1×spatial, float32 (float64 for float64)."""
    if not isinstance(attributions, Tensor) or attributions.dim() not in (3, 4, 5):
        got = tuple(attributions.shape) if isinstance(attributions, Tensor) else type(attributions).__name__
        raise ValueError(f"Expected `explain` to return one tensor N×C×spatial, but got {got}.")
    if not attributions.isfinite().all():
        raise ValueError("Expected finite attributions, but got NaN or Inf.")
    return attributions.detach().to(working_dtype(attributions.dtype)).sum(1, keepdim=True)


def _check_vary(maps: Tensor) -> None:
    constant = ~varies(maps).squeeze(1)
    if constant.any():
        raise ValueError(
            "Expected original maps that vary, since nothing can be similar to a constant one, "
            f"but got {int(constant.sum())} constant, the first of them of example {int(constant.nonzero()[0])}."
        )


def _similarity(layer: str, maps: Tensor, original_maps: Tensor) -> LayerSimilarity:
    if maps.shape != original_maps.shape:
        raise ValueError(f"Expected maps of shape {tuple(original_maps.shape)}, but got {tuple(maps.shape)}.")
    flat, original = maps.flatten(1), original_maps.flatten(1)
    return LayerSimilarity(
        layer,
        _rank_correlation(flat, original),
        _rank_correlation(flat.abs(), original.abs()),
        _structural_similarity(min_max_normalize(maps), min_max_normalize(original_maps)),
        _cosine(flat, original),
    )


def _rank_correlation(flat: Tensor, original: Tensor) -> Tensor:
    """Spearman's correlation of maps N×P: the cosine of their centred ranks; 0 where one is constant.

    Not torchmetrics' own, which adds ranks up in int32: that overflows where 65536 pixels are equal, as after a ReLU.
    """
    return _cosine(_centred_ranks(flat), _centred_ranks(original))


def _centred_ranks(flat: Tensor) -> Tensor:
    ranks = torch.stack([_ranks(values) for values in flat])
    varying = varies(flat.unsqueeze(1))
    return (ranks - ranks.mean(1, keepdim=True)) * varying


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1, float64; equal values share the mean of theirs."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0) - (counts.double() - 1) / 2
    return ranks[place]


def _cosine(flat: Tensor, original: Tensor) -> Tensor:
    """The cosine of maps N×P, 0 where one is zero. In float64: float32 norms of many pixels are inexact."""
    return F.cosine_similarity(_largest_one(flat), _largest_one(original), dim=1).float()


def _largest_one(flat: Tensor) -> Tensor:
    # A randomised model's maps may be so small that the norm counts as 0.
    largest = flat.double().abs().amax(1, keepdim=True)
    return flat / torch.where(largest > 0, largest, 1.0)


def _structural_similarity(maps: Tensor, original_maps: Tensor) -> Tensor:
    if maps.dim() == 3:  # torchmetrics knows 2-D and 3-D
        maps, original_maps = maps.unsqueeze(2), original_maps.unsqueeze(2)
    window = [min(SSIM_WINDOW, size - 1 + size % 2) for size in maps.shape[2:]]
    similarity = structural_similarity_index_measure(
        maps, original_maps, gaussian_kernel=False, kernel_size=window, data_range=1.0, reduction="none"
    )
    return torch.as_tensor(similarity).reshape(len(maps))
