"""Runs an evaluation: image after image, method after method, each piece on the disk before the next is begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from captum_scorecam.evaluation.image_evaluation import Outcome, evaluate_image
from captum_scorecam.evaluation.loading import LoadedImages, load_images
from captum_scorecam.evaluation.pictures import GALLERY, write_pictures
from captum_scorecam.evaluation.plan import Plan
from captum_scorecam.evaluation.ranks import Ranks, joined_ranks
from captum_scorecam.evaluation.records import RECORDS, LineFile, iterate_records, rank_file, remove_failures
from captum_scorecam.evaluation.settings import (
    CONFIGURATION,
    check_same,
    find_versions,
    read_configuration,
    write_configuration,
)

TIMES = "times"
LOCK_SECONDS = 10  # the workers of a killed DataLoader keep its lock until they notice
OnImage = Callable[[int, int], None]
Todo = dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class _Start:
    """What rank 0 found, and the others go by."""

    asked: Mapping[str, Any]
    todo: Todo


@contextmanager
def running(
    plan: Plan,
    run: Path,
    *,
    workers: int = 0,
    threads: int | None = None,
    retry_errors: bool = False,
    on_image: OnImage | None = None,
) -> Iterator[Ranks]:
    """Runs what is left of a plan, sharing the images with the other ranks if there are any.

    Args:
        plan (Plan): What is evaluated.
        run (Path): The run's folder, which is made, or holds a run with the same configuration.
        workers, threads, retry_errors, on_image: As of `evaluate`.

    Yields:
        Ranks: This process among the others, once all are done; the run is locked until the end of the body.

    Raises:
        ValueError: If the folder holds a run with another configuration, or something else, or is in use.
        OSError: If something can't be written. What is finished is kept.
    """
    with joined_ranks(plan.device) as ranks, ExitStack() as stack:
        n_threads = threads or _threads_of(run) or torch.get_num_threads()
        stack.enter_context(_threads(n_threads))
        asked = plan.asked(n_threads)

        def start() -> _Start:
            _make_folders(run)
            stack.enter_context(_locked(run, 0))
            _begin_or_resume(plan, run, asked)
            if retry_errors:
                remove_failures(run)
            return _Start(asked, left_to_do(plan, run))

        begun = ranks.from_first(start)
        if ranks.rank > 0:
            check_same({"asked": begun.asked, "versions": {}}, asked, {})
            stack.enter_context(_locked(run, ranks.rank))
        share = ranks.share(list(begun.todo))
        _run_images(plan, run, ranks.rank, {index: begun.todo[index] for index in share}, workers, on_image)
        ranks.wait_for_all()
        yield ranks


def left_to_do(plan: Plan, run: Path) -> Todo:
    """Returns the images that are not finished, and the methods that each still lacks."""
    done: dict[int, set[str | None]] = {}
    for record in iterate_records(run):
        done.setdefault(record["index"], set()).add(record["method"])
    todo: Todo = {}
    for index in plan.indices:
        of_image = done.get(index, set())
        missing = tuple(method for method in plan.methods if method not in of_image)
        if missing and None not in of_image:  # a record without a method says that none can be run
            todo[index] = missing
    return todo


def _run_images(plan: Plan, run: Path, rank: int, todo: Todo, workers: int, on_image: OnImage | None) -> None:
    images = LoadedImages(plan.data, list(todo), plan.mosaics, plan.classifier.preprocess)
    pictured = set(plan.indices[: plan.gallery])
    with (
        LineFile(rank_file(run, RECORDS, rank)) as records,
        LineFile(rank_file(run, TIMES, rank), durable=False) as times,
    ):
        for number, loaded in enumerate(load_images(images, workers), 1):
            for outcome in evaluate_image(plan, loaded, todo[loaded.index]):
                with _told_what_is_kept(run):
                    if loaded.index in pictured:
                        write_pictures(run, outcome)
                    records.append(outcome.record)
                    times.append({"index": loaded.index, "method": outcome.record["method"], **outcome.seconds})
                _check_device(outcome)
            if on_image is not None:
                on_image(number, len(todo))


@contextmanager
def _told_what_is_kept(run: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{error.strerror}. What is finished in {str(run)!r} is kept; the same command goes on"
        raise OSError(error.errno, text) from error


def _check_device(outcome: Outcome) -> None:
    """Stops after an error that leaves the GPU unusable, of which every later image would be a victim."""
    error = outcome.record["error"]
    if error is not None and "CUDA error" in error["message"]:
        raise RuntimeError(
            f"The GPU failed on {outcome.record['image']!r}, which is recorded: {error['message']} "
            "The same command goes on with the next image."
        )


def _make_folders(run: Path) -> None:
    if run.is_dir() and not (run / CONFIGURATION).exists():
        foreign = {path.name for path in run.iterdir()} - {RECORDS, TIMES, GALLERY, f".{CONFIGURATION}.unfinished"}
        if foreign:
            raise ValueError(
                f"Expected `--output` to be a new or empty folder, or that of a run, but {str(run)!r} holds "
                f"{sorted(foreign)[0]!r} and no {CONFIGURATION}."
            )
    for folder in (RECORDS, TIMES, GALLERY):
        (run / folder).mkdir(parents=True, exist_ok=True)


def _begin_or_resume(plan: Plan, run: Path, asked: Mapping[str, Any]) -> None:
    versions = find_versions(plan.device)
    if (run / CONFIGURATION).exists():
        check_same(read_configuration(run), asked, versions)
    else:
        write_configuration(run, asked, versions)


def _threads_of(run: Path) -> int | None:
    """Returns the number of threads of the run that is resumed, on which roundings depend; None for a new run."""
    return read_configuration(run)["asked"].get("threads") if (run / CONFIGURATION).exists() else None


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _locked(run: Path, rank: int) -> Iterator[None]:
    """Keeps other processes from writing a rank's files; the system takes the lock off when the process dies."""
    lock = FileLock(rank_file(run, RECORDS, rank).with_suffix(".lock"))
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise ValueError(f"Expected `--output` that no other process works on, but {str(run)!r} is in use.") from error
    try:
        yield
    finally:
        lock.release()
