"""The records of a run against its plan: what is left to do, and that nothing is lost or of another image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from captum_scorecam.evaluation.plan import Plan
from captum_scorecam.evaluation.record_files import REPEAT, iterate_records, missing_methods
from captum_scorecam.evaluation.records import Record
from captum_scorecam.evaluation.settings import CONFIGURATION

Todo: TypeAlias = dict[int, tuple[str, ...]]


def left_to_do(plan: Plan, folder: Path, *, retry_errors: bool = False) -> Todo:
    """Returns the methods still to run on each unfinished image of a plan; all methods if the folder has no run."""
    records = iterate_records(folder, curves=False) if (folder / CONFIGURATION).exists() else ()
    return _missing(plan, (record for record in records if not (retry_errors and record.failures)))


def _missing(plan: Plan, records: Iterable[Record]) -> Todo:
    methods = tuple(plan.methods)
    missing = missing_methods(_planned(plan, records), methods)
    todo = {index: missing.get(index, methods) for index in plan.indices}
    return {index: methods for index, methods in todo.items() if methods}


def _planned(plan: Plan, records: Iterable[Record]) -> Iterator[Record]:
    """Yields records after checking that each is of an image of the plan."""
    indices = {*plan.indices}
    for record in records:
        index = record.index
        if index not in indices:
            raise ValueError(f"Expected records of planned images only, but `folder` has one of image {index}.")
        if record.image != plan.dataset.name(index):
            raise ValueError(
                f"Expected records of planned images only, but `folder` has one of image {index} named "
                f"{record.image!r}, which is {plan.dataset.name(index)!r} in the data set."
            )
        yield record


def check_complete(plan: Plan, folder: Path, records: Sequence[Record]) -> None:
    """Checks that no record was lost after it had been written."""
    if lost := _missing(plan, records):
        raise OSError(
            f"Expected records of all {len(plan.indices)} images in {str(folder)!r}, but those of {len(lost)} images "
            f"were removed while the evaluation ran. {REPEAT}"
        )
