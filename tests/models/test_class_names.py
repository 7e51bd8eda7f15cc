"""Classes by index or name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn
from torchvision import transforms

from captum_scorecam.models import Classifier, find_class, imagenet_class_names


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


def test_a_name_that_is_a_number_comes_before_an_index() -> None:
    assert [find_class(target, 3, ["1", "2", "30"]) for target in ("1", "2", "30", "0")] == [0, 1, 2, 0]


def test_classes_without_names_are_found_by_number() -> None:
    assert find_class("class 3", 5) == 3


def names_of(class_names: Any) -> object:
    return Classifier("own", nn.Identity(), transforms.ToTensor(), class_names).class_names


@pytest.mark.parametrize(
    "class_names",
    [
        ["cat", "dog", "eel"],
        ("cat", "dog", "eel"),
        np.array(["cat", "dog", "eel"]),
        {0: "cat", 1: "dog", 2: "eel"},
        {2: "eel", 0: "cat", 1: "dog"},
        {"2": "eel", "1": "dog", "0": "cat"},
    ],
    ids=["list", "tuple", "array", "dict", "unsorted", "str keys"],
)
def test_class_names_are_listed_by_index(class_names: object) -> None:
    assert names_of(class_names) == ["cat", "dog", "eel"]


def test_more_than_ten_names_are_sorted_by_number() -> None:
    assert names_of({str(index): f"class {index}" for index in reversed(range(12))}) == [
        f"class {i}" for i in range(12)
    ]


def test_digits_are_names_too() -> None:
    assert names_of([1, 0]) == ["1", "0"]
    assert names_of(None) is None


@pytest.mark.parametrize(
    ("class_names", "error", "message"),
    [
        ("cat", TypeError, "Expected class names as a list of str or a dict of class index to name, but got str"),
        ({"cat", "dog"}, TypeError, "but got set"),
        (len, TypeError, "but got builtin_function_or_method"),
        ({"cat": 0, "dog": 1}, TypeError, "Expected a dict of class index to name, but got the key 'cat'"),
        ({0: "cat", 2: "dog"}, ValueError, r"Expected class names for 0\.\.1, but there is none for 1"),
        (["cat", None], TypeError, "Expected class names of type str, but got None"),
        ({0: "cat", 1: 0.5}, TypeError, r"Expected class names of type str, but got 0\.5"),
    ],
)
def test_other_class_names_raise(class_names: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        names_of(class_names)
