"""The modules that a user's function holds."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ProxyTypes

from torch import Tensor
from torch.nn import Module

_MOST_LISTED = 1000  # of the elements of a list
_MOST_LEVELS = 2  # of containers and objects in an attribute
_OF_EACH_MODULE = frozenset(vars(Module()))  # parameters, buffers, hooks, children and flags


def held_modules(forward_func: Callable[..., Any]) -> list[Module]:
    """Returns the modules that a function is, is a method of, or calls the ``forward`` of, which no hook sees.

    Those in them and in their attributes count, too, submodules or not. Others are seen when a function runs them.
    """
    function, given = forward_func, ()
    if isinstance(forward_func, functools.partial):
        function, given = forward_func.func, (*forward_func.args, *forward_func.keywords.values())
    owner = getattr(function, "__self__", None)
    roots: list[Any] = [each for each in (function, owner) if _is_module(each) or type(each) in (list, tuple)]
    for code in _code_of(function):
        if "forward" in code.__code__.co_names:
            roots += [*_variables(code), *given, *_named_attributes(owner, code)]
    waiting = [module for root in roots for module in _inside(root)]
    found: dict[Module, None] = {}
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = None
            attributes = list(vars(module).items())  # other threads may add some
            own = (value for name, value in attributes if name not in _OF_EACH_MODULE)
            waiting += [*module.children(), *(each for value in own for each in _inside(value))]
    return list(found)


def _inside(value: Any, levels: int = _MOST_LEVELS) -> Iterator[Module]:
    """The modules that a value is or has in it, some levels deep."""
    if _is_module(value):
        yield value
    elif levels > 0:
        for part in _parts(value):
            yield from _inside(part, levels - 1)


def _parts(value: Any) -> Iterable[Any]:
    kind = type(value)
    if issubclass(kind, (list, tuple, deque)):
        return [*itertools.islice(value, _MOST_LISTED), *_attributes(value)]
    if issubclass(kind, dict):
        return [*itertools.islice(dict.values(value), _MOST_LISTED), *_attributes(value)]
    if kind is functools.partial:
        return (value.func, *value.args, *value.keywords.values())
    if kind is MethodType:
        return (value.__self__,)
    if issubclass(kind, (type, ModuleType, Tensor, *ProxyTypes)):
        return ()
    return _attributes(value)


def _attributes(value: Any) -> list[Any]:
    try:
        return list(vars(value).values())
    except Exception:  # it has none, or is an object of the user's, which may raise anything
        return []


def _code_of(function: Any) -> list[FunctionType]:
    """The functions that a function or method is and, inside decorators, wraps."""
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        return []
    wrapping: list[Any] = []
    wrapped = inspect.unwrap(function, stop=lambda each: wrapping.append(each))  # which appends, and never stops
    code = [getattr(each, "__func__", each) for each in (*wrapping, wrapped)]
    return [each for each in code if inspect.isfunction(each)]


def _named_attributes(owner: Any, code: FunctionType) -> list[Any]:
    """The attributes of a method's object that its code names."""
    try:
        return [value for name, value in list(vars(owner).items()) if name in code.__code__.co_names]
    except Exception:  # it has none, or is an object of the user's, which may raise anything
        return []


def _is_module(value: object) -> bool:
    return issubclass(type(value), Module)  # `isinstance` would ask a weak proxy for what it refers to


def _variables(function: FunctionType) -> Iterator[Any]:
    """The values of the variables of a function that are not its own."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # of a variable without a value yet
            yield cell.cell_contents
    names = set(function.__code__.co_names)
    yield from [function.__globals__[name] for name in names if name in function.__globals__]
