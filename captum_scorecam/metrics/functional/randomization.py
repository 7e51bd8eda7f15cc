"""The parameter randomisation test (Adebayo et al., arXiv 1810.03292)."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from captum_scorecam._captum import Tensors
from captum_scorecam._messages import check_callable, check_choice, type_of
from captum_scorecam.masking.scaling import varies
from captum_scorecam.metrics.functional.arguments import check_tensor
from captum_scorecam.metrics.functional.map_similarity import cosine, rank_correlation, structural_similarity
from captum_scorecam.metrics.functional.model_parameters import ModelTensors, own_parameters, reinitialize
from captum_scorecam.metrics.functional.pixel_values import channel_sums
from captum_scorecam.model_state import own_generator

RandomizationOrder: TypeAlias = Literal["top_down", "bottom_up", "independent"]


@dataclass(frozen=True)
class LayerSimilarity:
    """Similarity between the original maps and those after randomising a layer; shape N each.

    Attributes:
        layer (str): Name of the last randomised layer in the model.
        spearman (Tensor): Rank correlation of the maps.
        absolute_spearman (Tensor): Rank correlation of the maps' absolute values.
        ssim (Tensor): Structural similarity of the maps, scaled to [0, 1], in uniform windows of 7 pixels (narrower for
            smaller maps).
        cosine (Tensor): Cosine similarity of the maps.
    """

    layer: str
    spearman: Tensor
    absolute_spearman: Tensor
    ssim: Tensor
    cosine: Tensor


def cascading_parameter_randomization(
    model: Module,
    explain: Callable[[Any], Tensor],
    inputs: Tensor | Tensors,
    *,
    order: RandomizationOrder = "top_down",
    generator: torch.Generator | None = None,
    layers: Sequence[str] | None = None,
) -> Iterator[LayerSimilarity]:
    """Randomises a model layer by layer and compares its explanations with the original ones.

    Explanations that depend on the learned parameters become dissimilar. A layer is re-initialised with
    ``reset_parameters`` (which also resets BatchNorm's statistics) or, if it has none, by shuffling the values of each
    parameter. The model is restored, bit for bit, before each record is yielded and after an error.

    Args:
        model (nn.Module): The model to randomise.
        explain (callable): Takes the inputs and returns attributions of `model`, N×C×spatial (summed over the
            channels). Every call starts from the same random state, unless other threads draw random numbers meanwhile.
        inputs (Tensor or tuple of Tensor): The argument of `explain`.
        order (str): ``"top_down"`` (default), from the last layer to the first, or ``"bottom_up"``, from the first to
            the last, both cumulative; or ``"independent"``, one layer at a time.
        generator (torch.Generator, optional): Seeds the layers. For the same state, a layer gets the same parameters
            in any order. Default: None, the global random state, which is left unchanged.
        layers (sequence of str, optional): Names of modules, from input to output, each randomised with all its
            submodules. Default: None, every module with direct parameters, in order of registration.

    Yields:
        LayerSimilarity: One per layer. Rank correlations are 0 for a map that is constant after randomisation, and the
        cosine is 0 for a zero map.

    Raises:
        TypeError: If an argument has the wrong type, or `explain` returns anything but a floating-point tensor.
        ValueError: If an option is invalid, a layer has no parameters, maps are not finite or change shape, or an
            original map is constant, since nothing can be similar to it.

    Example:
        >>> import torch
        >>> from captum_scorecam import ScoreCAM
        >>> from captum_scorecam.metrics.functional import cascading_parameter_randomization
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        >>> explain = lambda inputs: ScoreCAM(model, model[0]).attribute(inputs, target=0, relu_attributions=False)
        >>> [record.layer for record in cascading_parameter_randomization(model, explain, torch.rand(1, 3, 8, 8))]
        ['2', '0']
    """
    if not isinstance(model, Module):
        raise TypeError(f"Expected `model` to be a module, but got {type_of(model)}.")
    check_callable("explain", explain)
    check_choice("order", order, RandomizationOrder)
    generator = own_generator(generator)
    chosen = _layers(model, layers)
    seeded = list(zip(chosen, _seeds(len(chosen), generator), strict=True))
    return _randomized(model, explain, inputs, seeded[::-1] if order == "top_down" else seeded, order != "independent")


def _randomized(
    model: Module,
    explain: Callable[[Any], Tensor],
    inputs: Tensor | Tensors,
    seeded_layers: Sequence[tuple[tuple[str, list[Module]], int]],
    cascading: bool,
) -> Iterator[LayerSimilarity]:
    tensors = ModelTensors(model)
    with tensors.unchanged():
        original_maps = _maps(explain(inputs), inputs)
    _check_vary(original_maps)
    randomized = None
    for (name, modules), seed in seeded_layers:
        with tensors.unchanged():
            if randomized is not None:
                tensors.fill(randomized)
            reinitialize(modules, seed)
            randomized = tensors.copies() if cascading else None
            maps = _maps(explain(inputs), inputs)
        yield _similarity(name, maps, original_maps)


def _seeds(count: int, generator: torch.Generator) -> list[int]:
    return [int(seed) for seed in torch.randint(2**62, (count,), generator=generator, device=generator.device)]


def _layers(model: Module, names: Sequence[str] | None) -> list[tuple[str, list[Module]]]:
    """Returns the name of each layer to randomise and its modules with direct parameters."""
    if names is None:
        chosen = [(name or type(model).__name__, [m]) for name, m in model.named_modules() if own_parameters(m)]
    else:
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(f"Expected `layers` to be a sequence of names, but got {reprlib.repr(names)}.")
        chosen = [(name, _parametrized(model, name)) for name in names]
    if not chosen:
        raise ValueError("Expected at least one layer with parameters, but got none.")
    return chosen


def _parametrized(model: Module, name: str) -> list[Module]:
    modules = dict(model.named_modules(remove_duplicate=False))
    module = modules.get(name) if isinstance(name, str) else None
    if module is None:
        raise ValueError(f"Expected `layers` to be names of modules of the model, but got {reprlib.repr(name)}.")
    parametrized = [part for part in module.modules() if own_parameters(part)]
    if not parametrized:
        raise ValueError(f"Expected `layers` with parameters, but {name!r} has none.")
    return parametrized


def _maps(attributions: Tensor, inputs: object) -> Tensor:
    """Converts the attributions returned by `explain` to maps N×1×spatial."""
    check_tensor("explain(inputs)", attributions, "N×C×spatial")
    # A map of an image without its batch or channel dimension would pass for one of a signal.
    least = max(3, inputs.dim()) if isinstance(inputs, Tensor) else 3
    if not least <= attributions.dim() <= 5 or attributions.numel() == 0:
        of_inputs = f" for `inputs` of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else ""
        raise ValueError(
            f"Expected `explain(inputs)` to be attributions N×C×spatial{of_inputs}, "
            f"but got shape {tuple(attributions.shape)}."
        )
    return channel_sums(attributions, "explain(inputs)")


def _check_vary(maps: Tensor) -> None:
    constant = ~varies(maps).squeeze(1)
    if constant.any():
        raise ValueError(
            "Expected original maps that are not constant, since similarity to a constant map is undefined, "
            f"but {int(constant.sum())} are constant, the first for example {int(constant.nonzero()[0])}."
        )


def _similarity(layer: str, maps: Tensor, original_maps: Tensor) -> LayerSimilarity:
    if maps.shape != original_maps.shape:
        raise ValueError(f"Expected maps of shape {tuple(original_maps.shape)}, but got {tuple(maps.shape)}.")
    flat, original = maps.flatten(1), original_maps.flatten(1)
    return LayerSimilarity(
        layer,
        rank_correlation(flat, original),
        rank_correlation(flat.abs(), original.abs()),
        structural_similarity(maps, original_maps),
        cosine(flat, original),
    )
