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
