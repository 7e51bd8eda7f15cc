"""Runs that are killed, and runs of several processes: their records are those of an undisturbed run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import captum_scorecam
from captum_scorecam.command_line.app import commands
from captum_scorecam.evaluation import read_records
from tests.support.tiny_classifier import write_folder

ROOT = Path(captum_scorecam.__file__).parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

# A metric whose second image kills rank 1 if the environment says so.
PLUGIN = """
import os
from captum_scorecam.evaluation import Metric, MetricResult, register_metric

seen = set()

def compute(metric_input):
    seen.add(metric_input.request.inputs.sum().item())
    if len(seen) > 1 and os.environ.get("RANK") == "1" and "KILL_RANK_1" in os.environ:
        os.kill(os.getpid(), 9)
    return MetricResult(0.0)

register_metric(Metric("deadly", "Deadly", True, compute))
"""


def pictures(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "gallery").iterdir()}


def assert_same(run: Path, undisturbed: Path) -> None:
    records = read_records(undisturbed)
    assert len(records) > 0
    assert all(record.error is None for record in records)
    assert read_records(run) == records
    assert pictures(run) == pictures(undisturbed)
    for name in ("summary.json", "summary.csv"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()


@pytest.mark.slow
def test_a_run_that_is_killed_ten_times_has_the_records_of_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.killed_runs", str(tmp_path), "10", "0"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    counts = [int(line) for line in done.stdout.splitlines()]
    assert counts == sorted(counts)
    assert len({count for count in counts if 0 < count < 36}) >= 3  # several were killed in the middle
    assert_same(tmp_path / "killed", tmp_path / "undisturbed")


@pytest.mark.slow
def test_two_processes_and_one_after_a_dead_rank_have_the_records_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "data", 8)
    (tmp_path / "deadly.py").write_text(PLUGIN)

    monkeypatch.chdir(tmp_path)
    arguments = ["evaluate", "data", "--model", "tests.support.tiny_classifier:tiny", "--n-masks", "20"]
    arguments += ["--method", "score_cam", "--method", "rise", "--perturbations-per-eval", "4"]
    arguments += ["--plugin", "deadly", "--metric", "mosaic_pointing_game", "--metric", "deadly"]

    def by_one(run: str) -> Result:
        return CliRunner().invoke(commands, [*arguments, "--output", run])

    def by_two(run: str, **environment: str) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command = [*launcher, "-m", "captum_scorecam", *arguments, "--output", run]
        full = ENVIRONMENT | environment
        return subprocess.run(command, env=full, capture_output=True, text=True, timeout=120, check=False)

    result = by_one("one")
    assert result.exit_code == 0, result.output
    done = by_two("two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run: two") == 1  # rank 0 alone prints the summary
    assert len((tmp_path / "two" / "records" / "rank-001.jsonl").read_bytes().splitlines()) == 8
    assert_same(tmp_path / "two", tmp_path / "one")
    assert by_two("resumed", KILL_RANK_1="yes").returncode != 0
    assert not (tmp_path / "resumed" / "summary.json").exists()
    assert len(read_records(tmp_path / "resumed")) < 16
    result = by_one("resumed")
    assert result.exit_code == 0, result.output
    assert_same(tmp_path / "resumed", tmp_path / "one")
