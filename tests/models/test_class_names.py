"""Classes by index or name."""

from __future__ import annotations

import pytest

from captum_scorecam.models import find_class, imagenet_class_names


@pytest.mark.parametrize(
    ("target", "index"),
    [
        ("285", 285),
        ("Egyptian cat", 285),
        ("EGYPTIAN CAT", 285),
        ("egypt", 285),
        ("tiger", 292),  # a part of "tiger cat" and "tiger shark" too
        ("Cardigan", 264),
        ("cardigan", 474),
        ("0", 0),
        ("999", 999),
    ],
)
def test_a_class_is_found_by_index_or_name(target: str, index: int) -> None:
    assert find_class(target, 1000, imagenet_class_names()) == index


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("1000", r"Expected `target` in 0\.\.999, but got 1000"),
        ("-1", r"Expected `target` in 0\.\.999, but got -1"),
        ("retriever", r"'retriever' matches 5: flat-coated retriever \(205\), .*golden retriever \(207\)"),
        ("CARDIGAN", r"'CARDIGAN' matches 2: Cardigan \(264\), cardigan \(474\)"),
        ("egyptain catt", r"matches none\. Closest matches: .*Egyptian cat \(285\)"),
        ("", r"'' matches none\.$"),
        ("9" * 23, r"matches none\.$"),
        ("9" * 5000, r"matches none\.$"),
        ("+-3", r"'\+-3' matches none"),
    ],
)
def test_an_unknown_or_ambiguous_class_raises(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_class(target, 1000, imagenet_class_names())


def test_classes_without_names_are_found_by_number() -> None:
    assert find_class("class 3", 5) == 3
