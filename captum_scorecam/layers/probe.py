"""Runs a model on two noise images to see what its activations depend on and what depends on them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary

from captum_scorecam import _captum
from captum_scorecam._captum import Tensors
from captum_scorecam._random_draws import draws_undone
from captum_scorecam._threads import CallingThread, hooks
from captum_scorecam.layer_evaluation import as_tuple, input_tensors, kind_of
from captum_scorecam.layers.activations import Activation, Point, squared_changes
from captum_scorecam.layers.example_scores import Rows, distance, float_values, reader_of_scores, scores_of_examples
from captum_scorecam.layers.noise_images import noise_image, slab_bounds, with_slab
from captum_scorecam.layers.parameter_uses import ParameterUses
from captum_scorecam.layers.reactions import Reactions
from captum_scorecam.model_state import compiled_code_run_eagerly, gradients_disabled
from captum_scorecam.scoring.chunks import is_out_of_memory
from captum_scorecam.scoring.class_scores import Score
from captum_scorecam.scoring.masked_forward import rows_of
from captum_scorecam.scoring.memory_order import in_memory_order, memory_order

Change: TypeAlias = Callable[[Tensor], Tensor | None]


class Probe:
    """A model and two images of noise. Its methods are for the body of `running`.

    Args:
        model (nn.Module): The model, in evaluation mode.
        inputs (tuple of Tensor): Inputs; noise gets the size, mean and spread of the first example.
        additional_forward_args (tuple): Arguments after the inputs, indexed by example as in `rows_of`.
        score (str or callable, optional): The score whose layer is looked for. Default: None, of the logits or the
            first tensor that the model returns.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensors,
        additional_forward_args: tuple[Any, ...] = (),
        score: Score | None = None,
    ) -> None:
        self.input_shape = max((tuple(x.shape[1:]) for x in inputs), key=len)
        self.size = self.input_shape[1:]
        self.n_examples = len(inputs[0])
        self._additional = additional_forward_args
        self._arguments = self._arguments_of(2)
        self._inputs, self._generator = inputs, torch.Generator("cpu").manual_seed(0)
        self._images = self.noise()
        self._forward = model.module if isinstance(model, nn.DataParallel) else model
        self.modules = {name: module for name, module in model.named_modules() if not isinstance(module, ScriptModule)}
        self.scripted = {module for module in model.modules() if isinstance(module, ScriptModule)}
        self._score = score
        self._recorded: Any = None
        self._head_input: Activation | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the model without gradients, and compiled code eagerly."""
        with torch.inference_mode(False), gradients_disabled(), compiled_code_run_eagerly():
            yield

    def noise(self, contrast: float = 1.0) -> list[Tensors]:
        """Draws two images; integers keep their contrast."""
        drawn = [tuple(noise_image(x[:1], self._generator) for x in self._inputs) for _ in range(2)]
        return [tuple(contrast * x if x.is_floating_point() else x for x in image) for image in drawn]

    def record(self) -> list[Activation]:
        """Runs the model and lists its activations in the order in which they appear.

        Sets `n_calls`, the calls of each module, `spans`, when the last call of each module began and ended,
        `returned`, the kind of what it returned, and `parameter_uses`.
        """
        found: dict[tuple[int, int], Activation] = {}
        numbers: Any = WeakTensorKeyDictionary()
        counter, clock = itertools.count(), itertools.count()
        self.spans: dict[str, tuple[int, int]] = {}
        self.n_calls: Counter[str] = Counter()
        self.returned: dict[str, str] = {}

        def note(name: str, of_input: bool, call: int, values: list[Any], alone: Tensor | None) -> None:
            for index, value in enumerate(values):
                if isinstance(value, Tensor) and value.dim() > 1 and (value.is_floating_point() or value.is_quantized):
                    version = 0 if value.is_inference() else value._version
                    key = (numbers.setdefault(value, next(counter)), version)
                    activation = found.setdefault(key, Activation(value.shape, next(clock)))
                    activation.points.append(Point(name, call, of_input, index, value is alone))

        def before(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, kwargs: Any = None) -> None:
                if thread.makes_call_of(module):
                    alone = _only_tensor(tuple(input_tensors(args, kwargs).values()))
                    note(name, True, self.n_calls[name], tree_flatten((args, kwargs))[0], alone)
                    self.n_calls[name] += 1
                    self.spans[name] = (next(clock), -1)

            return hook

        def after(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, _args: Any, output: Any) -> None:
                if thread.makes_call_of(module):
                    self.spans[name] = (self.spans[name][0], next(clock))
                    self.returned[name] = kind_of(output)
                    note(name, False, self.n_calls[name] - 1, tree_flatten(output)[0], _only_tensor(as_tuple(output)))

            return hook

        thread, uses = CallingThread(), ParameterUses(clock, self.scripted)
        named = [(name, module) for name, module in self.modules.items() if name]
        with (
            uses.noted(),
            hooks(
                *(partial(module.register_forward_pre_hook, before(name), with_kwargs=True) for name, module in named),
                *(partial(module.register_forward_hook, after(name)) for name, module in named),
            ),
        ):
            output = self._first_run()
        for activation in found.values():
            activation.name = self._name(activation)
        self._recorded, self.parameter_uses = output, uses.found
        return list(found.values())

    def read_output(self, activations: list[Activation]) -> None:
        """Sets `output`, the scores of the two images, and `output_shape`, after `record`.

        A head of zero weights returns the same scores for all images; its input is taken instead.

        Raises:
            TypeError, ValueError: If the model's output has no tensor with one row per example, or not the named score.
        """
        self._read_scores = reader_of_scores(self._recorded, self._score)
        self.output = scores_of_examples(self._recorded, self._read_scores)
        self.output_shape = (2, *self.output[0].shape)
        for activation in reversed(activations):
            if distance(self.output[:1], self.output[1:]) > 0 or not activation.is_vector:
                return
            if activation.shape[0] == 2:
                self._head_input, values = activation, self.read(activation, *self._images)
                self.output = (values[0], values[1])

    def output_with(self, activation: Activation, change: Change) -> Rows:
        """Runs the model with a changed activation and returns the scores of the two images."""
        with self._changed(activation.point, change):
            if self._head_input is None:
                return scores_of_examples(self._run(*self._images), self._read_scores)
            values = self.read(self._head_input, *self._images)
            return values[0], values[1]

    def values(self, activation: Activation) -> Tensor:
        """Returns an activation of the two images."""
        return self.read(activation, *self._images)

    def values_with(self, activation: Activation, changed: Activation, change: Change) -> Tensor:
        """Returns an activation of the two images after a change of another one."""
        with self._changed(changed.point, change):
            return self.read(activation, *self._images)

    def reactions(self, activation: Activation, batch_axis: int = 0) -> Reactions:
        """Measures how an activation of the first image changes when slabs of the image change."""
        first, second = self._images
        base = self.read(activation, first, second).select(batch_axis, 0)
        slabs = [slab_bounds(size) for size in self.size]
        places = [(dim, k) for dim, bounds in enumerate(slabs) for k in range(len(bounds) - 1)]
        changes: list[list[Tensor]] = [[] for _ in slabs]
        for start in range(0, len(places), 2):
            pair = places[start : start + 2]
            images = [tuple(map(with_slab(slabs[dim], dim, k), first, second)) for dim, k in pair]
            values = self.read(activation, images[0], images[-1])
            for row, (dim, _) in enumerate(pair):
                changes[dim].append(squared_changes(values.select(batch_axis, row), base))
        bounds = [[edge / b[-1] for edge in b] for b in slabs]
        return Reactions([torch.stack(c) for c in changes], bounds, self.size, batch_axis)

    def read(self, activation: Activation, first: Tensors, second: Tensors) -> Tensor:
        """Returns an activation of two images."""
        values: list[Tensor] = []
        with self._changed(activation.point, lambda value: values.append(float_values(value).clone())):
            self._run(first, second)
        return values[0]

    def _arguments_of(self, n_rows: int) -> tuple[Any, ...]:
        first = torch.zeros(n_rows, dtype=torch.long, device="cpu")
        return tuple(rows_of(value, first, self.n_examples) for value in self._additional)

    def _first_run(self) -> Any:
        try:
            return self._run(*self._images)
        except Exception as error:  # a model may refuse its inputs with any error
            if is_out_of_memory(error):
                raise
            for n_rows in {1, self.n_examples} - {2}:
                if self._runs_with(n_rows):
                    raise ValueError(
                        "Expected `forward_func` to take any number of rows, since its layer is looked for with two, "
                        f"but it takes only {n_rows}. Pass the layer itself, with its `activation_transform`; for "
                        "TorchScript and exported programs, an `ActivationTap`."
                    ) from error
            raise

    def _runs_with(self, n_rows: int) -> bool:
        inputs = self._in_users_order(tuple(x.expand(n_rows, *x.shape[1:]) for x in self._images[0]))
        try:
            with draws_undone(inputs):
                _captum.run_forward(self._forward, inputs, self._arguments_of(n_rows))
        except Exception:  # then the number of rows is not the reason
            return False
        return True

    def _run(self, first: Tensors, second: Tensors) -> Any:
        inputs = self._in_users_order(tuple(torch.cat(pair) for pair in zip(first, second, strict=True)))
        with draws_undone(inputs):
            return _captum.run_forward(self._forward, inputs, self._arguments)

    def _in_users_order(self, inputs: Tensors) -> Tensors:
        return tuple(in_memory_order(x, memory_order(given)) for x, given in zip(inputs, self._inputs, strict=True))

    @contextmanager
    def _changed(self, point: Point, change: Change) -> Iterator[None]:
        """Changes one tensor of one call of a module; a change that returns None leaves it."""
        module, thread, call = self.modules[point.module_name], CallingThread(), itertools.count()

        def changed(values: Any) -> Any:
            if not thread.makes_call_of(module) or next(call) != point.call:
                return None
            leaves, structure = tree_flatten(values)
            value = leaves[point.index]
            new = change(value.dequantize() if value.is_quantized else value)
            if new is None:
                return None
            return tree_unflatten(_with(leaves, point.index, _quantized_like(value, new)), structure)

        if point.of_input:
            register = partial(
                module.register_forward_pre_hook,
                lambda _, args, kwargs=None: changed((args, kwargs)),
                with_kwargs=True,
            )
        else:
            register = partial(module.register_forward_hook, lambda _module, _args, output: changed(output))
        with hooks(register):
            yield

    def _name(self, activation: Activation) -> str:
        """The outermost module that returns it, if possible with parameters; else the first that takes it."""
        readable = [p for p in activation.points if p.is_alone and self.n_calls[p.module_name] == 1]
        outputs = [point for point in readable if not point.of_input]
        trained = [p for p in outputs if any(True for _ in self.modules[p.module_name].parameters())]
        chosen = (trained or outputs)[-1:] or readable[:1]
        return chosen[0].name if chosen else ""


def _quantized_like(before: Tensor, values: Tensor) -> Tensor:
    if not before.is_quantized:
        return values
    return torch.quantize_per_tensor(values, before.q_scale(), before.q_zero_point(), before.dtype)


def _with(values: list[Any], index: int, new: Any) -> list[Any]:
    return [*values[:index], new, *values[index + 1 :]]


def _only_tensor(values: tuple[Any, ...]) -> Tensor | None:
    """The tensor that is explained as a module's input or output, if it is the only value."""
    return values[0] if len(values) == 1 and isinstance(values[0], Tensor) else None
