"""The command ``app``: what it serves, to whom, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from captum_scorecam import app as package
from tests.support.command_line import COLOURS, invoke


@pytest.fixture
def servings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The models, hosts and ports that would be served; each is stopped at once by Ctrl-C."""
    found: list[tuple[Any, ...]] = []

    @contextmanager
    def served(*arguments: Any) -> Iterator[str]:
        found.append(arguments)
        yield "http://127.0.0.1:7860/"

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "served", served)
    monkeypatch.setattr("captum_scorecam.command_line.app_command.time.sleep", stop)
    return found


def test_by_default_this_machine_is_served_with_the_demo_models(servings: list[tuple[Any, ...]]) -> None:
    result = invoke("app")
    ((models, host, port),) = servings
    assert result.stdout == (
        "Loading efficientnet_lite0 …\nThe page is open at http://127.0.0.1:7860/ (Ctrl-C closes it)\n"
    )
    assert (result.exit_code, result.stderr) == (130, "Interrupted. The page is closed; no picture is kept.\n")
    assert (host, port, models.any_name) == ("127.0.0.1", None, True)
    assert list(models.offered) == ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]


def test_an_own_model_comes_first_with_its_arguments(servings: list[tuple[Any, ...]]) -> None:
    invoke("app", *COLOURS, "--score", "sigmoid", "--host", "0.0.0.0", "--port", "8000", "--device", "cpu")
    ((models, host, port),) = servings
    assert (host, port, models.any_name) == ("0.0.0.0", 8000, False)
    assert next(iter(models.offered.items())) == (COLOURS[1], {"score": "sigmoid"})
    assert models.get(COLOURS[1]).classifier.score == "sigmoid"
    assert models.get(COLOURS[1]).classifier.class_names == ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet81"], "Expected `--model` to be a torchvision classifier"),
        (["--port", "0"], "Expected `--port` in 1..65535, but got 0."),
    ],
)
def test_bad_options_are_one_line(servings: list[tuple[Any, ...]], arguments: list[str], message: str) -> None:
    result = invoke("app", *arguments)
    assert (result.exit_code, result.stdout, servings) == (2, "", [])
    assert message in result.stderr
