"""The summaries of `llms.txt` are sentences that say something."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "docs" / "_extensions" / "llms_txt.py"
SPEC = importlib.util.spec_from_file_location("llms_txt", PATH)
assert SPEC is not None
assert SPEC.loader is not None
LLMS_TXT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(LLMS_TXT)

LONG = "A sentence of forty characters, no more. " * 9


@pytest.mark.parametrize(
    ("paragraphs", "expected"),
    [
        (["First. Second,\nwrapped. ", "Other."], "First. Second, wrapped."),
        (["It selects a class. These are the forms:", "Other."], "It selects a class."),
        (["These are the forms:", "A number, as in f(0.5)."], "A number, as in f(0.5)."),
        (["Attributions", "the metrics as classes", "They run a model."], "They run a model."),
        (["Class: ScoreCAM. Paper: arXiv 1910.01279.", "It masks the image."], "It masks the image."),
        (["Functions: iou(), then road(). Classes: IoU.", "Bases: Metric", "Overlap."], "Overlap."),
        (["Options of ScoreCAM: error. Result: the map.", "A prediction."], "A prediction."),
        (["Which class? See:"], "Which class?"),
        ([LONG], ("A sentence of forty characters, no more. " * 7).strip()),
        (["title only"], ""),
        ([], ""),
    ],
)
def test_first_sentences(paragraphs: list[str], expected: str) -> None:
    assert LLMS_TXT.first_sentences(paragraphs) == expected
