"""The JSON of records and configurations: round trips, and errors that locate damage."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from captum_scorecam.evaluation import Curve, Failure, Record
from captum_scorecam.evaluation.records import FORMAT_VERSION, Configuration, Times
from captum_scorecam.evaluation.typed_json import from_json, to_json
from tests.support.run_records import SETTINGS, failure, record

CURVES = {"insertion": Curve([0.0, 1.0], [0.25, 1]), "sanity_check": Curve(["head", "stem"], [0.5, -0.1])}
RECORD = record(
    *(7, "rise", {"insertion": 0.625, "sanity_check": None}),
    label=2,
    correct=False,
    curves=CURVES,
    chunk_rows={"map": (1, 4, 3), "insertion": (4, 1)},
)


@pytest.mark.parametrize("written", [RECORD, failure(3), failure(3, "rise")])
def test_a_record_comes_back_equal(written: Record) -> None:
    assert from_json(Record, to_json(written), "here") == written


@pytest.mark.parametrize("written", [Times(7, "rise", 1.5, {"insertion": 0.25}), Times(3, "rise"), Times(3, None)])
def test_times_come_back_equal(written: Times) -> None:
    assert from_json(Times, to_json(written), "here") == written


NEWER = ("region", "failed_metrics", "label_name")  # keys that older records lack


def test_a_configuration_comes_back_equal() -> None:
    settings = replace(SETTINGS, data="/data", weights="none", target="label")
    written = Configuration(FORMAT_VERSION, settings, {"torch": "2.6", "cuda": None})
    assert from_json(Configuration, to_json(written, indent=2), "here") == written


def test_a_record_is_one_flat_line_with_sorted_keys() -> None:
    assert to_json(record(1, "rise", {"insertion": 0.1}, target_name="ä", chunk_rows={"map": (1, 4)})) == (
        '{"chunk_rows":{"map":[1,4]},"correct":null,"curves":{},"error":null,"failed_metrics":{},"forwards":1,'
        '"image":"1.png","index":1,"label":null,"label_name":null,"map_error":null,"method":"rise",'
        '"predicted":0,"probability":0.75,"region":null,"target":0,"target_name":"\\u00e4","values":{"insertion":0.1}}'
    )


def test_names_of_files_that_are_not_text_come_back_too() -> None:
    written = replace(RECORD, image="b\n\udcff.jpg")
    assert "\n" not in to_json(written)
    assert from_json(Record, to_json(written), "here") == written


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(replace(RECORD, values={"insertion": number}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"index": "7"}, "but `index` is '7'."),
        ({"index": True}, "but `index` is True."),
        ({"index": 7.0}, "but `index` is 7.0."),
        ({"index": None}, "but `index` is None."),
        ({"image": 3}, "but `image` is 3."),
        ({"probability": "high"}, "but `probability` is 'high'."),
        ({"correct": 1}, "but `correct` is 1."),
        ({"values": [0.5]}, r"but `values` is \[0.5\]."),
        ({"values": {"insertion": "a"}}, r"but `values`\['insertion'\] is 'a'."),
        ({"curves": {"insertion": {"x": [0]}}}, r"but `curves`\['insertion'\] lacks the key 'y'."),
        ({"curves": {"insertion": {"x": [0], "y": ["a"]}}}, r"but `y` is \['a'\]."),
        ({"error": {"type": "E", "message": "", "stage": "lunch"}}, "but `stage` is 'lunch'."),
        ({"error": "E"}, "but `error` is 'E'."),
        ({"colour": "red"}, "but it has the unknown key 'colour'."),
        ({"values": {"insertion": float("nan")}}, "but it contains NaN."),
        ({"probability": float("inf")}, "but it contains Infinity."),
    ],
)
def test_a_damaged_record_is_refused_with_its_place_and_key(changed: dict[str, Any], message: str) -> None:
    text = json.dumps(json.loads(to_json(RECORD)) | changed)
    with pytest.raises(ValueError, match=f"^Expected a record in line 5, {message}$"):
        from_json(Record, text, "line 5")


def test_a_record_older_than_a_key_is_read() -> None:
    older = json.loads(to_json(replace(RECORD, region="mask", label_name="goldfish")))
    for key in NEWER:
        del older[key]
    assert from_json(Record, json.dumps(older), "line 5") == RECORD


@pytest.mark.parametrize("key", [key for key in json.loads(to_json(RECORD)) if key not in NEWER])
def test_a_record_without_one_of_its_keys_is_refused(key: str) -> None:
    members = json.loads(to_json(RECORD))
    del members[key]
    with pytest.raises(ValueError, match=f"^Expected a record in line 5, but it lacks the key '{key}'.$"):
        from_json(Record, json.dumps(members), "line 5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "but it is not JSON: Expecting value: line 1 column 1"),
        ("\x00\x00", "but it is not JSON: Expecting value: line 1 column 1"),
        ('{"index":', "but it is not JSON: Expecting value: line 1 column 10"),
        ("[]", r"but it is \[\]."),
    ],
)
def test_what_is_no_record_at_all_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Expected a record in line 5, {message}"):
        from_json(Record, text, "line 5")


def test_failure_has_the_notes_of_the_exception() -> None:
    error = RuntimeError("shape '[1, 8]' is invalid")
    error.__notes__ = ["If the model has a fixed batch size,\npass perturbations_per_eval=1."]
    message = "shape '[1, 8]' is invalid If the model has a fixed batch size, pass perturbations_per_eval=1."
    assert Failure.from_exception(error, "method") == Failure("RuntimeError", message, "method")


def test_a_failure_has_one_line_without_addresses() -> None:
    found = Failure.from_exception(KeyError("no\n  map of <Net object at 0x7f00beef>" + 2000 * "."), "method")
    assert found.type == "KeyError"
    assert found.stage == "method"
    assert found.message.startswith("'no\\n map of <Net object>...")
    assert len(found.message) == 1000
