"""The user's warning filters apply to the package's warnings and stay unchanged."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Literal

import pytest
from torch import Tensor

from captum_scorecam import ScoreCAM
from tests.support.attributions import OURS, Method, each
from tests.support.small_net import Net, images, nothing_changes, texts_of


@each(OURS)
def test_warning_made_an_error_changes_nothing(method: Method) -> None:
    net, x = Net().train(), images()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with nothing_changes(net, x), pytest.raises(UserWarning, match="training mode"):
            method.explain(net, net.relu, x, 2)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_warning_made_an_error_hides_no_error_of_the_model(failure: type[BaseException]) -> None:
    def fail(x: Tensor) -> Tensor:
        net(x)
        raise failure("stopped")

    net, x = Net().train(), images()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with nothing_changes(net, x), pytest.raises(failure, match="stopped"):
            ScoreCAM(fail, net.relu).attribute(x, 2)


def shown(action: Literal["default", "once", "always", "ignore", "module"], call: Callable[[], object]) -> int:
    """Returns how often a warning is shown when `call` runs three times under a filter."""
    globals().pop("__warningregistry__", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        for _ in range(3):
            call()
    return len(texts_of(caught))


@each(OURS)
def test_filters_of_the_user_count_as_usual(method: Method) -> None:
    net, x = Net(dropout=0.5).train(), images()
    attribution = method.made(net, net.relu)

    def call() -> None:
        getattr(attribution, method.entry)(x, **method.arguments(2))

    assert shown("default", call) == 1
    assert shown("always", call) == 3
    assert shown("ignore", call) == 0


def test_warning_is_shown_once_under_once() -> None:
    net, x = Net(dropout=0.5).train(), images()
    net.norm.eval()
    warnings.onceregistry.clear()  # type: ignore[attr-defined]
    first, second = (partial(ScoreCAM(net, net.relu).attribute, x, target) for target in (2, 3))
    assert shown("once", lambda: (first(), second())) == 1


def test_filter_by_the_users_module_applies() -> None:
    net, x = Net().train(), images()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=re.escape(__name__))
        ScoreCAM(net, net.relu).attribute(x, 2)


FIRST_CALL = """
import warnings, torch
from captum_scorecam import ScoreCAM
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
before = list(warnings.filters)
ScoreCAM(model, model[0]).attribute(torch.rand(1, 3, 8, 8), target=0)
assert warnings.filters == before
"""


@pytest.mark.slow
def test_filters_stay_when_the_first_call_loads_the_compiler() -> None:
    finished = subprocess.run([sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


@each(OURS)
def test_filters_stay_and_the_models_own_warnings_are_shown(method: Method) -> None:
    class Outspoken(Net):
        def forward(self, x: Tensor) -> Tensor:
            warnings.warn("mine", FutureWarning, stacklevel=1)
            return super().forward(x)

    net, x = Outspoken(), images()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        method.explain(net, net.relu, x, 2)
        assert list(warnings.filters) == before
    assert set(texts_of(caught)) == {"mine"}
    assert len([each for each in caught if each.category is FutureWarning]) == net.forwards
