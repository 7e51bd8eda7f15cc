"""An attribution method of the evaluation, and one that was chosen with options under a name of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from captum_scorecam._messages import check_flags, closest_matches
from captum_scorecam.evaluation.options_text import text_of
from captum_scorecam.evaluation.request import MethodRun

Maps: TypeAlias = Tensor | tuple[Tensor, ...]
Options: TypeAlias = Mapping[str, Any]


class Method(NamedTuple):
    """An attribution method for the evaluation, the report and the command line.

    Attributes:
        explain (callable): Takes an `ExplanationRequest`, and the options as keywords, and returns the maps, 1×T×h×w or
            T×1×h×w with h×w at most the inputs' size, and a `MethodRun`.
        of_layer (bool): Whether the method explains a layer. Default: True.
        title (str, optional): Name in tables and figures. Default: None, the registered name.
        check_options (callable, optional): Takes the options, a dict, and raises TypeError or ValueError if one is
            unknown or wrong. Default: None, the method takes none.
        in_chunks (bool): Whether the method runs so many masked inputs that their number per forward pass is worth
            tuning. Default: True.
    """

    explain: Callable[..., tuple[Maps, MethodRun]]
    of_layer: bool = True
    title: str | None = None
    check_options: Callable[[Options], object] | None = None
    in_chunks: bool = True


@dataclass(frozen=True)
class ChosenMethod:
    """A method with options.

    Attributes:
        name (str): Its name in records, files and tables.
        base (str): A name in `METHODS`, or ``captum:`` and the name of a class of ``captum.attr``.
        method (Method): The method.
        options (mapping of str): Its options. Default: none.
    """

    name: str
    base: str
    method: Method
    options: Options = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The base and the options, as on the command line."""
        return text_of(self.base, dict(self.options))

    def explain(self, request: Any) -> tuple[Maps, MethodRun]:
        """Runs the method with its options."""
        return self.method.explain(request, **self.options)


def check_names_of_options(options: Iterable[str], known: Iterable[str], owner: str = "") -> None:
    """Checks the names of options of a method, or of the `owner` that the message then names.

    Raises:
        ValueError: If one is unknown. The message has near misses.
    """
    names = sorted(known)
    for name in options:
        if name not in names:
            listed = f"one of {', '.join(names)}" if names else "absent, since the method takes none"
            of = f" of {owner}" if owner else ""
            raise ValueError(f"Expected the option{of} to be {listed}, but got {name!r}.{closest_matches(name, names)}")


def check_flags_of(parameters: Mapping[str, inspect.Parameter], options: Options) -> None:
    """Checks the options that are True or False by default in another library's function.

    Raises:
        TypeError: If one is neither True, False, 1 nor 0.
    """
    flags = {name for name, parameter in parameters.items() if isinstance(parameter.default, bool)}
    check_flags(**{name: value for name, value in options.items() if name in flags and value not in (0, 1)})
