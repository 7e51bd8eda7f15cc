"""Calls ScoreCAM and the naive reference in the same way, with constructor and call options together."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

from torch import Tensor, nn

from captum_scorecam import RunStatistics, ScoreCAM
from tests import naive_reference

CONSTRUCTOR_OPTIONS = {
    name for name, each in signature(ScoreCAM).parameters.items() if each.kind is Parameter.KEYWORD_ONLY
}

# For mypy: what it returns is a tensor, or a tuple of them where the layer gives several.
naive_score_cam: Callable[..., Any] = naive_reference.naive_score_cam


def run_score_cam(
    forward_func: Callable[..., Any],
    layer: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    target: Any = None,
    *,
    method: str = "attribute",
    **options: Any,
) -> Any:
    """The maps of `method`: of one target by default, of several with "attribute_targets"."""
    constructor = {name: value for name, value in options.items() if name in CONSTRUCTOR_OPTIONS}
    call = {name: value for name, value in options.items() if name not in CONSTRUCTOR_OPTIONS}
    return getattr(ScoreCAM(forward_func, layer, **constructor), method)(inputs, target, **call)


def last_run(score_cam: ScoreCAM) -> RunStatistics:
    """Returns the statistics of the last call, which must exist."""
    assert score_cam.last_run is not None
    return score_cam.last_run
