"""The examples of the guide's page on results elsewhere, with stand-ins for the services that they log to."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from unittest.mock import MagicMock

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from captum_scorecam.evaluation import export_run, write_report
from captum_scorecam.models import load_classifier
from tests.support.tiny_classifier import Pictures
from tests.support.tiny_evaluation import OPTIONS, evaluate

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "using_results.rst").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its Parquet file and its report."""
    found = tmp_path_factory.mktemp("folder")
    classifier = load_classifier("tests.support.tiny_classifier:tiny")
    methods, metrics = ["grad_cam", "score_cam"], ["average_drop", "deletion"]
    evaluate(classifier, Pictures(3), found / "run", methods=methods, metrics=metrics, options=OPTIONS)
    export_run(found / "run", "parquet")
    write_report(found / "run")
    return found


def example(heading: str) -> str:
    """The first Python code below a heading."""
    below = PAGE.partition(f"\n{heading}\n")[2]
    (code,) = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", below)[:1]
    return textwrap.dedent(code)


def test_pandas_reads_the_values(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, pd.DataFrame] = {}
    exec(example("pandas"), names)
    plt.close("all")
    assert names["values"].shape[0] == 6
    assert names["wide"].shape == (3, 2)
    assert names["wide"].notna().all(axis=None)


@pytest.mark.parametrize(("module", "heading"), [("wandb", "Weights & Biases"), ("mlflow", "MLflow")])
def test_services_get_the_means(module: str, heading: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    service = MagicMock()
    monkeypatch.setitem(sys.modules, module, service)
    exec(example(heading), {})
    means = pd.read_parquet("run/values.parquet").groupby("method")["average_drop"].mean()
    if module == "wandb":
        calls = service.init.return_value.__enter__.return_value.summary.update.call_args_list
        found = {name: value for call in calls for name, value in call.args[0].items()}
        assert found["score_cam/average_drop"] == pytest.approx(means["score_cam"])
        assert service.Table.call_args.kwargs["dataframe"].shape[0] == 6
    else:
        found = {name: value for call in service.log_metrics.call_args_list for name, value in call.args[0].items()}
        assert found["score_cam.average_drop"] == pytest.approx(means["score_cam"])
        assert service.log_params.call_args.args[0]["methods"] == "['grad_cam', 'score_cam']"
