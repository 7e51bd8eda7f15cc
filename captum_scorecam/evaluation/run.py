"""Runs an evaluation image by image and method by method; each record is on disk before the next one starts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from captum_scorecam._messages import check_whole_number, warn_caller
from captum_scorecam.evaluation.image_evaluation import Outcome, evaluate_image
from captum_scorecam.evaluation.loading import LoadedImages, load_images
from captum_scorecam.evaluation.pictures import GALLERY, write_pictures
from captum_scorecam.evaluation.plan import Plan
from captum_scorecam.evaluation.planned_records import Todo, check_complete, left_to_do
from captum_scorecam.evaluation.ranks import joined_ranks
from captum_scorecam.evaluation.record_files import (
    RECORDS,
    REPEAT,
    TIMES,
    InterferenceError,
    LineFile,
    check_still_there,
    rank_file,
    read_records,
    remove_failures,
)
from captum_scorecam.evaluation.records import MOST_THREADS, RunSettings
from captum_scorecam.evaluation.rows_per_forward import rows_of_run, tuned_rows
from captum_scorecam.evaluation.settings import (
    CONFIGURATION,
    check_same_settings,
    find_versions,
    packages_of,
    read_configuration,
    read_settings,
    warn_of_other_versions,
    write_configuration,
)
from captum_scorecam.evaluation.summary import Summary, summarize, write_summary
from captum_scorecam.evaluation.typed_json import to_json

_UNUSABLE_GPU = r"CUDA error(?!.*(out of memory|ALLOC_FAILED|STATUS_NOT_INITIALIZED))"
_FILES = "image_files_digest"
_KEPT = "Finished records are kept; run the evaluation again to resume."
_NO_CONFIGURATION = "Put it back, and run the evaluation again to resume; without it, the records can't be read."
LOCK_SECONDS = 10  # the workers of a killed DataLoader hold the lock until they notice
OnImage = Callable[[int, int], None]


def run_evaluation(
    plan: Plan,
    folder: Path | str,
    *,
    workers: int = 0,
    threads: int | None = None,
    retry_errors: bool = False,
    on_image: OnImage | None = None,
) -> Summary | None:
    """Runs an evaluation, or resumes an interrupted one, and writes its summary.

    Processes started by ``torchrun`` share the images. So do the ranks of a default process group that the caller has
    initialised: all of them must make this call, since each waits for the others.

    Args:
        plan (Plan): The evaluation, from `plan_evaluation`.
        folder (Path or str): The folder for records, pictures and the summary, created if missing. If it contains a run
            with the same settings, the run is resumed, with its number of masked inputs per forward pass unless the
            plan's options give one.
        workers (int): Number of processes that read images ahead of time. Default: 0, this process reads them.
        threads (int, optional): PyTorch's number of CPU threads, which affects rounding. Default: None, the number of
            the resumed run, or PyTorch's current number.
        retry_errors (bool): Whether to rerun images and methods that failed before, and methods with a failed metric.
            Default: False.
        on_image (callable, optional): Called after each image with the number of finished images and the number of all
            images that this process runs in this call. Default: None.

    Returns:
        Summary: The summary of the whole run; None on all ranks except the first.

    Raises:
        ValueError: If the folder contains a run with different settings or other files, or is used by another process,
            `threads` is not in 1 to 4096, or `workers` is negative.
        RuntimeError: If a GPU becomes unusable, or another rank fails. Finished records are kept.
        OSError: If a file can't be written, or something else removed, replaced or changed files of the run meanwhile.
            The message says what is kept.
    """
    folder, workers = Path(folder), check_whole_number("workers", workers, least=0)
    threads = _threads_of(folder) if threads is None else check_whole_number("threads", threads, 1, MOST_THREADS)
    with joined_ranks() as ranks, _torch_threads(threads), ExitStack() as locks:

        def check() -> None:
            check_folder(folder)
            check_resumable(plan, folder, threads)

        def prepare() -> int:
            _make_folders(folder)
            locks.enter_context(_locked(folder, 0))
            return rows_of_run(plan, folder) or tuned_rows(plan)

        def start() -> tuple[RunSettings, Todo, Mapping[str, str | None]]:
            resumes, versions = (folder / CONFIGURATION).exists(), _versions(plan)
            if resumes:
                check_same_settings(read_settings(folder), settings)
            else:
                write_configuration(folder, settings, versions | {_FILES: plan.digest_of_files()})
            if retry_errors:
                remove_failures(folder)
            todo = left_to_do(plan, folder)
            if resumes:
                _warn_of_changes(plan, folder, versions, with_files=bool(todo))
            return settings, todo, versions

        ranks.from_first(check)  # before the work of making a twin
        plan = plan.with_twin()
        plan = plan.with_rows(ranks.from_first(prepare))
        settings = plan.settings(threads)
        first_settings, todo, versions = ranks.from_first(start)
        if ranks.rank > 0:
            check_same_settings(first_settings, settings)
            warn_of_other_versions(versions, _versions(plan), "The first rank has")
            locks.enter_context(_locked(folder, ranks.rank))
        share = {index: todo[index] for index in ranks.share(list(todo))}
        _run_images(plan, folder, ranks.rank, share, workers, on_image)
        ranks.wait_for_all()
        if ranks.rank > 0:
            return None
        _check_files(folder)
        check_same_settings(read_settings(folder), settings)
        records = read_records(folder, curves=False)
        check_complete(plan, folder, records)
        summary = summarize(records, settings)
        write_summary(summary, folder)
        return summary


def _run_images(plan: Plan, folder: Path, rank: int, todo: Todo, workers: int, on_image: OnImage | None) -> None:
    images = LoadedImages(plan.dataset, list(todo), plan.mosaics, plan.classifier.preprocess)
    pictured = set(plan.indices[: plan.gallery])
    with (
        LineFile(rank_file(folder, RECORDS, rank)) as records,
        LineFile(rank_file(folder, TIMES, rank), durable=False) as times,
    ):
        for number, loaded in enumerate(load_images(images, workers), 1):
            for outcome in evaluate_image(plan, loaded, todo[loaded.index]):
                with _explained_write_errors(records.path):
                    _check_files(folder)
                    if loaded.index in pictured:
                        write_pictures(folder, outcome)
                    records.append(to_json(outcome.record))
                    times.append(to_json(outcome.times))
                _check_device(outcome)
            if on_image is not None:
                on_image(number, len(todo))
        records.check_content()
        times.check_content()


def _check_files(folder: Path) -> None:
    check_still_there(folder, is_folder=True)
    check_still_there(folder / CONFIGURATION, advice=_NO_CONFIGURATION)
    check_still_there(folder / GALLERY, is_folder=True)


@contextmanager
def _explained_write_errors(records: Path) -> Iterator[None]:
    try:
        yield
    except InterferenceError:
        raise
    except OSError as error:
        place = "" if error.filename is None else f": {str(error.filename)!r}"
        problem = str(error) if error.errno is None else f"{error.strerror}{place}"
        raise OSError(f"{problem}. {_KEPT if records.is_file() else REPEAT}") from error


def _check_device(outcome: Outcome) -> None:
    """Stops after an error that leaves the GPU unusable, since all later images would fail too."""
    for _, failure in outcome.record.failures:
        if re.search(_UNUSABLE_GPU, failure.message):
            raise RuntimeError(
                f"The GPU failed on {outcome.record.image!r} (the failure is recorded): {failure.message} "
                "Run the evaluation again to resume with the next image."
            )


def check_folder(folder: Path) -> None:
    """Checks, without writing to it, that a folder is writable, and new, empty or the folder of a run.

    Raises:
        ValueError: If it isn't.
    """
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"Expected `folder` to be a folder, but {str(existing)!r} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"Expected `folder` to be writable, but {str(existing)!r} is not.")
    if folder.is_dir() and not (folder / CONFIGURATION).exists():
        # A run that was killed while it started leaves empty folders and locks.
        known = {RECORDS, TIMES, GALLERY, f".{CONFIGURATION}.unfinished"}
        foreign = {path.name for path in folder.iterdir()} - known
        foreign |= {f"{RECORDS}/{path.name}" for path in (folder / RECORDS).glob("*.jsonl")}
        if foreign:
            raise ValueError(
                f"Expected `folder` to be new, empty or the folder of a run, but {str(folder)!r} contains "
                f"{min(foreign)!r} and no {CONFIGURATION}."
            )


def check_resumable(plan: Plan, folder: Path, threads: int | None = None) -> None:
    """Checks, without writing to it, that a folder has no run, or one that this plan resumes.

    Args:
        plan (Plan): The evaluation.
        folder (Path): The folder, which need not exist.
        threads (int, optional): PyTorch's number of CPU threads. Default: None, that of the run.

    Raises:
        ValueError: If the folder contains a run with different settings, or a damaged configuration.
    """
    rows = rows_of_run(plan, folder)
    if rows is not None and (folder / CONFIGURATION).exists():
        threads = _threads_of(folder) if threads is None else threads
        check_same_settings(read_settings(folder), plan.with_rows(rows).settings(threads))


def _make_folders(folder: Path) -> None:
    for name in (RECORDS, TIMES, GALLERY):
        (folder / name).mkdir(parents=True, exist_ok=True)


def _versions(plan: Plan) -> dict[str, str | None]:
    of_engine = (plan.engine, "onnx", "onnxscript") if plan.engine in ("onnxruntime", "openvino") else ()
    of_metrics = ("quantus",) if any(metric.text is not None for metric in plan.chosen_metrics()) else ()
    has_lime = not {"captum:Lime", "captum:KernelShap"}.isdisjoint(each.base for each in plan.methods.values())
    of_methods = ("scikit-learn",) if has_lime else ()
    return find_versions(plan.device, *packages_of(plan.classifier.model), *of_engine, *of_metrics, *of_methods)


def _warn_of_changes(plan: Plan, folder: Path, now: Mapping[str, str | None], with_files: bool) -> None:
    """Warns if image files, packages or the machine are others than when the run was started.

    Runs of earlier versions do not know all of these.
    """
    before = read_configuration(folder).versions
    if with_files and _FILES in before and before[_FILES] != plan.digest_of_files():
        warn_caller("Image files have changed since the run in this folder was started.")
    compared = before.keys() & now.keys()
    warn_of_other_versions({key: before[key] for key in compared}, {key: now[key] for key in compared})


def _threads_of(folder: Path) -> int:
    """Returns the number of threads of the run in a folder, or PyTorch's current number if there is no run."""
    return read_settings(folder).threads if (folder / CONFIGURATION).exists() else torch.get_num_threads()


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _locked(folder: Path, rank: int) -> Iterator[None]:
    """Prevents other processes from writing a rank's files; the system releases the lock if the process dies."""
    lock = FileLock(rank_file(folder, RECORDS, rank).with_suffix(".lock"))
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise ValueError(f"Expected a `folder` that no other process uses, but {str(folder)!r} is in use.") from error
    try:
        yield
    finally:
        lock.release()
