"""The recorded study: its tables are the means of its values, and its commands run."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import pytest
from PIL import Image

from captum_scorecam.evaluation import METHODS, METRICS, Record
from captum_scorecam.evaluation.presentation import method_title
from captum_scorecam.evaluation.report.exports import _table
from tests.support.evaluation_run import RUN_SETTINGS
from tests.support.tiny_classifier import picture

RESULTS = Path(__file__).parents[2] / "docs" / "results"
TABLES = sorted(RESULTS.glob("*.md"))
PAGE = (RESULTS.parent / "metrics" / "what_we_measured.rst").read_text(encoding="utf-8")
FIRST_METRIC = 14  # of the columns


def plain(cell: str) -> str:
    return re.sub(r"[\\*]", "", cell).strip().replace("−", "-")


def title(text: str) -> str:
    """A method's name or title, as LayerCAM and layer_cam: titles of the study's plugin are not known here."""
    return plain(text).lower().replace("_", "")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_table_has_the_means_of_the_values(path: Path) -> None:
    with path.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    values: dict[str, list[list[str]]] = defaultdict(list)
    for row in rows:
        values[title(method_title(row[2]))].append(row[FIRST_METRIC:])
    lines = [line.strip("| ").split("|") for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert [title(line[0]) for line in lines[2:]] == list(values)
    for line in lines[2:]:
        columns = zip(*values[title(line[0])], strict=True)
        for metric, cell, column in zip(header[FIRST_METRIC:], line[1:], columns, strict=True):
            defined = [float(value) for value in column if value]
            mean = plain(cell).split(" ")[0]
            digits = len(mean.partition(".")[2])
            assert float(mean) == pytest.approx(fmean(defined), abs=0.501 * 10**-digits), (line[0], metric)
    images = {row[0] for row in rows}
    assert f"means over {len(images)} images" in path.read_text(encoding="utf-8")
    assert {len(of_method) for of_method in values.values()} == {len(images)}


def written(path: Path) -> Iterator[Record]:
    """The records behind a file of values, without curves."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield Record(
                image=row["image"],
                index=int(row["index"]),
                method=row["method"],
                error=None,
                target=int(row["target"]),
                target_name=row["target_name"],
                probability=float(row["probability"]),
                forwards=int(row["forwards"]),
                values={name: float(row[name]) if row[name] else None for name in list(row)[FIRST_METRIC:]},
            )


@pytest.mark.slow
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_intervals_and_bold_are_those_of_the_values(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    records = list(written(path.with_suffix(".csv")))
    of_images = {record.index for record in records}
    model = re.search(r"^(\S+), layer", text, re.MULTILINE)
    assert model is not None
    settings = replace(
        RUN_SETTINGS,
        model=plain(model.group(1)),
        methods=tuple(dict.fromkeys(record.method for record in records if record.method)),
        metrics=tuple(records[0].values),
        images=int(re.findall(r"of (\d+) images\.", text)[0]) if "Not finished" in text else len(of_images),
    )
    with patch.dict(METHODS), patch.dict(METRICS):
        runpy.run_path(str(RESULTS / "study_methods.py"))
        assert _table(records, settings, "markdown") == text


def test_every_table_is_on_the_page() -> None:
    assert len(TABLES) > 4
    assert sorted(re.findall(r"include:: /results/(\S+\.md)", PAGE)) == [path.name for path in TABLES]


def test_the_guide_has_the_false_verdicts_that_were_measured() -> None:
    guide = (RESULTS.parent / "guide" / "evaluating.rst").read_text(encoding="utf-8")
    measured = (RESULTS.parents[1] / "benchmarks" / "results" / "false_verdicts.json").read_text(encoding="utf-8")
    kinds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for row in json.loads(measured)["rows"]:
        kinds[row["differences"]].append(row)
    for kind, rows in kinds.items():
        columns = ([row[name] for row in rows] for name in ("here", "percentile", "BCa", "studentised", "t"))
        cells = (", ".join(f"{value:.{value < 1:d}f}" for value in column) for column in columns)
        assert "".join((f"   * - {kind}\n", *(f"     - {cell}\n" for cell in cells))) in guide


@pytest.mark.slow
@pytest.mark.parametrize("part", ["main", "masked", "mosaics", "randomised"])
def test_commands_run(part: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for index in range(4):
        image, _ = picture(index)
        image.resize((80, 80), Image.Resampling.NEAREST).save(tmp_path / "photos" / f"{index}.png")
    labels = "".join(f"{index}.png,{index}\n" for index in range(4))
    (tmp_path / "photos" / "labels.csv").write_text(f"file,class_index\n{labels}", encoding="utf-8")
    command = ["bash", str(RESULTS / "study.sh"), "tests.support.tiny_classifier:tiny_of_large_images"]
    command += [str(tmp_path / "photos"), str(tmp_path / "run"), part]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stdout
