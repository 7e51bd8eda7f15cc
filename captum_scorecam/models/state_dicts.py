"""Finds the model's weights in what a file contains, and loads them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from captum_scorecam._messages import warn_caller
from captum_scorecam.models.weight_files import SAVE_STATE_DICT, StandIn, read_weight_file

StateDict = dict[str, Any]  # tensors, apart from extra state and packed parameters of quantised layers
CHECKPOINT_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "state_dict_ema",
    "model_ema",
    "ema",
)
USUAL_PREFIXES = {"model", "net", "module", "_orig_mod"}
_NOT_TENSORS = ("_extra_state", "_packed_params")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")  # torchvision's heads, for training
_OF_AVERAGED_MODEL = "n_averaged"  # a counter of torch.optim.swa_utils.AveragedModel


def read_state_dict(path: Path) -> StateDict:
    """Reads a state dict without running code from the file.

    Of a checkpoint, the state dict under the first of `CHECKPOINT_KEYS` is taken, at any depth, with a warning if there
    are others. Objects in the checkpoint that are not tensors are ignored.

    Args:
        path (Path): A file written by ``torch.save`` or safetensors.

    Returns:
        dict[str, Tensor]: The state dict, on the CPU, with the names that it has in the file.

    Raises:
        ValueError: If the file does not exist or does not contain a state dict.
    """
    saved, place = read_weight_file(path), f"{str(path)!r} contains"
    while keys := _checkpoint_keys(saved):
        good = [key for key in keys if _has_state_dict(saved[key])]
        if len(good) > 1:
            others = ", ".join(map(repr, good[1:]))
            warn_caller(f"{str(path)!r} contains several state dicts: {good[0]!r} is used, and {others} ignored.")
        key = (good or keys)[0]
        saved, place = saved[key], f"{str(path)!r} contains, under {key!r},"
    problem = _problem(saved)
    if problem is not None:
        raise ValueError(f"Expected `weights` to contain a state dict of tensors, but {place} {problem}.")
    return dict(saved)


def _checkpoint_keys(saved: object) -> list[str]:
    values = saved if isinstance(saved, dict) else {}
    return [key for key in CHECKPOINT_KEYS if isinstance(values.get(key), dict | StandIn)]


def _has_state_dict(saved: Any) -> bool:
    return _problem(saved) is None or any(_has_state_dict(saved[key]) for key in _checkpoint_keys(saved))


def _problem(saved: object) -> str | None:
    """Returns what was saved instead of a state dict, or None if it is one."""
    if isinstance(saved, StandIn) and not saved.is_numpy:
        kind = "model" if saved.is_model else "object"
        return f"a pickled {kind} ({_class_of(saved)}), not a state dict. {SAVE_STATE_DICT.rstrip('.')}"
    if not isinstance(saved, dict):
        return _described(saved)
    if not saved:
        return "an empty dict"
    if _is_of_optimizer(saved):
        return "the state of an optimizer"
    others = [name for name, value in saved.items() if not _is_entry(name, value)]
    if others:
        inside = _places_of_state_dicts(saved)
        if inside:
            return f"a dict with a state dict under {' and '.join(inside)}. Save only the one of the model"
        return f"a dict whose entry {others[0]!r} is {_described(saved[others[0]])}"
    nested = [name for name, value in saved.items() if isinstance(value, Tensor) and value.is_nested]
    if nested:
        return f"nested tensors, such as {nested[0]!r}"
    meta = [name for name, value in saved.items() if isinstance(value, Tensor) and value.is_meta]
    return f"tensors without values, such as {meta[0]!r}, which is on the device meta" if meta else None


def _places_of_state_dicts(saved: dict[Any, Any], outside: str = "") -> list[str]:
    """Returns the keys of state dicts in a dict, at any depth: ``'b' in 'a'`` for ``saved["a"]["b"]``."""
    places = []
    for key, value in saved.items():
        place = f"{key!r}{outside}"
        if isinstance(value, dict) and value and not _is_of_optimizer(value):
            is_state_dict = all(_is_entry(*entry) for entry in value.items())
            places += [place] if is_state_dict else _places_of_state_dicts(value, f" in {place}")
    return places


def _is_of_optimizer(saved: dict[Any, Any]) -> bool:
    return {"state", "param_groups"} <= saved.keys()


def _is_entry(name: object, value: object) -> bool:
    return isinstance(name, str) and (isinstance(value, Tensor) or any(part in name for part in _NOT_TENSORS))


def _described(value: object) -> str:
    if isinstance(value, StandIn) and value.is_numpy:
        return "a NumPy array or number"
    return f"an object of class {_class_of(value)}"


def _class_of(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def build_with_weights(
    build: Callable[..., nn.Module], state: StateDict, model_name: str, head: str | None = None
) -> nn.Module:
    """Builds a classifier with the weights and the number of classes of a state dict.

    Args:
        build (callable): Builds the model, with the number of classes as the keyword `num_classes`.
        state (dict): The state dict.
        model_name (str): The model's name, for errors.
        head (str, optional): The name of a tensor with one row per class. Default: None, the model's last tensor.

    Returns:
        nn.Module: The model.

    Raises:
        ValueError: If the tensors don't match the model's.
    """
    model = build()
    head = head or list(model.state_dict())[-1]
    auxiliary = tuple(f".{each}{head}" for each in _AUXILIARY)
    heads = [
        value
        for name, value in state.items()
        if f".{name}".endswith(f".{head}") and not f".{name}".endswith(auxiliary) and isinstance(value, Tensor)
    ]
    classes = {len(value) for value in heads if value.dim() > 0}
    if len(classes) == 1 and classes != {class_count(model, head)}:
        model = build(num_classes=classes.pop())
    load_state_dict(model, state, model_name)
    return model


def class_count(model: nn.Module, head: str | None = None) -> int:
    """Returns a classifier's number of classes: the rows of `head`, by default its last tensor; 0 without that."""
    own = model.state_dict()
    rows = own.get(head or list(own)[-1])
    return 0 if rows is None else len(rows)


def load_state_dict(model: nn.Module, state: StateDict, model_name: str) -> None:
    """Loads a state dict into a model.

    The names in the file may have a prefix, as wrappers such as DataParallel, ``torch.compile`` and Lightning add it:
    any prefix under which the file has all tensors of the model and no others. Tensors without the prefix are ignored
    with a warning. Either side may lack torchvision's auxiliary heads, which only matter in training.

    Raises:
        ValueError: If a tensor is missing, unexpected, or of a different shape, or several prefixes fit; or if one is
            quantised, sparse, complex or a parameter in whole numbers, unlike the model's, or contains NaN.
    """
    own = model.state_dict()
    versions, wrapper = getattr(own, "_metadata", {}), _common_prefix(own)
    own = {name.removeprefix(wrapper): value for name, value in own.items()}
    prefix = _prefix(own, state, model_name)
    outside = [name for name in state if not name.startswith(prefix) and name != _OF_AVERAGED_MODEL]
    if outside:
        warn_caller(
            f"Only the tensors under {prefix!r} in the file of weights are used, without {listed_names(outside)}."
        )
    fitting = {name: value for name, value in _inside(state, prefix).items() if name in own and _fits(own[name], value)}
    parameters = {name.removeprefix(wrapper) for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, value in fitting.items():
        problem = _problem_of_values(own[name], value, name in parameters) if isinstance(value, Tensor) else None
        if problem:
            raise ValueError(f"Expected `weights` to match {model_name}, but {prefix + name!r} {problem}.")
    full = OrderedDict((wrapper + name, value) for name, value in fitting.items())
    full._metadata = versions  # type: ignore[attr-defined]  # which some modules ask for
    model.load_state_dict(full, strict=False)


def _problem_of_values(own: Tensor, value: Tensor, is_parameter: bool) -> str | None:
    """Returns why a tensor can't take the place of the model's own, or None if it can."""
    own = torch.empty(0) if is_lazy(own) else own  # which has no layout or dtype yet
    if value.is_quantized and not own.is_quantized:
        return f"is quantised ({value.dtype})"
    if value.layout != own.layout:
        return f"has the layout {value.layout}, not {own.layout}"
    if value.is_complex() and not own.is_complex():
        return f"is complex ({value.dtype})"
    if is_parameter and own.is_floating_point() and not value.is_floating_point():
        return f"has the dtype {value.dtype}, which holds no fractions; the model's is {own.dtype}"
    wrong = int(value.float().isnan().sum()) if value.is_floating_point() else 0
    return f"contains NaN ({wrong} of {value.numel()} values)" if wrong else None


def _common_prefix(names: Iterable[str]) -> str:
    """Returns the prefix of usual wrappers that all names have."""
    first, *_ = [*names, ""]
    prefix = ""
    for part in first.split("."):
        longer = f"{prefix}{part}."
        if part not in USUAL_PREFIXES or not all(name.startswith(longer) for name in names):
            return prefix
        prefix = longer
    return prefix


def _inside(state: StateDict, prefix: str) -> StateDict:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _prefix(own: StateDict, state: StateDict, model_name: str) -> str:
    """Returns the prefix that the model's tensors have in the file."""
    wrong = {prefix: _mismatches(own, _inside(state, prefix)) for prefix in _prefixes(own, state)}
    fitting = [prefix for prefix, names in wrong.items() if not names]
    usual = [prefix for prefix in fitting if set(prefix.split(".")[:-1]) <= USUAL_PREFIXES]
    if len(fitting) == 1 or len(usual) == 1:
        return (usual or fitting)[0]
    if fitting:
        listed = ", ".join(map(repr, fitting))
        raise ValueError(
            f"Expected `weights` to contain {model_name} once, but it is there with the prefixes {listed}."
        )
    names = min(wrong.values(), key=len)
    raise ValueError(
        f"Expected `weights` to match {model_name}, but tensors are missing, unexpected or of a different shape: "
        f"{listed_names(names)}."
    )


def _prefixes(own: StateDict, state: StateDict) -> list[str]:
    """Returns the prefixes of names in the file whose rest is the name of one of the model's tensors, and no prefix."""
    if own.keys() <= state.keys():
        return [""]
    found = {""}
    for name in state:
        parts = name.split(".")
        found |= {".".join([*parts[:i], ""]) for i in range(1, len(parts)) if ".".join(parts[i:]) in own}
    return sorted(found)


def _mismatches(own: StateDict, inside: StateDict) -> list[str]:
    """Returns the names of tensors that are missing, unexpected, or of a different shape."""
    wrong = {name for name in own.keys() & inside.keys() if not _fits(own[name], inside[name])}
    return sorted(name for name in wrong | (own.keys() ^ inside.keys()) if not _may_differ(name))


def _may_differ(name: str) -> bool:
    return name.startswith(_AUXILIARY) or name.endswith("num_batches_tracked")  # not used in evaluation mode


def _fits(own: object, value: object) -> bool:
    is_open = isinstance(own, Tensor) and is_lazy(own)
    return is_open or getattr(own, "shape", None) == getattr(value, "shape", None)


def listed_names(names: list[str]) -> str:
    """Returns the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
