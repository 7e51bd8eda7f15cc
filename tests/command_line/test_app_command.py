"""The command ``app``: what it serves, to whom, and how it ends."""

from __future__ import annotations

import runpy
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from captum_scorecam import app as package
from captum_scorecam.command_line import app_command
from tests.support.command_line import COLOURS, invoke

ROOT = Path(__file__).parents[2]


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


def test_behind_a_proxy_on_this_machine_only_offered_models_can_be_named(servings: list[tuple[Any, ...]]) -> None:
    invoke("app", "--offered-only")
    assert not servings[0][0].any_name


def test_an_own_model_comes_first_with_its_arguments(servings: list[tuple[Any, ...]]) -> None:
    invoke("app", *COLOURS, "--score", "sigmoid", "--host", "0.0.0.0", "--port", "8000", "--device", "cpu")
    ((models, host, port),) = servings
    assert (host, port, models.any_name) == ("0.0.0.0", 8000, False)
    assert next(iter(models.offered.items())) == (COLOURS[1], {"score": "sigmoid"})
    assert models.get(COLOURS[1]).classifier.score == "sigmoid"
    assert models.get(COLOURS[1]).classifier.class_names == ["red", "green", "blue"]


def test_an_address_that_is_taken_or_elsewhere_is_named_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app_command, "load_on_device", lambda *_, **__: pytest.fail("loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke("app", "--port", str(port))
    expected = f"Expected `--host` and `--port` to be free, but 127.0.0.1:{port} can't be listened to: "
    assert (result.exit_code, result.stderr[: len(expected) + 7]) == (2, f"Error: {expected}")
    result = invoke("app", "--host", "192.0.2.1")
    expected = "Error: Expected `--host` to be an address of this machine, but 192.0.2.1 can't be listened to: "
    assert (result.exit_code, result.stderr[: len(expected)]) == (2, expected)


def test_the_folder_for_a_hosted_space_lets_everybody_in(
    servings: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "hosted_app" / "app.py"), run_name="__main__")
    ((models, host, port),) = servings
    assert (exit_.value.code, host, port, models.any_name) == (130, "0.0.0.0", 7860, False)
    assert "captum-scorecam[app,onnx]" in (ROOT / "hosted_app" / "requirements.txt").read_text(encoding="utf-8").split()


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "captum_scorecam.app")
    result = invoke("app")
    expected = 'Error: The app needs gradio: pip install "captum-scorecam[app]".\n'
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", expected)


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
