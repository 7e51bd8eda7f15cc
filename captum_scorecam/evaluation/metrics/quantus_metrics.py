"""Metrics of Quantus, by the names of their classes, for one map of one image at a time."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_scorecam._extras import import_extra
from captum_scorecam._messages import closest_matches
from captum_scorecam.evaluation.method import check_flags_of, check_names_of_options
from captum_scorecam.evaluation.metrics.metric import Metric, MetricInput, MetricResult, Need
from captum_scorecam.evaluation.random_state import seeded
from captum_scorecam.evaluation.request import ExplanationRequest
from captum_scorecam.masking.scaling import varies
from captum_scorecam.scoring.class_scores import ScoreFunction, score_function

QUANTUS = "quantus"
_FAITHFULNESS, _LOCALISATION = "Faithfulness", "Localisation"
_SET = {  # by the evaluation, of the constructors' parameters
    *("self", "args", "kwargs", "call_kwargs", "disable_warnings", "display_progressbar"),
    *("return_aggregate", "aggregate_func", "default_plot_func", "perturb_func_kwargs", "normalise_func_kwargs"),
}


@cache
def quantus_classes() -> Mapping[str, type]:
    """The metrics of Quantus by the names of their classes.

    Raises:
        ModuleNotFoundError: If Quantus is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        available = import_extra("quantus.helpers.constants", "quantus", "A metric of Quantus").AVAILABLE_METRICS
    listed = [each for of_kind in available.values() for each in of_kind.values()]
    return {each.__name__: each for each in sorted(listed, key=lambda each: each.__name__)}


def quantus_class(name: str) -> type:
    """Returns a metric of Quantus by the name of its class.

    Raises:
        ValueError: If there is no such class.
        ModuleNotFoundError: If Quantus is not installed.
    """
    classes = quantus_classes()
    if name not in classes:
        raise ValueError(
            f"Expected each of `metrics` that begins with {QUANTUS}: to name a metric of Quantus, but got "
            f"{name!r}.{closest_matches(name, classes)}"
        )
    return classes[name]


def quantus_metric(name: str, class_name: str, options: Mapping[str, Any], text: str) -> Metric:
    """Returns a metric of Quantus.

    Args:
        name (str): Its name in records and tables.
        class_name (str): Its class.
        options (mapping of str): Options of its constructor.
        text (str): How it was chosen.

    Raises:
        ValueError: If there is no such class or option, or Quantus refuses a value.
        TypeError: If an option that is True or False by default is neither.
        ModuleNotFoundError: If Quantus is not installed.
    """
    kind = quantus_class(class_name)
    parameters = inspect.signature(kind).parameters
    check_names_of_options(options, {*parameters} - _SET, class_name)
    check_flags_of(parameters, options)
    compute = _QuantusMetric(kind, dict(options))
    try:
        made = compute.made()
    except Exception as error:  # whatever Quantus raises
        raise ValueError(f"{QUANTUS}:{class_name}: {type(error).__name__}: {error}") from error
    needs: frozenset[Need] = frozenset({"boxes"}) if compute.is_of_regions else frozenset()
    title = made.name if name == class_name else name
    return Metric(name, title, made.score_direction.value == "higher", compute, needs=needs, text=text)


@dataclass(frozen=True)
class _QuantusMetric:
    """Computes a metric of Quantus for one map."""

    kind: type
    options: dict[str, Any] = field(hash=False)

    @property
    def is_of_regions(self) -> bool:
        return self.kind.evaluation_category.value == _LOCALISATION  # type: ignore[attr-defined, no-any-return]

    def _channels_of(self, inputs: Tensor) -> int:
        """Quantus's metrics of faithfulness take attributions of each colour; others would count equal ones."""
        return inputs.shape[1] if self.kind.evaluation_category.value == _FAITHFULNESS else 1  # type: ignore[attr-defined]

    def made(self) -> Any:
        """The metric, without means over images, messages and progress bars where it has these options."""
        parameters = inspect.signature(self.kind).parameters
        quiet = {"disable_warnings": True, "display_progressbar": False, "return_aggregate": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.kind(**{k: v for k, v in quiet.items() if k in parameters}, **self.options)

    def __call__(self, metric_input: MetricInput) -> MetricResult:
        request = metric_input.request
        region = metric_input.object_pixels
        if (self.is_of_regions and region is None) or not varies(metric_input.maps).all():
            return MetricResult(None)  # Quantus refuses a constant map
        model, with_softmax = _scored(request)
        with seeded(request.options.seed, request.inputs.device), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Quantus's own code
            found = self.made()(
                model=model,
                x_batch=request.inputs.detach().cpu().float().numpy(),
                y_batch=np.array([metric_input.target]),
                a_batch=metric_input.maps.repeat(1, self._channels_of(request.inputs), 1, 1).numpy(),
                s_batch=None if region is None else region[None, None].numpy(),
                explain_func=_Explainer(metric_input),
                explain_func_kwargs={},
                device=str(request.inputs.device),
                softmax=with_softmax,
                channel_first=True,
                model_predict_kwargs={},
            )
        value = _number(found, self.kind.__name__)
        return MetricResult(value if math.isfinite(value) else None)


def _scored(request: ExplanationRequest) -> tuple[nn.Module, bool]:
    """Returns a model for Quantus, and whether its scores are the softmax of the outputs.

    Quantus knows no other scores, and removes a softmax that is a model's last module.
    """
    ends_in_softmax = isinstance([*request.model.modules()][-1], nn.Softmax)
    if request.score in ("output", "probability") and not ends_in_softmax:
        return request.model, request.score == "probability"
    return _Scored(request.model, score_function(request.score)), False


class _Scored(nn.Module):
    """A model whose outputs are the scores."""

    def __init__(self, model: nn.Module, score: ScoreFunction) -> None:
        super().__init__()
        self.model = model
        self.score = score
        self.last = nn.Identity()
        self.training = model.training

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.score(self.model(inputs)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Explainer:
    """Explains images for Quantus: arrays in, an array N×1×H×W out."""

    metric_input: MetricInput

    def __call__(self, model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
        request = self.metric_input.request
        changed = model if isinstance(model, nn.Module) else request.model
        changed = changed.model if isinstance(changed, _Scored) else changed
        maps = [
            self.metric_input.explain_again(self._as_input(image), int(target), changed)
            for image, target in zip(np.asarray(inputs), np.asarray(targets).reshape(-1), strict=True)
        ]
        return torch.cat(maps).numpy()

    def _as_input(self, image: Any) -> Tensor:
        return torch.as_tensor(image[None]).to(self.metric_input.request.inputs)


def _number(found: Any, name: str) -> float:
    """Returns the one number of a result for one image; of a curve over steps, the mean.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(found, Sequence) and len(found) == 1:
        values = np.asarray(found[0], dtype=np.float64)
        if values.ndim <= 1 and values.size > 0:
            return float(values.mean())
    got = f"values for {', '.join(map(str, found))}" if isinstance(found, Mapping) else repr(found)
    raise ValueError(
        f"Expected one number for each image from {name}, but got {got:.200}. Where it has them, set "
        "return_average_correlation or return_last_correlation to True."
    )
