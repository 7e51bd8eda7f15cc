"""Edited records: each is read as the record that it was, or is one error that names the file and the line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captum_scorecam.evaluation import Curve, Metric, MetricResult, Record, read_records, register_metric, write_report
from captum_scorecam.evaluation.record_files import rank_file, remove_failures
from captum_scorecam.evaluation.settings import write_configuration
from captum_scorecam.evaluation.typed_json import to_json
from tests.support.run_records import SETTINGS, failure, record

OF_RUN = replace(SETTINGS, metrics=("insertion", "sanity_check", "own"), gallery=0)
CURVES = {"insertion": Curve([0.0, 1.0], [0.25, 1.0]), "sanity_check": Curve(["head", "stem"], [0.5, -0.25])}
VALUES: dict[str, float | None] = {"insertion": 0.625, "sanity_check": None, "own": -12.5}
RECORD = record(2, "score_cam", VALUES, label=3, correct=False, curves=CURVES, chunk_rows={"map": (1, 4)})
WHOLE = json.loads(to_json(RECORD))
ERROR = {"type": "ValueError", "message": "no", "stage": "image"}


def changed(**members: Any) -> str:
    return json.dumps(WHOLE | members)


def inside(key: str, **members: Any) -> str:
    return changed(**{key: WHOLE[key] | members})


def without(text: str, key: str) -> str:
    members = json.loads(text)
    del members[key]
    return json.dumps(members)


FAILED = to_json(failure(2, "score_cam"))
HUGE = "1" + 4999 * "0"
DAMAGED = [
    # types
    changed(index="2"),
    changed(index=2.0),
    changed(index=True),
    changed(index=None),
    changed(image=7),
    changed(method=["score_cam"]),
    changed(target="tench"),
    changed(target_name=3),
    changed(correct="no"),
    changed(correct=0),
    changed(probability="0.75"),
    changed(forwards="many"),
    changed(values=[0.625]),
    changed(values="0.625"),
    inside("values", insertion="0.625"),
    inside("values", insertion=[0.625]),
    inside("values", insertion=True),
    changed(curves=[]),
    inside("curves", insertion={"x": [0, 1], "y": ["a", "b"]}),
    inside("curves", insertion={"x": [[0], [1]], "y": [0, 1]}),
    inside("curves", insertion={"x": [0, 1]}),
    inside("curves", insertion=None),
    changed(chunk_rows=[1, 4]),
    inside("chunk_rows", map=4),
    inside("chunk_rows", map=["4"]),
    changed(error="no"),
    changed(error=ERROR | {"stage": "lunch"}),
    # keys
    without(changed(), "index"),
    without(changed(), "values"),
    changed(colour="red"),
    changed().replace('"index": 2', '"index": 2, "index": 3'),
    # ranges
    changed(index=-1),
    changed(index=16),
    changed(index=10**30),
    changed(target=-1, predicted=-1),
    changed(target=8, predicted=8),
    changed(label=8),
    changed(label=-1),
    changed(predicted=10**18, target=10**18),
    changed(probability=1.5),
    changed(probability=-0.25),
    changed(forwards=-1),
    changed(map_error=0.5),  # without a budget
    changed(map_error=-0.5),
    changed(map_error="0.5"),
    changed(forwards=10**19),
    inside("values", insertion=1.5),
    inside("values", insertion=-0.5),
    inside("values", sanity_check=-1.5),
    inside("curves", insertion={"x": [0, 1], "y": [0.5, 2]}),
    inside("chunk_rows", map=[0]),
    inside("chunk_rows", map=[-4]),
    inside("chunk_rows", map=[]),
    inside("chunk_rows", insertion=[]),
    inside("chunk_rows", map=[4, 4]),
    inside("chunk_rows", map={}),
    changed(chunk_rows={}),
    inside("curves", insertion={"x": [-1, 1], "y": [0, 1]}),
    inside("curves", insertion={"x": [0, 7.0], "y": [0, 1]}),
    inside("curves", sanity_check={"x": [0, 1e308], "y": [0, 1]}),
    changed().replace("0.625", "1e999"),
    changed().replace("0.625", "NaN"),
    changed().replace("0.75", "-Infinity"),
    changed().replace("-12.5", HUGE),
    changed().replace('"index": 2', f'"index": {HUGE}'),
    # what the settings don't list
    changed(method="magic"),
    changed(method="rise"),
    inside("values", magic=0.5),
    without(changed(), "curves").replace('"forwards"', '"curves": {"magic": {"x": [0], "y": [1]}}, "forwards"'),
    inside("chunk_rows", magic=[4]),
    changed(values={"insertion": 0.5}),
    # contradictions
    changed(method=None),
    changed(target=None),
    changed(target_name=None),
    changed(predicted=None),
    changed(probability=None),
    changed(forwards=None),
    changed(target=1),
    changed(correct=True),
    changed(correct=None),
    changed(label=None),
    changed(label=0),
    changed(error=ERROR),
    without(FAILED, "target").replace('"values"', '"target": 0, "values"'),
    without(FAILED, "values").replace('"target"', '"values": {"insertion": 0.5}, "target"'),
    inside("curves", insertion={"x": [0, 0.5, 1], "y": [0, 1]}),
    inside("curves", insertion={"x": [], "y": []}),
    inside("curves", insertion={"x": [1, 0], "y": [0, 1]}),
    inside("curves", insertion={"x": [0, 0.5, 0.5, 1], "y": [0, 1, 1, 1]}),
    inside("curves", insertion={"x": [0, "stem"], "y": [0, 1]}),
    # no JSON
    changed()[:-1],
    changed()[1:],
    changed().replace(":", "=", 1),
    changed().replace('"', "'"),
    f"[{changed()}]",
    f"{changed()} {changed()}",
    "null",
    "{}",
    "7",
    "",
    "[" * 100_000,
    "\x00\x00",
    "\ufeff" + changed(),
]
SAME = [
    json.dumps(dict(reversed(WHOLE.items()))),
    json.dumps(WHOLE, separators=(" , ", " : ")),
    changed().replace("0.625", "6.25e-1"),
    changed().replace("0.75", "0.750"),
    changed().replace('"tench"', '"\\u0074ench"'),
    f"  {changed()}\t",
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    register_metric(Metric("own", "Own", True, lambda _: MetricResult(0.0)))
    rank_file(tmp_path, "records", 0).parent.mkdir()
    write_configuration(tmp_path, OF_RUN, {})
    return tmp_path


def write(run: Path, text: str | bytes) -> Path:
    """Writes a record of another image before the text."""
    line = text.encode() if isinstance(text, str) else text
    path = rank_file(run, "records", 0)
    path.write_bytes(f"{to_json(replace(RECORD, index=1))}\n".encode() + line + b"\n")
    return path


def expected_error(path: Path) -> str:
    return rf"^Expected a record in line 2 of {re.escape(repr(str(path)))}, but .+\.$"


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_record_is_one_error_in_whatever_reads_it(text: str, run: Path) -> None:
    path = write(run, text)
    before = path.read_bytes()
    readers: list[Callable[[Path], object]] = [read_records, remove_failures, write_report]
    for reader in readers:
        with pytest.raises(ValueError, match=expected_error(path)) as raised:
            reader(run)
        assert len(str(raised.value)) < 500
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("edited", "problem"),
    [
        ({"forwards": 3}, "`forwards` is 3, and the run's `max_forwards` is 2"),
        ({"method": "grad_cam"}, "`map_error` is 0.25, and the map has no budget"),
    ],
)
def test_a_record_that_contradicts_the_budget_is_one_error(edited: dict[str, Any], problem: str, run: Path) -> None:
    write_configuration(run, replace(OF_RUN, max_forwards=2), {})
    of_budget = replace(RECORD, forwards=2, map_error=0.25)
    path = rank_file(run, "records", 0)
    path.write_text(f"{to_json(of_budget)}\n")
    assert read_records(run) == [of_budget]
    path.write_text(f"{to_json(replace(of_budget, **edited))}\n")
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_records(run)


@pytest.mark.parametrize("line", [b"\xff\xfe{}", b'{"image": "\xe9"}', json.dumps(WHOLE).encode("utf-16")[:40]])
def test_a_line_that_is_not_utf_8_says_so(line: bytes, run: Path) -> None:
    path = write(run, line.replace(b"\n", b""))
    with pytest.raises(ValueError, match=rf"line 2 of {re.escape(repr(str(path)))}, but it is not text in UTF-8\.$"):
        read_records(run)


@pytest.mark.parametrize("text", SAME)
def test_a_record_that_is_only_written_differently_is_the_same(text: str, run: Path) -> None:
    write(run, text)
    assert read_records(run) == [replace(RECORD, index=1), RECORD]


def test_values_at_the_ends_of_their_ranges_are_read(run: Path) -> None:
    ends = replace(RECORD, index=15, target=7, predicted=7, label=7, correct=True, probability=1.0, forwards=0,
                   values={"insertion": 0, "sanity_check": -1.0, "own": 1e300}, curves={}, chunk_rows={})  # fmt: skip
    write(run, to_json(ends))
    assert read_records(run)[1] == ends


def test_the_rows_of_a_plugin_s_method_need_not_be_known(run: Path) -> None:
    write_configuration(run, replace(OF_RUN, methods=("own",)), {})
    other = replace(RECORD, method="own", chunk_rows={})
    rank_file(run, "records", 0).write_text(f"{to_json(other)}\n")
    assert read_records(run) == [other]


def test_the_curve_of_a_plugin_s_metric_may_descend(run: Path) -> None:
    other = replace(RECORD, curves={"own": Curve([1.0, 0.5, 0.0], [0.0, 0.5, 1.0])})
    rank_file(run, "records", 0).write_text(f"{to_json(other)}\n")
    assert read_records(run) == [other]


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"image": "9.png"}, "`image` is '9.png', and '2.png' in another record of image 2"),
        ({"label": 4}, "`label` is 4, and 3 in another record of image 2"),
        ({"index": 5}, "it is of another image than the 1 of the run"),
    ],
)
def test_records_that_contradict_one_another_are_one_error(other: dict[str, Any], problem: str, run: Path) -> None:
    write_configuration(run, replace(OF_RUN, images=1), {})
    lines = [to_json(RECORD), to_json(replace(RECORD, method="grad_cam", **other))]
    path = rank_file(run, "records", 0)
    path.write_text("".join(f"{line}\n" for line in lines))
    readers: list[Callable[[Path], object]] = [read_records, remove_failures, write_report]
    for reader in readers:
        with pytest.raises(ValueError, match=expected_error(path)) as raised:
            reader(run)
        assert problem in str(raised.value)


def test_a_failure_does_not_contradict_the_label_of_its_image(run: Path) -> None:
    failed = failure(2, "grad_cam")
    write(run, f"{to_json(failed)}\n{to_json(RECORD)}")
    assert read_records(run)[1:] == [failed, RECORD]


def test_ranges_of_a_metric_that_is_not_registered_are_not_known(run: Path) -> None:
    write_configuration(run, replace(OF_RUN, metrics=("from_plugin",)), {})
    other = replace(RECORD, values={"from_plugin": 1e9}, curves={})
    rank_file(run, "records", 0).write_text(f"{to_json(other)}\n")
    assert read_records(run) == [other]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def read_or_error(run: Path, path: Path) -> list[Record] | None:
    """Reads a run, or returns None after the one error that damage may raise."""
    try:
        return read_records(run)
    except ValueError as error:
        if not re.search(expected_error(path), str(error)):
            raise
        return None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(sorted(WHOLE)), value=JSON)
def test_any_value_of_any_field_is_read_or_one_error(key: str, value: Any, run: Path) -> None:
    records = read_or_error(run, write(run, changed(**{key: value})))
    assert records is None or json.loads(to_json(records[1])) == WHOLE | {key: value}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_that_changes_leaves_a_record_or_one_error(data: st.DataObject, run: Path) -> None:
    line = bytearray(changed().encode())
    position = data.draw(st.integers(0, len(line) - 1))
    line[position] = data.draw(st.integers(0, 255).filter(lambda byte: byte not in b"\r\n"))
    records = read_or_error(run, write(run, bytes(line)))
    assert records is None or len(records) == 2
