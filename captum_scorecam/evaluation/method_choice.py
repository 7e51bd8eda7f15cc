"""Reads the methods of an evaluation from text, such as ``fast=score_cam:max_forwards=64``, and checks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from captum.attr import PerturbationAttribution
from torch import Tensor, nn

from captum_scorecam._messages import check_fraction, closest_matches, warn_caller
from captum_scorecam.evaluation.captum_methods import CAPTUM, CLASSES, REFUSED, CaptumMethod, captum_method
from captum_scorecam.evaluation.method import ChosenMethod, Method
from captum_scorecam.evaluation.methods import METHODS, OWN_METHODS, SCORE_CAM, may_share
from captum_scorecam.evaluation.options_text import base_and_text, name_and_text, options_of
from captum_scorecam.evaluation.registry import by_name, unknown_base
from captum_scorecam.evaluation.request import (
    DEFAULT_OPTIONS,
    OPTIONS_OF_RUN,
    ExplanationRequest,
    MethodOptions,
    merged_options,
    options_of_run,
)
from captum_scorecam.layers.explained_layer import NO_LAYER
from captum_scorecam.models import Classifier, ExplainedLayer, find_layer
from captum_scorecam.scoring.class_scores import NamedScore

Methods = Mapping[str, ChosenMethod]
_USABLE = sorted(CLASSES.keys() - REFUSED)
_ROWS_TRIED = 64


def chosen_methods(texts: Sequence[str]) -> dict[str, ChosenMethod]:
    """Reads methods from text.

    Args:
        texts (sequence of str): ``[NAME=]METHOD[:OPTION=VALUE,…]``. The method is a name in `METHODS`, or ``captum:``
            and the name of a class of ``captum.attr``. Values are Python literals; words need no quotes. NAME is by
            default that of the method or class.

    Returns:
        dict: The methods by name, without duplicates.

    Raises:
        ValueError: If a text has another form, a method or option is unknown, a value is wrong, or a name is used
            twice, also in another case, or belongs to another method.
        TypeError: If a value has the wrong type.
    """
    chosen = by_name(map(_chosen, texts), "methods")
    of_files: dict[str, str] = {}
    for name in chosen:
        if (other := of_files.setdefault(name.lower(), name)) != name:
            raise ValueError(
                f"Expected names of `methods` that differ in more than case, since they name files, but got {other} "
                f"and {name}."
            )
    return chosen


def _chosen(text: str) -> ChosenMethod:
    name, rest = name_and_text(text, "method")
    base, given = base_and_text(rest, CAPTUM)
    method = _method(base, rest)
    options = options_of(base, given)
    if name is None:
        name = base.removeprefix(f"{CAPTUM}:")
    elif name in METHODS and name != base:
        raise ValueError(f"Expected a new name for {base}, but {name!r} is the name of another method.")
    _check_options(base, method, options)
    return ChosenMethod(name, base, method, options)


def _method(base: str, text: str) -> Method:
    if base in METHODS:
        return METHODS[base]
    kind, _, class_name = base.partition(":")
    if kind != CAPTUM:
        raise unknown_base(text, METHODS, CAPTUM, _USABLE, "methods")
    if class_name in CLASSES:
        return captum_method(class_name)
    raise ValueError(
        f"Expected each of `methods` that begins with {CAPTUM}: to name a class of captum.attr, but got "
        f"{class_name!r}.{closest_matches(class_name, _USABLE)}"
    )


def _check_options(base: str, method: Method, options: Mapping[str, Any]) -> None:
    try:
        if method.check_options is not None:
            method.check_options(options)
        elif options:
            raise ValueError(f"Expected no options, but got {', '.join(options)}.")
    except (TypeError, ValueError) as error:
        raise type(error)(f"{base}: {error}") from error


def check_options_of_run(methods: Methods, options: MethodOptions) -> None:
    """Checks the options of all methods, together with each method's own, and that a budget comes with Score-CAM.

    Raises:
        TypeError, ValueError: If they are wrong, or it doesn't.
    """
    if options.error is not None:
        check_fraction("error", options.error)
    for each in methods.values():
        if options_of_run(each.base, each.options):
            _check_options(each.base, each.method, merged_options(each.base, each.options, options))
    if SCORE_CAM not in {method.base for method in methods.values()}:
        for name in _unused(methods, options) & {"max_forwards", "error"}:
            raise ValueError(
                f"Expected `methods` to include score_cam, the only method with `{name}`, but got {', '.join(methods)}."
            )


def warn_of_unused_options(methods: Methods, options: MethodOptions) -> None:
    """Warns of options of the run that no method uses."""
    unused = _unused(methods, options)
    for base, names in OPTIONS_OF_RUN.items():
        for own, name in names.items():
            if name in unused:
                only = f"only {base} without {own} of its own uses it"
                warn_caller(f"`{name}` has no effect: {only}, and `methods` includes none.")


def _unused(methods: Methods, options: MethodOptions) -> set[str]:
    """The options that are not the default and that no method uses. A plugin's method may use any."""
    used: set[str] = set()
    for method in methods.values():
        if method.base not in OWN_METHODS and not isinstance(method.method.explain, CaptumMethod):
            return set()
        used |= {*options_of_run(method.base, method.options).values()}
    of_methods = {name for names in OPTIONS_OF_RUN.values() for name in names.values()}
    return {name for name in of_methods - used if getattr(options, name) != getattr(DEFAULT_OPTIONS, name)}


def scores_to_share(methods: Methods, options: MethodOptions) -> tuple[NamedScore, ...]:
    """Returns the scores that several of Score-CAM's methods can read from one set of forward passes.

    They can if one of them runs all masks: then any weighting, and any budget, is a matter of arithmetic.

    Args:
        methods (mapping): The methods by name.
        options (MethodOptions): The options of all methods.
    """
    sharing = [each for each in methods.values() if each.base == SCORE_CAM and may_share(each.options)]
    if len(sharing) < 2 or not any(_runs_all_masks(each, options) for each in sharing):
        return ()
    return tuple(dict.fromkeys(each.options.get("score", "output") for each in sharing))


def explains_more_classes_for_free(method: ChosenMethod, options: MethodOptions) -> bool:
    """Whether the forward passes for the map of one class give those of others, too.

    A budget chooses masks for all classes that are explained, so that other classes would change the first one's map.
    """
    return method.base == "rise" or (method.base == SCORE_CAM and _runs_all_masks(method, options))


def _runs_all_masks(method: ChosenMethod, options: MethodOptions) -> bool:
    """Whether Score-CAM runs each mask with these options."""
    merged = merged_options(method.base, method.options, options)
    return not any(merged.get(name) for name in ("max_forwards", "error", "tolerance"))


def layer_to_explain(
    methods: Methods | Sequence[str], classifier: Classifier, inputs: Tensor, layer: str = "auto"
) -> ExplainedLayer:
    """Finds the layer to explain. Methods that need no layer also accept models without feature maps.

    Args:
        methods (mapping, or sequence of str): The chosen methods, or what `chosen_methods` reads.
        classifier (Classifier): The model.
        inputs (Tensor): An input for one forward pass, 1×C×H×W.
        layer (str): The layer, as accepted by `find_layer`. Default: "auto", the classifier's `layer`.

    Returns:
        ExplainedLayer: The layer; its name is ``none`` if no method explains a layer.

    Raises:
        ValueError: Same as `find_layer`.
    """
    chosen = methods if isinstance(methods, Mapping) else chosen_methods(methods)
    if any(method.method.of_layer for method in chosen.values()):
        return find_layer(classifier.model, inputs, classifier.layer if layer == "auto" else layer)
    if layer != "auto":
        warn_caller("`layer` has no effect: none of `methods` explains a layer.")
    return ExplainedLayer(NO_LAYER, classifier.model)


def check_methods_run(
    methods: Methods, model: nn.Module, layer: ExplainedLayer, inputs: Tensor, n_classes: int = 1
) -> None:
    """Tries Captum's methods, which refuse some models and options only when they run.

    Those that run masked inputs get a function that returns zeros in place of the model.

    Args:
        methods (mapping): The methods by name.
        model (nn.Module): The model.
        layer (ExplainedLayer): The layer to explain.
        inputs (Tensor): An input for one forward pass, 1×C×H×W.
        n_classes (int): The model's number of classes. Default: 1.

    Raises:
        ValueError: If a method raises an error, or knows none of the model's activation modules.
    """
    options = MethodOptions(perturbations_per_eval=_ROWS_TRIED)
    for name, chosen in methods.items():
        method, request = chosen.method.explain, ExplanationRequest(model, layer, inputs, [0], "output", options)
        if not isinstance(method, CaptumMethod):
            continue
        try:
            is_masked = isinstance(method.attribution(request, chosen.options), PerturbationAttribution)
            chosen.explain(replace(request, model=_Zeros(n_classes)) if is_masked and not method.of_layer else request)
        except Exception as error:  # Captum raises AssertionError, too
            text = str(error) or "no message"
            raise ValueError(
                f"Expected `methods` that explain this model, but {name} raised {type(error).__name__}: {text}"
            ) from error
        method.check_request(name, request, chosen.options)


class _Zeros(nn.Module):
    """Returns zeros for each row."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns N×classes zeros."""
        return inputs.new_zeros(len(inputs), self.n_classes)
