"""The layers that a visitor can choose among: the one that is found, and earlier ones at other resolutions."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

from torch import Tensor

from captum_scorecam.layers.activations import Activation
from captum_scorecam.layers.evaluation_copy import in_evaluation_mode
from captum_scorecam.layers.probe import Probe
from captum_scorecam.models import Classifier, ExplainedLayer, find_layer

MOST_LAYERS = 4
MOST_SECONDS = 30.0  # after which no further layer is checked


def layers_by_depth(classifier: Classifier, inputs: Tensor) -> list[ExplainedLayer]:
    """Finds layers that hold maps of the image, the last one first.

    Args:
        classifier (Classifier): The model.
        inputs (Tensor): The preprocessed image, 1×C×H×W.

    Returns:
        list of ExplainedLayer: The layer that ``auto`` selects, then earlier ones; empty if a model has none.
    """
    start = time.monotonic()
    found = []
    try:
        found.append(find_layer(classifier.model, inputs, classifier.layer))
    except ValueError:
        if classifier.layer != "auto":
            raise
    times = {}
    for candidate in _candidates(classifier, inputs, found):
        if len(found) == MOST_LAYERS or time.monotonic() - start > MOST_SECONDS:
            break
        try:
            found.append(find_layer(classifier.model, inputs, candidate.name))
            times[candidate.name] = candidate.time
        except ValueError:  # it holds no maps
            continue
    return sorted(found, key=lambda layer: times.get(layer.name, math.inf), reverse=True)


def _candidates(classifier: Classifier, inputs: Tensor, found: Sequence[ExplainedLayer]) -> Iterator[Activation]:
    """Outputs of trained modules, from the last to the first, the outermost of each size; then others of one size."""
    with in_evaluation_mode(classifier.model) as model:
        probe = Probe(model, (inputs,))
        with probe.running():
            recorded = [activation for activation in probe.record() if not activation.is_vector]
    taken = {layer.name for layer in found}
    known = [activation for activation in recorded if {point.name for point in activation.points} & taken]
    by_size: dict[tuple[int, ...], list[Activation]] = {}
    for activation in recorded:
        is_later = any(activation.time >= each.time for each in known)
        is_inside = activation.name.startswith(tuple(f"{name}." for name in taken))
        module = probe.modules.get(activation.name or ":")  # the model itself has no name, inputs are none
        is_trained = module is not None and any(True for _ in module.parameters())
        if activation.shape[0] == 2 and is_trained and not (is_later or is_inside):
            by_size.setdefault(_size(activation), []).append(activation)
    outermost = {size: _outermost(each) for size, each in by_size.items()}
    sizes_taken = {_size(activation) for activation in known}
    last = [each[-1] for size, each in outermost.items() if size not in sizes_taken]
    yield from sorted(last, key=lambda activation: activation.time, reverse=True)
    for size in sizes_taken & outermost.keys():
        of_size = outermost[size]
        yield from (of_size[place] for place in sorted({len(of_size) * k // 4 for k in (1, 2, 3)}, reverse=True))


def _size(activation: Activation) -> tuple[int, ...]:
    """The sizes of a map, or the number of tokens."""
    sizes = tuple(activation.shape[1:])
    if len(sizes) == 2:
        return sizes[:1]
    channels_last = sizes[0] == sizes[1] != sizes[2]
    return sizes[:-1] if channels_last else sizes[1:]


def _outermost(activations: Sequence[Activation]) -> list[Activation]:
    depth = min(activation.name.count(".") for activation in activations)
    return [activation for activation in activations if activation.name.count(".") == depth]
