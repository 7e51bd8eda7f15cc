"""A run's record files: one line of JSON per image and method, flushed to disk before the next one starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from captum_scorecam.evaluation.durable_files import sync_folder, write_durably
from captum_scorecam.evaluation.records import Record, from_json
from captum_scorecam.evaluation.settings import read_settings

RECORDS = "records"


def rank_file(run: Path, folder: str, rank: int) -> Path:
    """Returns the path of a rank's file in ``records`` or ``times``."""
    return run / folder / f"rank-{rank:03d}.jsonl"


class LineFile:
    """A file opened for appending lines. Opening it removes an incomplete last line, left by a killed process.

    Args:
        path (Path): The file, created if missing.
        durable (bool): Whether `append` returns only once the line is on disk. Default: True.

    Raises:
        OSError: If the file can't be opened.
    """

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path, self._durable = path, durable
        as_bytes = getattr(os, "O_BINARY", 0)  # Windows would otherwise write each newline as two characters
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | as_bytes, 0o666)
        os.ftruncate(self._descriptor, _length_of_whole_lines(path))
        if durable:
            sync_folder(path.parent)

    def append(self, text: str) -> None:
        """Appends one line, completely or not at all.

        Raises:
            OSError: If the line can't be written.
        """
        line = f"{text}\n".encode()
        before = os.fstat(self._descriptor).st_size
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
            if self._durable:
                os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, before)
            raise

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def _length_of_whole_lines(path: Path) -> int:
    """Returns the length up to and including the last newline, reading the file backwards in blocks."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def iterate_records(run: Path, *, curves: bool = True) -> Iterator[Record]:
    """Reads the records of a run one at a time, in the order in which each rank wrote them.

    Incomplete last lines and duplicate records of an image and method are skipped.

    Args:
        run (Path): The run's folder.
        curves (bool): Whether to keep the curves, which take most of the memory. Default: True.

    Raises:
        ValueError: If there is no run, or a line is damaged. The message names the file and the line.
        OSError: If a file can't be read.
    """
    methods = {*read_settings(run).methods, None}
    seen = set()
    for path in _record_files(run):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                record = _read_line(line, path, number, methods)
                if (record.index, record.method) not in seen:
                    seen.add((record.index, record.method))
                    yield record if curves else replace(record, curves={})


def _record_files(run: Path) -> list[Path]:
    return sorted((run / RECORDS).glob("rank-*.jsonl"))


def _read_line(line: bytes, path: Path, number: int, methods: set[str | None]) -> Record:
    place = f"line {number} of {str(path)!r}"
    record = from_json(Record, line, place)
    if record.method not in methods:
        raise ValueError(f"Expected a record in {place}, but the run has no method {record.method!r}.")
    return record


def read_records(run: Path | str, *, curves: bool = True) -> list[Record]:
    """Reads the records of a run.

    Args:
        run (Path or str): The run's folder.
        curves (bool): Whether to keep the curves, which take most of the memory. Default: True.

    Returns:
        list of Record: One per image and method, sorted by image and then in the order of the run's methods.

    Raises:
        ValueError: If there is no run, or a line is damaged. The message names the file and the line.
        OSError: If a file can't be read.
    """
    run = Path(run)
    order = {method: number for number, method in enumerate(read_settings(run).methods)}
    records = iterate_records(run, curves=curves)
    return sorted(records, key=lambda record: (record.index, -1 if record.method is None else order[record.method]))


def missing_methods(records: Iterable[Record], methods: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Returns the methods that have not yet run on each image with a record; none for a finished image.

    Args:
        records (iterable of Record): The records of a run.
        methods (sequence of str): The methods of the run.

    Returns:
        dict: Method names by the image's position; none for an image on which no method can run.
    """
    done: dict[int, set[str | None]] = {}
    for record in records:
        done.setdefault(record.index, set()).add(record.method)
    return {
        index: () if None in found else tuple(method for method in methods if method not in found)
        for index, found in done.items()
    }


def remove_failures(run: Path) -> None:
    """Removes the records with errors from a run, so that they are run again.

    Raises:
        ValueError: If a line is damaged.
        OSError: If a file can't be written; its records are left unchanged.
    """
    methods = {*read_settings(run).methods, None}
    for path in _record_files(run):
        whole = path.read_bytes()[: _length_of_whole_lines(path)]
        lines = enumerate(whole.splitlines(keepends=True), 1)
        kept = [line for number, line in lines if _read_line(line, path, number, methods).error is None]
        write_durably(path, b"".join(kept))
