"""Uniform errors for invalid options, and warnings that point at the caller's line."""

from __future__ import annotations

import contextlib
import difflib
import functools
import math
import os
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from numbers import Integral, Real
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args

import captum
import torch

_NOT_THE_CALLERS = (
    os.path.dirname(__file__) + os.sep,
    os.path.dirname(captum.__file__) + os.sep,
    contextlib.__file__,
    functools.__file__,
    torch.utils._contextlib.__file__,
)

MOST = 2**31 - 1  # for numbers of masks, steps and samples, beyond which PyTorch fails before memory does

_Self = TypeVar("_Self")
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Issues a warning that points at the user's line, even if the call went through Captum.

    From Python 3.12 on, ``skip_file_prefixes`` of ``warnings.warn`` does the same.

    Args:
        message (str): The message.
        category (type): The warning class. Default: UserWarning.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_NOT_THE_CALLERS):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def check_choice(name: str, value: object, choices: Any, otherwise: str = "") -> None:
    """Checks that an option has one of its allowed values.

    Args:
        name (str): The parameter's name.
        value: The value to check.
        choices (Literal): The type that lists the allowed values.
        otherwise (str): Other accepted values, for the error message. Default: none.

    Raises:
        ValueError: If `value` is not allowed.
    """
    if not isinstance(value, str) or value not in get_args(choices):
        names = [*map(repr, get_args(choices)), *([otherwise] if otherwise else [])]
        closest = closest_matches(value, get_args(choices)) if isinstance(value, str) else ""
        raise ValueError(
            f"Expected `{name}` to be {', '.join(names[:-1])} or {names[-1]}, but got {reprlib.repr(value)}.{closest}"
        )


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"Expected `{name}` to be a number, but got {reprlib.repr(value)}.")
    try:
        infinite = math.isinf(value)
    except OverflowError:  # an int beyond the range of floats
        infinite = True
    if infinite:
        raise ValueError(f"Expected `{name}` to be a finite number, but got {reprlib.repr(value)}.")


def check_at_least(name: str, value: float, least: float) -> None:
    """Raises TypeError if `value` is not a number, and ValueError if it is not finite or less than `least`."""
    _check_number(name, value)
    if not value >= least:
        raise ValueError(f"Expected `{name}` to be at least {least}, but got {value}.")


def check_positive(name: str, value: float) -> None:
    """Raises TypeError if `value` is not a number, and ValueError if it is not finite or not positive."""
    _check_number(name, value)
    if not value > 0:
        raise ValueError(f"Expected `{name}` to be positive, but got {value}.")


def check_fraction(name: str, value: float, *, with_one: bool = False) -> None:
    """Raises TypeError if `value` is not a number, and ValueError if it is not in (0, 1), or (0, 1] `with_one`."""
    _check_number(name, value)
    if not (0 < value < 1 or (with_one and value == 1)):
        raise ValueError(f"Expected `{name}` in (0, 1{']' if with_one else ')'}, but got {value}.")


def check_whole_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """Returns a whole number, such as NumPy's, as an int.

    Raises:
        TypeError: If `value` is not a whole number.
        ValueError: If it is less than `least`, or more than `most`.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"Expected `{name}` to be an int, but got {reprlib.repr(value)}.")
    number = int(value)
    if number < least:
        raise ValueError(f"Expected `{name}` to be at least {least}, but got {reprlib.repr(number)}.")
    if most is not None and number > most:
        raise ValueError(f"Expected `{name}` to be at most {most}, but got {reprlib.repr(number)}.")
    return number


def check_layer(layer: object) -> None:
    """Raises TypeError if `layer` is not a module that takes hooks."""
    if isinstance(layer, torch.jit.ScriptModule):
        raise TypeError(
            "Expected `layer` to be a module that takes hooks, but got a TorchScript module, which takes none. Let the "
            "model return the activation too, and pass it to an `ActivationTap`, which is the layer."
        )
    if not isinstance(layer, torch.nn.Module):
        raise TypeError(
            f"Expected `layer` to be a module of the model, its name, or 'auto', but got {reprlib.repr(layer)}."
        )


def without_constructor_options(
    method: Callable[Concatenate[_Self, _Parameters], _Result],
) -> Callable[Concatenate[_Self, _Parameters], _Result]:
    """Decorates a method to raise a helpful error if a constructor option is passed to it.

    Raises:
        TypeError: If an argument is a parameter of the constructor, not of the method.
    """

    @functools.wraps(method)
    def checked(self: _Self, /, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        check_no_constructor_options(self, method, kwargs)
        return method(self, *args, **kwargs)

    return checked


def check_no_constructor_options(owner: object, method: Callable[..., Any], options: Mapping[str, object]) -> None:
    """Raises TypeError if an option is a parameter of the constructor of `owner`, not of its `method`."""
    for name in options:
        if name not in signature(method).parameters and name in signature(type(owner)).parameters:
            class_name = type(owner).__name__
            raise TypeError(
                f"`{name}` is an option of {class_name}, not of {class_name}.{method.__name__}: "
                f"pass it to the constructor, as in {class_name}(..., {name}={reprlib.repr(options[name])})."
            )


def closest_names(name: str, names: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Returns at most five names similar to a misspelled one, ignoring case, the most similar first.

    Args:
        name (str): The misspelled name.
        names (iterable of str): The known names.
        cutoff (float): The least similarity, as in `difflib.get_close_matches`. Default: 0.6.
    """
    known = {known.casefold(): known for known in names}
    return [known[folded] for folded in difflib.get_close_matches(name.casefold(), known, n=5, cutoff=cutoff)]


def closest_matches(name: str, names: Iterable[str]) -> str:
    """Returns a sentence for the end of an error message that lists `closest_names`, or "" if there are none."""
    closest = closest_names(name, names)
    return f" Closest matches: {', '.join(closest)}." if closest else ""


def check_callable(name: str, value: object) -> None:
    """Raises TypeError if an argument can't be called."""
    if not callable(value):
        raise TypeError(f"Expected `{name}` to be callable, but got {reprlib.repr(value)}.")


def check_flags(**flags: object) -> None:
    """Raises TypeError if an argument is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"Expected `{name}` to be True or False, but got {reprlib.repr(value)}.")


def check_device_ids(device_ids: object) -> None:
    """Raises TypeError if `device_ids` is neither None nor a list or tuple of ints."""
    if device_ids is None:
        return
    if not isinstance(device_ids, (list, tuple)) or not all(isinstance(index, int) for index in device_ids):
        raise TypeError(f"Expected `device_ids` to be a list of ints or None, but got {reprlib.repr(device_ids)}.")


def check_optional(name: str, value: object, kind: type, description: str) -> None:
    """Raises TypeError if an argument is neither None nor of its type, which `description` names in the message."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"Expected `{name}` to be {description} or None, but got {reprlib.repr(value)}.")


def check_generator(generator: object) -> None:
    """Raises TypeError if `generator` is neither a generator nor None."""
    check_optional("generator", generator, torch.Generator, "a torch.Generator")


def type_of(value: object) -> str:
    """Returns the name of a value's type, for a message, and how to convert it if it is a NumPy array."""
    kind = type(value).__name__
    return f"{kind}; use torch.from_numpy" if kind == "ndarray" else kind


def check_dense(name: str, value: torch.Tensor) -> None:
    """Raises TypeError if a tensor is sparse or nested, or has no values, on the meta device."""
    kind = "a nested" if value.is_nested else "a meta" if value.is_meta else "a sparse"
    if value.is_nested or value.is_meta or value.layout != torch.strided:
        raise TypeError(f"Expected `{name}` to be a dense tensor with values, but got {kind} tensor.")


def check_finite(name: str, values: torch.Tensor) -> None:
    """Raises ValueError if a tensor N×… is NaN or infinite for an example."""
    per_example = values.flatten(1) if values.dim() > 1 else values.reshape(-1, 1)
    finite = per_example.isfinite().all(1)
    if not finite.all():
        raise ValueError(
            f"Expected `{name}` to be finite, but got NaN or Inf for {int((~finite).sum())} of {len(finite)} examples, "
            f"the first for example {int((~finite).nonzero()[0])}."
        )


def add_note(error: BaseException, note: str) -> None:
    """Adds a note to an error, from Python 3.11 on."""
    if hasattr(error, "add_note"):
        error.add_note(note)
