"""Records on disk: durable, cut where they are torn, told where they are damaged."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from captum_scorecam.evaluation.records import LineFile, iterate_records, rank_file, read_records, remove_failures
from captum_scorecam.evaluation.settings import write_configuration

RECORDS: list[dict[str, Any]] = [
    {"image": f"{name}.jpg", "index": index, "method": method, "values": {"insertion": value}, "error": None}
    for index, name in enumerate(["ä", "b\n\udcff"])
    for method, value in (("rise", 0.1 + index), ("score_cam", 1 / 3))
]
FAILURE = {"image": "c.jpg", "index": 2, "method": None, "error": {"type": "OSError", "message": "", "stage": "image"}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "records").mkdir()
    write_configuration(tmp_path, {"methods": ["score_cam", "rise"]}, {})
    return tmp_path


def append(run: Path, records: list[dict[str, Any]], rank: int = 0) -> Path:
    path = rank_file(run, "records", rank)
    with LineFile(path) as file:
        for record in records:
            file.append(record)
    return path


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does, without one: a write stops in the middle, the next raises OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_come_back_as_they_were_in_the_order_of_images_and_methods(run: Path) -> None:
    append(run, [FAILURE, RECORDS[3], RECORDS[0]], rank=1)
    append(run, [RECORDS[1], RECORDS[2]])
    assert read_records(run) == [RECORDS[1], RECORDS[0], RECORDS[3], RECORDS[2], FAILURE]


def test_a_record_is_one_line_with_sorted_keys(run: Path) -> None:
    lines = append(run, RECORDS).read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    assert lines[0] == (b'{"error":null,"image":"\\u00e4.jpg","index":0,"method":"rise","values":{"insertion":0.1}}\n')


def test_a_record_is_on_the_disk_before_the_next_is_made(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), fsync(file)))
    path = rank_file(run, "records", 0)
    with LineFile(path) as file:
        for record in RECORDS[:2]:
            file.append(record)
            assert synced[-1] == path.stat().st_size
            assert [read["index"] for read in iterate_records(run)] == [0] * len(path.read_bytes().splitlines())


def test_a_second_record_of_an_image_and_method_does_not_count(run: Path) -> None:
    append(run, RECORDS[:2])
    append(run, [RECORDS[1], RECORDS[2]], rank=1)
    assert [(record["index"], record["method"]) for record in read_records(run)] == [
        (0, "score_cam"),
        (0, "rise"),
        (1, "rise"),
    ]


def test_a_file_cut_at_any_byte_goes_on_after_its_last_whole_line(run: Path) -> None:
    whole = append(run, RECORDS).read_bytes()
    path = rank_file(run, "records", 0)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = list(iterate_records(run))  # as a reader sees it, which changes nothing
        assert path.stat().st_size == cut
        assert kept == RECORDS[: whole[:cut].count(b"\n")]
        append(run, RECORDS[len(kept) :])
        assert path.read_bytes() == whole


def test_a_torn_line_longer_than_a_block_is_cut_off(run: Path) -> None:
    path = append(run, RECORDS[:1])
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 200_000)
    append(run, [])
    assert path.read_bytes() == whole
    path.write_bytes(b"x" * 200_000)
    append(run, [])
    assert path.read_bytes() == b""


@pytest.mark.parametrize("damage", [b"\x00\x00\x00\n", b"[]\n", b'{"index":1}\n'])
def test_a_damaged_line_is_told_with_its_place(run: Path, damage: bytes) -> None:
    path = append(run, RECORDS[:1])
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(ValueError, match=r"a record in line 2 of '.*rank-000\.jsonl'"):
        read_records(run)


def test_a_line_that_does_not_fit_on_the_disk_leaves_none_of_itself(run: Path) -> None:
    path = append(run, RECORDS[:1])
    before = path.read_bytes()
    with LineFile(path) as file:
        with files_of_at_most(len(before) + 10), pytest.raises(OSError, match="File too large"):
            file.append(RECORDS[1])
        assert path.read_bytes() == before
        file.append(RECORDS[1])
    assert read_records(run) == [RECORDS[1], RECORDS[0]]


def test_a_full_disk_is_told_as_the_system_tells_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with LineFile(rank_file(run, "records", 0)) as file:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left on device"):
            file.append(RECORDS[0])


def test_numbers_that_json_has_not_are_refused(run: Path) -> None:
    path = append(run, RECORDS[:1])
    with LineFile(path) as file, pytest.raises(ValueError, match="not JSON compliant"):
        file.append({**RECORDS[1], "values": {"insertion": float("nan")}})
    assert read_records(run) == RECORDS[:1]


def test_curves_can_be_left_out(run: Path) -> None:
    append(run, [{**RECORDS[0], "curves": {"insertion": {"x": [0.0], "y": [1.0]}}}])
    assert read_records(run, curves=False) == RECORDS[:1]
    assert read_records(run)[0]["curves"] == {"insertion": {"x": [0.0], "y": [1.0]}}


def test_failures_are_removed_and_nothing_else(run: Path) -> None:
    failed = {**RECORDS[1], "error": {"type": "ValueError", "message": "", "stage": "method"}}
    append(run, [RECORDS[0], FAILURE, failed])
    path = append(run, [RECORDS[2]], rank=1)
    path.write_bytes(path.read_bytes() + b'{"torn')
    remove_failures(run)
    assert read_records(run) == [RECORDS[0], RECORDS[2]]
    assert path.read_bytes().count(b"\n") == len(path.read_bytes().splitlines()) == 1


@pytest.mark.parametrize("content", [None, "", "[]", '{"asked": {}}'])
def test_a_folder_without_a_run_is_told(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "configuration.json").write_text(content)
    with pytest.raises(ValueError, match="Expected the folder of a run, but"):
        read_records(tmp_path)


def test_the_configuration_is_readable_json(run: Path) -> None:
    assert json.loads((run / "configuration.json").read_text()) == {
        "asked": {"methods": ["score_cam", "rise"]},
        "versions": {},
    }
