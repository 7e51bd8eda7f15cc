"""Digests of the user's source code: plugins, registered methods and metrics, and factories of models."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
_OWN_PACKAGE = __name__.partition(".")[0]
_SCRIPT = "__main__"


def digests_of_sources(modules: Iterable[str], functions: Iterable[Callable[..., Any]]) -> dict[str, str]:
    """Returns digests of the user's source code, to detect that it was edited.

    The digest of a module covers its file and the files that it imports, directly or not, from the folder that contains
    its top-level package or module; of an installed module, only those from the same package. Of a script or notebook,
    it covers the given function only, since other parts of it may change.

    Args:
        modules (iterable of str): Names of imported modules.
        functions (iterable of callable): Functions whose modules count too. Those of this package and of Captum, whose
            versions are recorded, are left out.

    Returns:
        dict: 16 hex digits of a SHA-256 by module, or by function of a script; `UNKNOWN` without source code.
    """
    of_script: dict[str, list[Callable[..., Any]]] = {}
    names = {*modules}
    for function in map(_unwrapped, functions):
        if function.__module__ == _SCRIPT:
            name = f"{_SCRIPT}.{getattr(function, '__qualname__', type(function).__qualname__)}"
            of_script.setdefault(name, []).append(function)  # all lambdas have the same name
        else:
            names.add(function.__module__)
    left_out = {_OWN_PACKAGE, "captum", *sys.stdlib_module_names}
    digests = {name: _digest_of_module(name) for name in sorted(names) if _top(name) not in left_out}
    return digests | {name: _digest_of_functions(found) for name, found in sorted(of_script.items())}


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    inner = function.func if isinstance(function, partial) else inspect.unwrap(function)
    return function if inner is function else _unwrapped(inner)


def _digest_of_functions(functions: Iterable[Callable[..., Any]]) -> str:
    try:
        sources = [inspect.getsource(each if hasattr(each, "__qualname__") else type(each)) for each in functions]
    except (OSError, TypeError):
        return UNKNOWN
    return _digest({"": "".join(dict.fromkeys(sources)).encode()})


def _digest_of_module(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_file():
        return UNKNOWN
    sources: dict[str, bytes] = {}
    _read(Path(file), module, sources)
    return _digest(sources)


def _digest(sources: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, source in sorted(sources.items()):
        digest.update(f"{name} {len(source)}\n".encode() + source)
    return digest.hexdigest()[:16]


def _read(path: Path, module: str, sources: dict[str, bytes]) -> None:
    """Adds the source of a module, and of the modules beside it that it imports, by name."""
    sources[module] = path.read_bytes()
    is_package = path.name == "__init__.py"
    root = path.parents[module.count(".") + is_package]
    installed = {"site-packages", "dist-packages"} & {*root.parts}
    for name in _imported(sources[module], module if is_package else module.rpartition(".")[0]):
        other = _top(name) == _OWN_PACKAGE or (installed and _top(name) != _top(module))
        found = None if other or name in sources else _file(root, name)
        if found is not None:
            _read(found, name, sources)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _file(root: Path, module: str) -> Path | None:
    path = root.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imported(source: bytes, package: str) -> Iterator[str]:
    """Yields the absolute names of what a module may import, with their parent packages."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a compiled module
        return
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            names = [".".join([*parents, *(node.module or "").split("."), alias.name]) for alias in node.names]
        for name in names:
            parts = [part for part in name.split(".") if part]
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
