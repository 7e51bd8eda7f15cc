"""A run's record files: one line of JSON per image and method, flushed to disk before the next one starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from captum_scorecam.evaluation.durable_files import sync_folder, write_durably
from captum_scorecam.evaluation.mean_curves import at_best_points, best_of_curves, best_points
from captum_scorecam.evaluation.record_checks import KnownImages, check_record
from captum_scorecam.evaluation.records import Record, RunSettings, Times
from captum_scorecam.evaluation.settings import read_settings
from captum_scorecam.evaluation.typed_json import from_json

RECORDS, TIMES = "records", "times"
REPEAT = "Run the evaluation again: it keeps the records that are left and repeats the others."


class InterferenceError(OSError):
    """Something else removed, replaced or changed a file of a run while it runs.

    Args:
        path (Path): The file or folder.
        what (str): What was done to it.
        advice (str): How to go on. Default: `REPEAT`.
    """

    def __init__(self, path: Path, what: str, advice: str = REPEAT) -> None:
        super().__init__(
            f"Expected that nothing else changes the run's files while it runs, but {str(path)!r} was {what}. {advice}"
        )


def rank_file(run: Path, folder: str, rank: int) -> Path:
    """Returns the path of a rank's file in ``records`` or ``times``."""
    return run / folder / f"rank-{rank:03d}.jsonl"


def check_still_there(path: Path, *, is_folder: bool = False, advice: str = REPEAT) -> None:
    """Raises InterferenceError if a file or folder of a run was removed, moved or replaced by the other kind."""
    if not (path.is_dir() if is_folder else path.is_file()):
        raise InterferenceError(path, "replaced" if path.exists() else "removed or moved", advice)


class LineFile:
    """A file opened for appending lines. Opening it removes an incomplete last line, left by a killed process.

    Nothing else may change the file meanwhile, since lines could go to a file that nobody can find.

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
        self._length = _length_of_whole_lines(path)
        os.ftruncate(self._descriptor, self._length)
        self._digest = _digest(path)
        if durable:
            sync_folder(path.parent)

    def append(self, text: str) -> None:
        """Appends one line, completely or not at all.

        Raises:
            OSError: If the line can't be written.
            InterferenceError: If the file was removed, replaced or changed since the last line.
        """
        self._check_unchanged()
        line = left = f"{text}\n".encode()
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
            if self._durable:
                os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._length)
            raise
        self._length += len(line)
        self._digest.update(line)

    def check_content(self) -> None:
        """Raises InterferenceError if the file was removed, replaced or edited, also at the same length."""
        self._check_unchanged()
        if _digest(self.path).digest() != self._digest.digest():
            advice = "Restore it, or remove it and run the evaluation again to repeat its records."
            raise InterferenceError(self.path, "edited", advice)

    def _check_unchanged(self) -> None:
        check_still_there(self.path)
        found, opened = self.path.stat(), os.fstat(self._descriptor)
        if not os.path.samestat(found, opened) or found.st_size != self._length:
            raise InterferenceError(self.path, "replaced or changed")

    def __enter__(self) -> LineFile:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def _digest(path: Path) -> hashlib._Hash:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest


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
        ValueError: If there is no run, or a line is damaged or contradicts an earlier one. The message names the file
            and the line.
        OSError: If a file can't be read.
    """
    settings = read_settings(run)
    seen = set()
    known = KnownImages(settings.images)
    for line, place in _whole_lines(*_files_of(run, RECORDS)):
        record = _read_line(line, place, settings, known)
        if (record.index, record.method) not in seen:
            seen.add((record.index, record.method))
            yield record if curves else replace(record, curves={})


def _files_of(run: Path, folder: str) -> list[Path]:
    return sorted((run / folder).glob("rank-*.jsonl"))


def _whole_lines(*paths: Path) -> Iterator[tuple[bytes, str]]:
    """Yields each line with its place, for messages; an incomplete last line, of a killed process, is left out."""
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield line, f"line {number} of {str(path)!r}"


def _read_line(line: bytes, place: str, settings: RunSettings, known: KnownImages) -> Record:
    record = from_json(Record, line, place)
    try:
        check_record(record, settings)
        known.check(record)
    except ValueError as error:
        raise ValueError(f"Expected a record in {place}, but {error}.") from error
    return record


def read_records(run: Path | str, *, curves: bool = True) -> list[Record]:
    """Reads the records of a run.

    Args:
        run (Path or str): The run's folder.
        curves (bool): Whether to keep the curves, which take most of the memory. Without them, values of metrics that
            are the best point of the mean curve are those at that point of their method. Default: True.

    Returns:
        list of Record: One per image and method, sorted by image and then in the order of the run's methods.

    Raises:
        ValueError: If there is no run, or a line is damaged. The message names the file and the line.
        OSError: If a file can't be read.
    """
    run = Path(run)
    settings = read_settings(run)
    order = {method: number for number, method in enumerate(settings.methods)}
    metrics = set() if curves else best_of_curves(settings.metrics)
    points = best_points(iterate_records(run), metrics) if metrics else {}
    records: Iterable[Record] = iterate_records(run, curves=curves or bool(metrics))
    if metrics:
        records = (replace(at_best_points(record, points), curves={}) for record in records)
    return sorted(records, key=lambda record: (record.index, -1 if record.method is None else order[record.method]))


def read_times(run: Path) -> Iterator[Times]:
    """Reads the times of a run. Lines that a crash of the machine damaged are left out, since results don't need them.

    Raises:
        OSError: If a file can't be read.
    """
    for path in _files_of(run, TIMES):
        for _, times in _lines_of_times(path):
            yield times


def _lines_of_times(path: Path) -> Iterator[tuple[bytes, Times]]:
    for line, place in _whole_lines(path):
        with suppress(ValueError):
            yield line, from_json(Times, line, place)


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


def unfinished_images(records: Iterable[Record], settings: RunSettings) -> int:
    """Returns the number of a run's images on which not all methods have run."""
    return settings.images - sum(not methods for methods in missing_methods(records, settings.methods).values())


def remove_failures(run: Path) -> None:
    """Removes the records with failures from a run, and their times, so that they are run again.

    Raises:
        ValueError: If a line is damaged.
        OSError: If a file can't be written; its records are left unchanged.
    """
    failed = {(record.index, record.method) for record in iterate_records(run, curves=False) if record.failures}
    settings = read_settings(run)
    for path in _files_of(run, TIMES):
        kept = [line for line, times in _lines_of_times(path) if (times.index, times.method) not in failed]
        write_durably(path, b"".join(kept))
    known = KnownImages(settings.images)
    for path in _files_of(run, RECORDS):
        lines = _whole_lines(path)
        kept = [line for line, place in lines if not _read_line(line, place, settings, known).failures]
        write_durably(path, b"".join(kept))
