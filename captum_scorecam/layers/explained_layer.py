"""The layer to explain, named by the user or found by how a model's activations depend on the image."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, replace

from torch import Tensor, nn

from captum_scorecam import _captum
from captum_scorecam._captum import Tensors
from captum_scorecam._messages import closest_names
from captum_scorecam.layers.activations import INPUT, Activation
from captum_scorecam.layers.automatic import AutomaticChoice
from captum_scorecam.layers.evaluation_copy import in_evaluation_mode
from captum_scorecam.layers.extent import misfit
from captum_scorecam.layers.layout import ActivationTransform, Layout
from captum_scorecam.layers.probe import Probe
from captum_scorecam.layers.trunk import Trunk
from captum_scorecam.model_state import unchanged_buffers
from captum_scorecam.scoring.class_scores import Score

_MAPS = {1: "N×K×t", 2: "N×K×h×w", 3: "N×K×d×h×w"}

NO_LAYER = "none"  # the name where no method explains a layer


@dataclass(frozen=True)
class ExplainedLayer:
    """A module whose output or input is explained.

    Attributes:
        name (str): The module's dotted path, followed by ``:input`` if its input is explained; `NO_LAYER` if none is.
        module (nn.Module): The module; the model if no layer is explained.
        activation_transform (callable, optional): Converts the layer's activation to maps. Default: None.
        image_size (tuple of int, optional): The spatial size of the inputs that the transform is for, if it depends on
            that, as for tokens. Default: None, any.
    """

    name: str
    module: nn.Module
    activation_transform: ActivationTransform | None = None
    image_size: tuple[int, ...] | None = None

    @property
    def of_input(self) -> bool:
        """Whether the module's input is explained: Captum's ``attribute_to_layer_input``."""
        return self.name.endswith(INPUT)

    def of_copy(self, model: nn.Module) -> ExplainedLayer:
        """Returns the layer of the same name in a copy of the model."""
        name = self.name.removesuffix(INPUT)
        return replace(self, module=model if name == NO_LAYER else model.get_submodule(name))

    def for_inputs(self, model: nn.Module, inputs: Tensor) -> ExplainedLayer:
        """Returns the layer with a transform for inputs of this size, for which it is probed again if needed."""
        fits = self.image_size is None or self.image_size == tuple(inputs.shape[2:])
        return self if fits else find_layer(model, inputs, self.name)


def find_layer(
    model: nn.Module,
    inputs: Tensor | Tensors,
    layer: str = "auto",
    additional_forward_args: object | None = None,
    *,
    score: Score | None = None,
) -> ExplainedLayer:
    """Finds the layer to explain and how to convert its activation to maps.

    Runs the model on pairs of noise images in evaluation mode: some 20 times for a named layer or a convolutional
    model, and 50 times for ``auto`` if it is a Vision Transformer. The model and the random state are left as they
    were; instead of a model in training mode, a copy that shares its parameters is run. Maps N×K×h×w, channels last
    (N×h×w×K), and tokens N×(P + h·w)×K are told apart by which values react to which part of the image. Maps of a model
    that crops, pads, shifts or mirrors its inputs are refused.

    ``auto`` selects the last activation that holds image positions and on which alone, of everything computed before
    it, the output depends: not a stem, a residual branch, or an attention matrix. If the head reads a class token,
    this is the input of the last attention, since no patch token affects the output after it.

    Args:
        model (nn.Module): The model.
        inputs (Tensor or tuple of Tensor): Inputs N×C×spatial with 1 to 3 spatial dimensions; their size, mean and
            spread matter.
        layer (str): ``auto``, a module's dotted path as in ``model.named_modules()``, or that path followed by
            ``:input`` for the module's input. Default: "auto".
        additional_forward_args (optional): Arguments of the model after the inputs. Default: None.
        score (str or callable, optional): The score to explain, as for `ScoreCAM`; of a model with several
            outputs, ``auto`` looks for the layer of those that it reads. Default: None, the logits or first tensor.

    Returns:
        ExplainedLayer: The layer.

    Raises:
        TypeError: If `layer` is not a string.
        ValueError: If no module has that name, the module does not run or has no maps, or ``auto`` finds no layer that
            is certain to be right; the message lists candidates. Also if a model in training mode cannot be copied.
    """
    if not isinstance(layer, str):
        raise TypeError(f'Expected `layer` to be "auto" or the name of a module, but got {reprlib.repr(layer)}.')
    if layer != "auto":
        check_name(model, layer)
    tensors, arguments = _captum.format_inputs(inputs), _captum.format_forward_args(additional_forward_args)
    with in_evaluation_mode(model) as evaluated, unchanged_buffers(evaluated):
        probe = Probe(evaluated, tensors, arguments, score)
        with probe.running():
            if layer == "auto":
                name, layout = AutomaticChoice(probe).choose()
            else:
                name, layout = layer, _layout_of(probe, _first_name(evaluated, layer))
    module = model.get_submodule(name.removesuffix(INPUT))
    return ExplainedLayer(name, module, layout.transform, probe.size if layout.is_flat else None)


def check_name(model: nn.Module, name: str) -> None:
    """Raises ValueError, with the closest matches, if no module of the model has that name."""
    names = [module_name for module_name, _ in model.named_modules(remove_duplicate=False) if module_name]
    wanted = name.removesuffix(INPUT)
    if wanted not in names:
        ends = [name for name in names if wanted.endswith(f".{name}")]  # of a model in a DataParallel, for example
        nearest = list(dict.fromkeys(ends + closest_names(wanted, names, cutoff=0.3)))[:5] or names[-5:]
        raise ValueError(
            f"Expected `layer` to name a module of the model, but got {name!r}. Closest matches: {', '.join(nearest)}."
        )


def _first_name(model: nn.Module, name: str) -> str:
    """Returns the first of a module's names, by which it is probed, with the ending of `name`."""
    module = dict(model.named_modules(remove_duplicate=False))[name.removesuffix(INPUT)]
    first = next(known for known, each in model.named_modules() if each is module)
    return f"{first}{INPUT}" if name.endswith(INPUT) else first


def _layout_of(probe: Probe, name: str) -> Layout:
    """The layout of a named layer's activation in its last call, which is the explained one."""
    module_name = name.removesuffix(INPUT)
    activations = probe.record()
    if not probe.n_calls[module_name]:
        raise ValueError(
            f"Expected `layer` to name a module that runs in the forward pass, but {name!r} does not. If the model "
            "runs no modules (TorchScript, exported programs), use an `ActivationTap`."
        )
    last = probe.n_calls[module_name] - 1
    at_layer = [a for a in activations if any((p.name, p.call, p.is_alone) == (name, last, True) for p in a.points)]
    kind = f"returns {probe.returned[name]}" if name in probe.returned else "takes no single tensor"
    what = f"{kind}.{_modules_inside(activations, module_name)}"
    if at_layer:
        activation = replace(at_layer[-1], name=name)
        batch_axis = 1 if len(activation.shape) == 3 and activation.shape[0] != 2 == activation.shape[1] else 0
        layout, reason = None, " that does not follow the positions of the image."
        if activation.shape[batch_axis] == 2:
            reactions = probe.reactions(activation, batch_axis)
            layout = reactions.certain_layout() or Trunk(probe, activations).layout_by_shape(activation)
        if layout is not None:
            found = misfit(probe, activation, layout)
            if not found:
                return layout
            reason = f" that {found}."
        shape = (probe.n_examples if activation.shape[0] == 2 else activation.shape[0], *activation.shape[1:])
        what = f"has shape {shape}" + ("." if activation.is_vector else reason)
    raise ValueError(f"Expected `layer` to have {_MAPS[len(probe.size)]} maps, but {name!r} {what}")


def _modules_inside(activations: list[Activation], module_name: str) -> str:
    names = [a.name for a in activations if a.name.startswith(f"{module_name}.") and not a.name.endswith(INPUT)]
    return f" Modules in it that return a tensor: {', '.join(names[-6:])}." if names else ""
