"""Record files: durable, truncated at incomplete lines, with errors that locate damaged lines."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from captum_scorecam.evaluation import Curve, Failure, Record, read_records
from captum_scorecam.evaluation.record_files import (
    LineFile,
    iterate_records,
    missing_methods,
    rank_file,
    read_times,
    remove_failures,
)
from captum_scorecam.evaluation.records import Times
from captum_scorecam.evaluation.settings import write_configuration
from captum_scorecam.evaluation.typed_json import to_json
from tests.support.run_records import SETTINGS, failure, record
from tests.support.systems import needs_posix

RECORDS = [
    replace(record(index, method, {"insertion": value}), image=f"{name}.jpg")
    for index, name in enumerate(["ä", "b\n\udcff"])
    for method, value in (("rise", 0.1 + index / 2), ("score_cam", 1 / 3))
]
FAILURE = failure(2)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "records").mkdir()
    write_configuration(tmp_path, replace(SETTINGS, methods=("score_cam", "rise"), metrics=("insertion",)), {})
    return tmp_path


def append(run: Path, records: Sequence[Record], rank: int = 0) -> Path:
    path = rank_file(run, "records", rank)
    with LineFile(path) as file:
        for one in records:
            file.append(to_json(one))
    return path


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Simulates a full disk: a write stops in the middle, and the next one raises OSError."""
    import resource  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_come_back_in_the_order_of_images_and_methods(run: Path) -> None:
    append(run, [FAILURE, RECORDS[3], RECORDS[0]], rank=1)
    append(run, [RECORDS[1], RECORDS[2]])
    assert read_records(run) == [RECORDS[1], RECORDS[0], RECORDS[3], RECORDS[2], FAILURE]
    assert read_records(str(run)) == read_records(run)


def test_a_record_is_on_disk_before_the_next_one_starts(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def counted(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        fsync(file)

    monkeypatch.setattr(os, "fsync", counted)
    path = rank_file(run, "records", 0)
    with LineFile(path) as file:
        for number, one in enumerate(RECORDS[:2], 1):
            file.append(to_json(one))
            assert synced[-1] == path.stat().st_size
            assert [found.index for found in iterate_records(run)] == [0] * number


def test_a_second_record_of_an_image_and_method_does_not_count(run: Path) -> None:
    append(run, RECORDS[:2])
    append(run, [RECORDS[1], RECORDS[2]], rank=1)
    assert [(found.index, found.method) for found in read_records(run)] == [(0, "score_cam"), (0, "rise"), (1, "rise")]


def test_a_file_cut_at_any_byte_continues_after_its_last_whole_line(run: Path) -> None:
    two = [RECORDS[0], RECORDS[3]]
    whole = append(run, two).read_bytes()
    path = rank_file(run, "records", 0)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = list(iterate_records(run))  # which changes nothing
        assert path.stat().st_size == cut
        assert kept == two[: whole[:cut].count(b"\n")]
        append(run, two[len(kept) :])
        assert path.read_bytes() == whole


def test_an_incomplete_line_longer_than_a_block_is_cut_off(run: Path) -> None:
    path = append(run, RECORDS[:1])
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 200_000)
    append(run, [])
    assert path.read_bytes() == whole
    path.write_bytes(b"x" * 200_000)
    append(run, [])
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"\x00\x00\x00\n", "but it is not JSON: "),
        (b"[]\n", r"but it is \[\]\."),
        (b'{"index":1}\n', "but it lacks the key 'chunk_rows'"),
        (to_json(replace(FAILURE, method="magic")).encode() + b"\n", "but the run has no method 'magic'"),
        (
            to_json(replace(RECORDS[0], failed_metrics={"insertion": Failure("E", "", "metric")})).encode() + b"\n",
            "but insertion has both a result and a failure",
        ),
    ],
)
def test_a_damaged_line_is_refused_with_its_place(run: Path, damage: bytes, message: str) -> None:
    path = append(run, RECORDS[:1])
    path.write_bytes(path.read_bytes() + damage)
    for reader in (read_records, remove_failures):
        with pytest.raises(ValueError, match=rf"^Expected a record in line 2 of '.*rank-000\.jsonl', {message}"):
            reader(run)


@needs_posix
def test_a_line_that_does_not_fit_on_the_disk_leaves_none_of_itself(run: Path) -> None:
    path = append(run, RECORDS[:1])
    before = path.read_bytes()
    with LineFile(path) as file:
        with files_of_at_most(len(before) + 10), pytest.raises(OSError, match="File too large"):
            file.append(to_json(RECORDS[1]))
        assert path.read_bytes() == before
        file.append(to_json(RECORDS[1]))
    assert read_records(run) == [RECORDS[1], RECORDS[0]]


def test_a_full_disk_raises_the_systems_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with LineFile(rank_file(run, "records", 0)) as file:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left on device"):
            file.append(to_json(RECORDS[0]))


def remove_file(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def rename_run(path: Path) -> None:
    path.parent.parent.rename(path.parent.parent.with_name("renamed"))


def replace_run_by_file(path: Path) -> None:
    rename_run(path)
    path.parent.parent.write_text("")


def replace_file(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.with_name("other").write_bytes(b"")  # takes the inode
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, 10)


def append_from_elsewhere(path: Path) -> None:
    with path.open("a") as file:
        file.write("{}\n")


@needs_posix
@pytest.mark.parametrize(
    ("interfere", "problem"),
    [
        (remove_file, "was removed or moved"),
        (remove_folder, "was removed or moved"),
        (rename_run, "was removed or moved"),
        (replace_run_by_file, "was removed or moved"),
        (replace_file, "was replaced or changed"),
        (truncate, "was replaced or changed"),
        (append_from_elsewhere, "was replaced or changed"),
    ],
)
@pytest.mark.parametrize("durable", [True, False])
def test_a_file_that_something_else_changes_takes_no_more_lines(
    tmp_path: Path, interfere: Callable[[Path], None], problem: str, durable: bool
) -> None:
    path = rank_file(tmp_path / "run", "records", 0)
    path.parent.mkdir(parents=True)
    with LineFile(path, durable) as file:
        file.append(to_json(RECORDS[0]))
        file.append(to_json(RECORDS[1]))
        interfere(path)
        message = rf"^Expected that nothing else changes the run's files .*'.*rank-000\.jsonl' {problem}\. Run the "
        with pytest.raises(OSError, match=message):
            file.append(to_json(RECORDS[2]))


def test_curves_can_be_left_out(run: Path) -> None:
    with_curve = replace(RECORDS[0], curves={"insertion": Curve([0.0], [1.0])})
    append(run, [with_curve])
    assert read_records(run, curves=False) == RECORDS[:1]
    assert read_records(run) == [with_curve]


def test_failures_are_removed_and_nothing_else(run: Path) -> None:
    append(run, [RECORDS[0], FAILURE, replace(failure(0, "score_cam"), image=RECORDS[0].image)])
    path = append(run, [RECORDS[2]], rank=1)
    path.write_bytes(path.read_bytes() + b'{"incomplete')
    (run / "times").mkdir()
    kept = [Times(0, "rise", 1.0), Times(1, "rise", 2.0, {"insertion": 3.0})]
    with LineFile(rank_file(run, "times", 0)) as file:
        for times in (Times(0, "score_cam", 4.0), kept[0], Times(2, None), kept[1]):
            file.append(to_json(times))
    with rank_file(run, "times", 0).open("ab") as damaged:
        damaged.write(b"\x00\x00\n")
    assert list(read_times(run)) == [Times(0, "score_cam", 4.0), kept[0], Times(2, None), kept[1]]
    remove_failures(run)
    assert list(read_times(run)) == kept
    assert read_records(run) == [RECORDS[0], RECORDS[2]]
    assert path.read_bytes().count(b"\n") == len(path.read_bytes().splitlines()) == 1


def test_methods_are_missing_until_each_has_a_record_or_the_image_failed() -> None:
    records = [record(0, "rise", {}), record(1, "rise", {}), failure(1, "score_cam"), failure(2)]
    assert missing_methods(records, ["score_cam", "rise", "mask"]) == {0: ("score_cam", "mask"), 1: ("mask",), 2: ()}
    assert missing_methods([], ["rise"]) == {}
