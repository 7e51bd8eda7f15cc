"""What a visitor reads of the library's errors and warnings."""

from __future__ import annotations

import warnings

import pytest

from captum_scorecam.app.messages import noted_warnings, text_of


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("Expected `name` to be a model,\n but got 'x'."), "Expected model to be a model, but got 'x'."),
        (
            OSError("Could not download the weights of resnet18 (no network). Set `weights` to a file with more."),
            "Could not download the weights of resnet18 (no network).",
        ),
        (
            OSError("Could not download it (<urlopen error [Errno -3] Temporary failure in name resolution>)."),
            "Could not download it (Temporary failure in name resolution).",
        ),
        (OSError("Could not download it (<urlopen error timed out>)."), "Could not download it (timed out)."),
        (
            ValueError("Expected `name` to be a thing, timm/NAME, hf/FOLDER or package.module:factory, but got 'x'."),
            "Expected model to be a thing, timm/NAME or hf/NAME, but got 'x'.",
        ),
        (
            TypeError("Wrap it in a module that returns the scores; package.module:factory loads that."),
            "Wrap it in a module that returns the scores.",
        ),
        (RuntimeError("shapes"), "RuntimeError: shapes"),
        (KeyError(), "KeyError: no message"),
    ],
)
def test_errors_are_one_line_in_plain_words(error: Exception, text: str) -> None:
    assert text_of(error) == text


def test_warnings_for_users_are_noted_once() -> None:
    with noted_warnings() as notes:
        for _ in range(2):
            warnings.warn("The `layer` is odd (see `last_run.effective_channels`).", stacklevel=1)
        warnings.warn("for developers", DeprecationWarning, stacklevel=1)
    assert notes == ["The layer is odd."]
