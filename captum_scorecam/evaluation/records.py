"""The records of a run: one line of JSON for each image and method, durable as soon as it is written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from captum_scorecam.evaluation.durable_files import sync_folder, write_durably
from captum_scorecam.evaluation.settings import read_configuration

Record = dict[str, Any]
RECORDS = "records"


def rank_file(run: Path, folder: str, rank: int) -> Path:
    """Returns where a rank's lines go, in ``records`` or ``times``."""
    return run / folder / f"rank-{rank:03d}.jsonl"


class LineFile:
    """A file of JSON lines, to append to.

    A last line that is torn, since a process was killed in the middle of it, is cut off on opening.

    Args:
        path (Path): The file, made if it is not there.
        durable (bool): Whether a line is on the disk when `append` returns. Default: True.

    Raises:
        OSError: If the file can't be opened.
    """

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path, self._durable = path, durable
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        os.ftruncate(self._descriptor, _length_of_whole_lines(path))
        if durable:
            sync_folder(path.parent)

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one line, whole or not at all.

        Raises:
            OSError: If it can't be written.
            ValueError: If a number is NaN or infinite.
        """
        line = json.dumps(record, sort_keys=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
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
    """Returns how many bytes of a file end with a newline; it is read backwards, a block at a time."""
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


def iterate_records(run: Path) -> Iterator[Record]:
    """Reads the records of a run one by one, those of each rank in the order in which it wrote them.

    A torn last line is passed over, and so is a second record of an image and method.

    Raises:
        ValueError: If another line is not a record.
        OSError: If a file can't be read.
    """
    seen = set()
    for path in sorted((run / RECORDS).glob("rank-*.jsonl")):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                record = _parsed(line, path, number)
                key = (record["index"], record["method"])
                if key not in seen:
                    seen.add(key)
                    yield record


def _parsed(line: bytes, path: Path, number: int) -> Record:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"Expected a record in line {number} of {str(path)!r}, but it is damaged: {error}.") from error
    if not isinstance(record, dict) or not {"index", "method", "error"} <= record.keys():
        raise ValueError(f"Expected a record in line {number} of {str(path)!r}, but got {line[:60]!r}.")
    return record


def read_records(run: Path, *, curves: bool = True) -> list[Record]:
    """Reads the records of a run.

    Args:
        run (Path): The run's folder.
        curves (bool): Keep the curves, which are most of a record. Default: True.

    Returns:
        list of dict: In the order of the images, and of the configuration's methods; each image and method once.

    Raises:
        ValueError: If there is no run, or a line is damaged.
    """
    place = {method: number for number, method in enumerate(read_configuration(run)["asked"]["methods"])}
    records = []
    for record in iterate_records(run):
        if not curves:
            record.pop("curves", None)
        records.append(record)
    return sorted(records, key=lambda record: (record["index"], place.get(record["method"], -1)))


def remove_failures(run: Path) -> None:
    """Takes the records with an error out of a run, so that they are done again.

    Raises:
        OSError: If a file can't be written; its records are as they were.
    """
    for path in sorted((run / RECORDS).glob("rank-*.jsonl")):
        whole = path.read_bytes()[: _length_of_whole_lines(path)]
        numbered = enumerate(whole.splitlines(keepends=True), 1)
        kept = [line for number, line in numbered if _parsed(line, path, number)["error"] is None]
        write_durably(path, b"".join(kept))
