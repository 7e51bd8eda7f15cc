"""Dataclasses to JSON and back: types, ranges and keys are checked, and errors say where and what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_JSON_SCALARS: dict[Any, set[type]] = {int: {int}, float: {int, float}, str: {str}, bool: {bool}, NoneType: {NoneType}}
MAY_BE_MISSING = {"may_be_missing": True}  # metadata of a field that older files lack
_MOST_DIGITS = 20  # of integers up to 2^64
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Between:
    """The range of a number, or of a sequence's numbers, in an annotated type.

    Attributes:
        low (float): The smallest value.
        high (float): The largest value. Default: infinity.
        rounding (float): How far rounding may take a value out of the range. Default: 0.
    """

    low: float
    high: float = math.inf
    rounding: float = 0  # an int, as floats round large ints

    def __contains__(self, value: float) -> bool:
        return self.low - self.rounding <= value <= self.high + self.rounding

    def __str__(self) -> str:
        return f"at least {self.low:g}" if self.high == math.inf else f"in [{self.low:g}, {self.high:g}]"


def to_json(value: Any, indent: int | None = None) -> str:
    """Returns a dataclass as JSON with sorted keys, on one line unless `indent` is given.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    separators = (",", ":") if indent is None else None
    return json.dumps(value, default=members, sort_keys=True, allow_nan=False, indent=indent, separators=separators)


def members(value: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass by name; unlike `asdict`, without copying their values."""
    return {member.name: getattr(value, member.name) for member in fields(value)}


def from_json(kind: type[T], text: str | bytes, place: str) -> T:
    """Parses the JSON written by `to_json`.

    Args:
        kind (type): The dataclass.
        text (str or bytes): The JSON.
        place (str): Source of the JSON, for error messages.

    Raises:
        ValueError: If `text` is not JSON, a key is missing, unknown or repeated, or a value has the wrong type or is
            out of its range. The message names the place and the key.
    """
    try:
        parsed: T = _parsed(plain_json(text), kind, "it")
    except ValueError as error:
        raise ValueError(f"Expected a {kind.__name__.lower()} in {place}, but {error}.") from error
    return parsed


def plain_json(text: str | bytes) -> Any:
    """Parses JSON in UTF-8.

    Raises:
        ValueError: If the text is not JSON, has a key twice, or a number is not finite or has too many digits.
    """
    try:
        return json.loads(
            text.decode() if isinstance(text, bytes) else text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole_number,
            object_pairs_hook=_without_repeated_keys,
        )
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"it contains {constant}")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"it contains {text:.20}, which is too large")
    return value


def _whole_number(text: str) -> int:
    if len(text.lstrip("-")) > _MOST_DIGITS:
        raise ValueError(f"it contains a whole number of {len(text.lstrip('-'))} digits")
    return int(text)


def _without_repeated_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _parsed(value: Any, kind: Any, name: str) -> Any:
    """Checks a JSON value against an annotated type, and builds nested dataclasses."""
    options = _options(kind)
    if value is None and NoneType in options:
        return None
    kind, checks = _without_checks(next(option for option in options if option is not NoneType))
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(value, dict):
        return _dataclass(value, kind, name)
    if origin is Mapping and isinstance(value, dict):
        return {key: _parsed(item, arguments[1], f"{name}[{key!r}]") for key, item in value.items()}
    if origin in (Sequence, tuple) and isinstance(value, list) and {*map(type, value)} <= _scalars(arguments[0]):
        _check(value, _without_checks(arguments[0])[1], name)
        return tuple(value) if origin is tuple else value
    if type(value) in _scalars(kind) and (origin is not Literal or value in arguments):
        _check([value], checks, name)
        return value
    raise ValueError(f"{name} is {value!r:.80}")


def _check(values: Sequence[Any], ranges: Sequence[Between], name: str) -> None:
    for found in ranges:
        for value in values:
            if value not in found:
                raise ValueError(f"{name} is {value!r:.80}, not {found}")


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _without_checks(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Splits an annotated type into the type and its annotations."""
    return (get_args(kind)[0], get_args(kind)[1:]) if get_origin(kind) is Annotated else (kind, ())


def _scalars(kind: Any) -> set[type]:
    """Returns the Python types of the JSON scalars that match a type."""
    kind, _ = _without_checks(kind)
    kinds = (str,) if get_origin(kind) is Literal else _options(kind)
    return {scalar for option in kinds for scalar in _JSON_SCALARS.get(option, set())}


def _dataclass(value: Mapping[str, Any], kind: Any, name: str) -> Any:
    types = _types(kind)
    needed = {member.name for member in fields(kind) if member.metadata != MAY_BE_MISSING}
    for wrong, keys in (("lacks the", needed - value.keys()), ("has the unknown", value.keys() - types.keys())):
        if keys:
            raise ValueError(f"{name} {wrong} key {min(keys)!r}")
    return kind(**{key: _parsed(item, types[key], f"`{key}`") for key, item in value.items()})


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
