"""Attribution methods of Captum's kind: the classes of ``captum.attr`` by name, and one's own."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import captum.attr
import torch
from captum.attr import (
    Attribution,
    KernelShap,
    LayerActivation,
    LayerAttribution,
    LayerGradCam,
    Lime,
    PerturbationAttribution,
)
from torch import Tensor

from captum_scorecam._messages import check_choice, check_whole_number, warn_caller
from captum_scorecam.evaluation.forward_rows import forward_rows
from captum_scorecam.evaluation.hooked_modules import check_modules_are_hooked
from captum_scorecam.evaluation.method import Method, Options, check_flags_of, check_names_of_options
from captum_scorecam.evaluation.methods import class_scores_of, register_method
from captum_scorecam.evaluation.patches import SAMPLES_PER_PATCH, default_patches, numbered_patches
from captum_scorecam.evaluation.random_state import seeded
from captum_scorecam.evaluation.request import ExplanationRequest, MethodRun

Factory: TypeAlias = Callable[..., Attribution]
Sign: TypeAlias = Literal["positive", "negative", "absolute_value", "all"]

CAPTUM = "captum"
_GRADIENT_ROWS = 8  # at most at once, of methods that integrate gradients, since backward passes keep all activations
_ABSTRACT = "it is abstract"
_OF_TEXT = "it explains language models"
_OF_NEURON = "it explains a neuron, not a class"
_OF_BATCH = "it permutes the examples of a batch, and images are explained one at a time"
REFUSED = {
    "Attribution": _ABSTRACT,
    "GradientAttribution": _ABSTRACT,
    "LayerAttribution": _ABSTRACT,
    "NeuronAttribution": _ABSTRACT,
    "PerturbationAttribution": _ABSTRACT,
    "DataLoaderAttribution": "it explains a whole data set at once",
    "LLMAttribution": _OF_TEXT,
    "LLMGradientAttribution": _OF_TEXT,
    "RemoteLLMAttribution": _OF_TEXT,
    "NeuronConductance": _OF_NEURON,
    "NeuronDeconvolution": _OF_NEURON,
    "NeuronDeepLift": _OF_NEURON,
    "NeuronDeepLiftShap": _OF_NEURON,
    "NeuronFeatureAblation": _OF_NEURON,
    "NeuronGradient": _OF_NEURON,
    "NeuronGradientShap": _OF_NEURON,
    "NeuronGuidedBackprop": _OF_NEURON,
    "NeuronIntegratedGradients": _OF_NEURON,
    "FeaturePermutation": _OF_BATCH,
    "LayerFeaturePermutation": _OF_BATCH,
    "LayerFeatureAblation": "it runs a forward pass for each value of the layer",
    "ShapleyValues": "it runs a forward pass for each order of the parts; ShapleyValueSampling draws some",
    "LimeBase": "it takes functions; Lime and KernelShap set them",
    "NoiseTunnel": "it wraps another attribution; `register_captum` takes a function that wraps it",
}
CLASSES = {
    name: value
    for name, value in sorted(vars(captum.attr).items())
    if inspect.isclass(value) and issubclass(value, Attribution)
}
_SET = {  # by the evaluation, of each class's parameters
    *("self", "args", "kwargs", "forward_func", "model", "layer", "device_ids"),
    *("inputs", "target", "additional_forward_args", "return_convergence_delta", "attribute_to_layer_input"),
    *("show_progress", "feature_mask", "return_input_shape", "grad_kwargs", "custom_attribution_func", "verbose"),
    *("interpretable_model", "similarity_func", "perturb_func", "attr_dim_summation"),
}
_EXPECTED = (  # warnings of hooks, which Captum removes again, and of several targets, for which the image is repeated
    "Setting (forward, backward hooks and attributes|backward hooks on)",
    "You are providing multiple inputs for Lime / Kernel SHAP attributions",
)


@cache
def captum_method(class_name: str) -> Method:
    """Returns the method of a class of ``captum.attr``.

    Raises:
        ValueError: If it can't explain the class of an image.
    """
    if class_name in REFUSED:
        raise ValueError(
            f"Expected a class of captum.attr that explains the class of an image, but got {class_name}: "
            f"{REFUSED[class_name]}."
        )
    return _method_of(CLASSES[class_name], class_name)


def register_captum(name: str, factory: Factory, *, of_layer: bool | None = None, title: str | None = None) -> None:
    """Adds an attribution of Captum's kind to `METHODS`, for use in `plan_evaluation` and on the command line.

    Parameters of its constructor and of its ``attribute`` are options of the method. Attributions N×C×h×w, of the input
    or of the layer, are summed over the channels; then ``sign`` keeps the ``"positive"`` values (default) or the
    ``"negative"`` ones, both as ``"absolute_value"``, or ``"all"`` as they are, as for Captum's
    ``visualize_image_attr``.

    Args:
        name (str): Letters, digits and underscores; used in records and file names.
        factory (callable): A subclass of Captum's ``Attribution``, or a function that takes the model, or the model and
            the layer, and returns an instance.
        of_layer (bool, optional): Whether the factory takes the layer, too. Default: None, it does if it has a
            parameter ``layer``.
        title (str, optional): Name in tables and figures. Default: None, the registered name.

    Raises:
        TypeError: If `factory` is not callable.
        ValueError: If the name has other characters or belongs to another method.
    """
    if not callable(factory):
        raise TypeError(f"Expected `factory` to be a class or function, but got {type(factory).__name__}.")
    register_method(name, _method_of(factory, title, of_layer))


def _method_of(factory: Factory, title: str | None, of_layer: bool | None = None) -> Method:
    explain = CaptumMethod(factory, _takes_layer(factory) if of_layer is None else of_layer)
    return Method(explain, explain.of_layer, title, explain.check_options, explain.runs_masks)


def _takes_layer(factory: Factory) -> bool:
    return "layer" in inspect.signature(factory).parameters


@dataclass(frozen=True)
class CaptumMethod:
    """Explains with an attribution of Captum's kind.

    Attributes:
        factory (callable): A class or function that returns the attribution.
        of_layer (bool): Whether it takes the layer, too.
    """

    factory: Factory
    of_layer: bool

    @property
    def __wrapped__(self) -> Factory:
        """The factory, whose source code the results depend on."""
        return self.factory

    @property
    def runs_masks(self) -> bool:
        """Whether it runs masked inputs instead of gradients; unknown for functions, which are taken to do so."""
        return not inspect.isclass(self.factory) or issubclass(self.factory, PerturbationAttribution)

    def check_options(self, options: Options) -> None:
        """Checks that options are known, and that all required ones are given.

        Raises:
            TypeError, ValueError: If they aren't.
        """
        parameters = self._parameters()
        named = {name for name in parameters if name not in _SET}
        check_names_of_options(options, named | {"sign"} | ({"patches"} if "feature_mask" in parameters else set()))
        check_choice("sign", options.get("sign", "positive"), Sign)
        check_flags_of(parameters, options)
        if "patches" in options:
            check_whole_number("patches", options["patches"], 1)
        for name in sorted(named - {"baselines"} - options.keys()):
            if parameters[name].default is inspect.Parameter.empty:
                raise ValueError(f"Expected the option `{name}`, which has no default.")

    def __call__(self, request: ExplanationRequest, **options: Any) -> tuple[Tensor, MethodRun]:
        """Explains an image."""
        sign = options.pop("sign", "positive")
        attribution = self.attribution(request, options)
        arguments = self._arguments(request, attribution, options.pop("patches", default_patches(attribution)))
        arguments |= {name: value for name, value in options.items() if name not in _names(self.factory)}
        inputs = request.repeated_inputs()
        if "baselines" in arguments:
            arguments["baselines"] = _baselines(attribution, inputs, arguments["baselines"])
        counted = forward_rows(request.model, request.masked_forward_func)
        with counted as rows, seeded(request.options.seed, inputs.device), _quiet():
            attributions = attribution.attribute(inputs, **arguments)
        maps = self._maps(request, attribution, attributions)
        return _signed(maps.sum(1, keepdim=True), sign), MethodRun(sum(rows))

    def check_request(self, name: str, request: ExplanationRequest, options: Options) -> None:
        """Checks what depends on the model and the size of its inputs, and warns of maps that would be mostly noise.

        Raises:
            ValueError: Same as `check_modules_are_hooked`.
        """
        attribution = self.attribution(request, options)
        check_modules_are_hooked(name, attribution, request)
        if not isinstance(attribution, Lime):
            return
        patches = int(numbered_patches(request.inputs, options.get("patches", default_patches(attribution))).max()) + 1
        if options.get("n_samples", patches) < patches:
            warn_caller(
                f"{name} fits the weights of {patches} patches to {options['n_samples']} samples, so its map is mostly "
                "noise. Set more `n_samples` or fewer `patches`."
            )

    def _parameters(self) -> dict[str, inspect.Parameter]:
        """The parameters of the constructor and of ``attribute``, if the factory is a class."""
        attribute = getattr(self.factory, "attribute", None)
        of_call = {} if attribute is None else inspect.signature(attribute).parameters
        found = {**inspect.signature(self.factory).parameters, **of_call}
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return {name: parameter for name, parameter in found.items() if parameter.kind not in variable}

    def attribution(self, request: ExplanationRequest, options: Options) -> Attribution:
        """Returns the attribution, made with those of the options that its constructor takes."""
        first = next(iter(inspect.signature(self.factory).parameters), "")
        run = request.forward_of_masked if inspect.isclass(self.factory) and self.runs_masks else request.model
        function = request.model if first == "model" or not inspect.isclass(self.factory) else class_scores_of(run)
        chosen = {name: value for name, value in options.items() if name in _names(self.factory)}
        return self.factory(function, *([request.layer.module] if self.of_layer else []), **chosen)

    def _arguments(self, request: ExplanationRequest, attribution: Attribution, patches: int) -> dict[str, Any]:
        """The arguments of ``attribute`` that the evaluation sets, as far as it has them."""
        rows = request.options.perturbations_per_eval
        feature_mask = numbered_patches(request.inputs, patches)
        known = {
            "target": request.targets,
            "attribute_to_layer_input": request.layer.of_input,
            "perturbations_per_eval": rows or 1,
            "internal_batch_size": max(min(rows or _GRADIENT_ROWS, _GRADIENT_ROWS), 2 * len(request.targets)),
            "show_progress": request.options.show_progress,
            "feature_mask": feature_mask,
        }
        if type(attribution) in (Lime, KernelShap):  # subclasses have their own default
            known["n_samples"] = SAMPLES_PER_PATCH * (int(feature_mask.max()) + 1)
        parameters = inspect.signature(attribution.attribute).parameters
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        chosen = {name: value for name, value in known.items() if name in parameters}
        if "target" not in chosen and takes_any:  # a subclass that passes all on
            of_layer = ("attribute_to_layer_input",) if self.of_layer else ()
            chosen |= {name: known[name] for name in ("target", *of_layer)}
        if "baselines" in parameters and parameters["baselines"].default is inspect.Parameter.empty:
            chosen["baselines"] = 0
        return chosen

    def _maps(self, request: ExplanationRequest, attribution: Attribution, attributions: Any) -> Tensor:
        values = attributions[0] if isinstance(attributions, tuple) and len(attributions) == 1 else attributions
        if not isinstance(values, Tensor):
            raise TypeError(f"Expected attributions in one tensor, but got {type(values).__name__}.")
        transform = request.layer.activation_transform
        if isinstance(attribution, LayerAttribution) and transform is not None:
            of_layer = LayerActivation(request.model, request.layer.module)
            shape = of_layer.attribute(request.inputs.clone(), attribute_to_layer_input=request.layer.of_input).shape
            if isinstance(attribution, LayerGradCam) or values.shape[1:] != shape[1:]:
                raise ValueError(
                    f"Expected attributions of each value of {request.layer.name}, whose activation is converted to "
                    f"maps, but {type(attribution).__name__} returns {tuple(values.shape)}. Use grad_cam for Grad-CAM."
                )
            values = transform(values)
        size = request.inputs.shape[2:]
        if values.dim() != 2 + len(size) or len(values) != len(request.targets):
            raise ValueError(
                f"Expected attributions of shape {len(request.targets)}×C×h×w, but got {tuple(values.shape)}."
            )
        return values.detach()


def _names(factory: Factory) -> set[str]:
    return {*inspect.signature(factory).parameters} - _SET


def _baselines(attribution: Attribution, inputs: Tensor, baselines: Any) -> Any:
    """A number as two images of it where Captum needs a distribution of them."""
    parameter = inspect.signature(attribution.attribute).parameters.get("baselines")
    is_required = parameter is not None and parameter.default is inspect.Parameter.empty
    if is_required and isinstance(baselines, (int, float)):
        return torch.full_like(inputs[:1], baselines).detach().repeat(2, *[1] * (inputs.dim() - 1))
    return baselines


def _signed(maps: Tensor, sign: Sign) -> Tensor:
    if sign == "all":
        return maps
    return {"positive": maps.relu(), "negative": (-maps).relu(), "absolute_value": maps.abs()}[sign]


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        yield
