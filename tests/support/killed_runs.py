"""Runs one evaluation undisturbed, and one that is killed at random moments and resumed each time.

Not a test but a separate process, since it forks: ``python -m tests.support.killed_runs FOLDER KILLS SEED``.
It prints the number of records after each kill.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from captum_scorecam.evaluation import MethodOptions, plan_evaluation, read_records, run_evaluation
from captum_scorecam.models import load_classifier
from tests.support.tiny_classifier import Pictures

METHODS = ("grad_cam", "score_cam", "rise")
METRICS = ("average_drop", "insertion", "mosaic_pointing_game")
IMAGES = 12


def start(run: Path) -> int:
    """Starts or resumes the run in a separate process and returns its process id."""
    child = os.fork()
    if child > 0:
        return child
    classifier = load_classifier("tests.support.tiny_classifier:tiny")
    options = MethodOptions(n_masks=60, perturbations_per_eval=4)
    plan = plan_evaluation(classifier, Pictures(IMAGES), methods=METHODS, metrics=METRICS, options=options)
    run_evaluation(plan, run)
    os._exit(0)


def seconds_of_a_whole_run(run: Path) -> float:
    begun = time.monotonic()
    assert os.waitpid(start(run), 0)[1] == 0
    return time.monotonic() - begun


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    seconds = seconds_of_a_whole_run(folder / "undisturbed")
    moments = random.Random(seed)
    for _ in range(kills):
        child = start(folder / "killed")
        time.sleep(moments.uniform(0, 2 * seconds / kills))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        begun = (folder / "killed" / "configuration.json").exists()
        print(len(read_records(folder / "killed")) if begun else 0, flush=True)
    seconds_of_a_whole_run(folder / "killed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
