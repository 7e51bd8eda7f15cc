"""Digests of source code: what they cover, and runs that are not resumed with edited code."""

from __future__ import annotations

import functools
import importlib
import math
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from captum_scorecam.evaluation import METHODS, Method, Provenance, register_method
from captum_scorecam.evaluation.sources import UNKNOWN, digests_of_sources
from captum_scorecam.models import Classifier, load_classifier
from tests.support.command_line import invoke
from tests.support.tiny_classifier import Pictures
from tests.support.tiny_evaluation import QUICK, contents, evaluate

FILES = {
    "plug.py": "import os, torch\nimport beside\nfrom package_of_test import inner\n",
    "beside.py": "def later():\n    import late\n",
    "late.py": "x = 1\n",
    "unused.py": "x = 1\n",
    "package_of_test/__init__.py": "",
    "package_of_test/inner.py": "from . import sibling\nfrom .deep.leaf import x\n",
    "package_of_test/sibling.py": "x = 1\n",
    "package_of_test/unused.py": "x = 1\n",
    "package_of_test/deep/__init__.py": "",
    "package_of_test/deep/leaf.py": "from ..sibling import x\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    importlib.import_module("plug")
    yield tmp_path
    for name in {*sys.modules} - before:
        if name.split(".")[0] in ("plug", "beside", "late", "package_of_test"):
            del sys.modules[name]


def digest(*modules: str) -> dict[str, str]:
    return digests_of_sources(modules, [])


@pytest.mark.parametrize("name", FILES)
def test_a_digest_covers_the_module_and_what_it_imports_from_beside_it(name: str, project: Path) -> None:
    before = digest("plug")
    assert digest("plug") == before
    assert before.keys() == {"plug"}
    path = project / name
    path.write_text(path.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    assert (digest("plug") == before) == ("unused" in name)


def test_a_module_of_a_package_covers_what_its_package_runs_before_it(project: Path) -> None:
    importlib.import_module("package_of_test.deep.leaf")
    before = digest("package_of_test.deep.leaf")
    (project / "package_of_test" / "sibling.py").write_text("x = 2\n")
    assert digest("package_of_test.deep.leaf") != before


def test_an_installed_module_covers_its_own_package_only(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = project / "site-packages"
    installed.mkdir()
    for name in ("plug.py", "beside.py"):
        (project / name).rename(installed / name)
    monkeypatch.setattr(sys.modules["plug"], "__file__", str(installed / "plug.py"))
    before = digest("plug")
    (installed / "beside.py").write_text("")
    assert digest("plug") == before
    (installed / "plug.py").write_text("")
    assert digest("plug") != before


def test_the_standard_library_and_this_package_are_left_out() -> None:
    functions: list[Callable[..., Any]] = [
        math.sqrt,
        functools.partial(METHODS["rise"].explain),
        METHODS["rise"].explain,
    ]
    assert digests_of_sources(["json", "captum_scorecam.evaluation"], functions) == {}


def test_a_module_without_a_file_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_up", types.ModuleType("made_up"))
    assert digest("made_up", "never_imported") == {"made_up": UNKNOWN, "never_imported": UNKNOWN}


def of_script(request: Any) -> Any:
    return METHODS["grad_cam"].explain(request)


def test_of_a_script_the_function_counts_and_not_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_script, "__module__", "__main__")
    (before,) = digests_of_sources([], [functools.partial(of_script)]).values()
    assert digests_of_sources([], [of_script]) == {"__main__.of_script": before}
    assert len(before) == 16
    made = eval("lambda request: None", {"__name__": "__main__"})
    assert digests_of_sources([], [made]) == {"__main__.<lambda>": UNKNOWN}


def test_each_of_several_lambdas_of_a_script_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    first = lambda request: METHODS["grad_cam"].explain(request)  # noqa: E731
    second = lambda request: METHODS["rise"].explain(request)  # noqa: E731
    for each in (first, second):
        monkeypatch.setattr(each, "__module__", "__main__")
        monkeypatch.setattr(each, "__qualname__", "<lambda>")
    found = [digests_of_sources([], given)["__main__.<lambda>"] for given in ([first], [second], [first, second])]
    assert len({*found}) == 3


def test_a_partial_that_is_wrapped_counts_as_its_function() -> None:
    wrapper: Any = types.SimpleNamespace(__wrapped__=functools.partial(invoke, "evaluate"))
    assert digests_of_sources([], [wrapper]).keys() == {"tests.support.command_line"}


PLUGIN = """
from captum_scorecam.evaluation import METHODS
FACTOR = 1
def explain(request):
    maps, run = METHODS["grad_cam"].explain(request)
    return FACTOR * maps, run
"""
FACTORY = """
from tests.support import tiny_classifier
def build():
    return tiny_classifier.TinyClassifier(), PREPROCESS(tiny_classifier.preprocess), tiny_classifier.NAMES
def PREPROCESS(function):
    return function
"""


@pytest.mark.parametrize(
    ("edited", "new"),
    [
        ("plugin_of_test", PLUGIN.replace("FACTOR = 1", "FACTOR = -1")),  # the method of a run
        ("factory_of_test", FACTORY.replace("return function", "return lambda image: 1 - function(image)")),
        ("other_of_test", "x = 2"),  # a plugin that registers nothing
    ],
)
def test_a_run_is_not_resumed_with_edited_code(
    edited: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = {"plugin_of_test": PLUGIN, "factory_of_test": FACTORY, "other_of_test": "x = 1"}

    def run(**arguments: Any) -> None:
        for name in names:
            sys.modules.pop(name, None)
        METHODS.pop("own", None)
        importlib.import_module("other_of_test")
        register_method("own", Method(importlib.import_module("plugin_of_test").explain))
        classifier = load_classifier("factory_of_test:build")
        evaluate(classifier, Pictures(2), tmp_path / "run", **(QUICK | {"methods": ["own"]} | arguments))

    for name, text in names.items():
        (tmp_path / f"{name}.py").write_text(text)
    plugins = Provenance(plugins=["other_of_test"])
    run(provenance=plugins)
    run(provenance=plugins)
    run(provenance=Provenance(plugins=["other_of_test"], command="another command"))
    before = contents(tmp_path / "run", without=())
    (tmp_path / f"{edited}.py").write_text(new)
    message = rf'different settings: (`inputs`: .*; )?source of {edited}: "\w{{16}}" -> "\w{{16}}"\. Choose another'
    with pytest.raises(ValueError, match=message):
        run(provenance=plugins)
    assert contents(tmp_path / "run", without=()) == before
    (tmp_path / f"{edited}.py").write_text(names[edited])
    run(provenance=plugins)
    with pytest.raises(ValueError, match=r'settings: source of other_of_test: "\w{16}" -> null\. Choose'):
        run()
    for name in names:
        sys.modules.pop(name, None)


def test_methods_and_metrics_of_the_package_need_no_source(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    configuration = (tmp_path / "configuration.json").read_text(encoding="utf-8")
    assert '"sources": {\n      "tests.support.tiny_classifier"' in configuration
