"""Exports of a run: what a paper's table, a spreadsheet and a data frame get."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet
import pytest
from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexMacroNode, LatexSpecialsNode, LatexWalker

from captum_scorecam import evaluation
from captum_scorecam.evaluation import (
    ExplanationRequest,
    Failure,
    Method,
    Metric,
    MetricResult,
    Record,
    export_run,
    read_records,
    read_settings,
    register_method,
    register_metric,
)
from captum_scorecam.evaluation.mean_curves import MeanCurve
from captum_scorecam.evaluation.report.curves import draw_curves, make_charts
from captum_scorecam.evaluation.report.exports import _table
from captum_scorecam.evaluation.report.tables import means_table
from captum_scorecam.evaluation.summary import summarize
from captum_scorecam.models import Classifier
from tests.support.command_line import invoke
from tests.support.run_records import SETTINGS
from tests.support.run_records import record as record_of
from tests.support.tiny_classifier import Pictures
from tests.support.tiny_evaluation import OPTIONS, evaluate

METHODS = ["grad_cam", "small=score_cam:max_forwards=2", "score_cam"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from captum_scorecam.models import load_classifier

    folder = tmp_path_factory.mktemp("run")
    classifier = load_classifier("tests.support.tiny_classifier:tiny")
    metrics = ["average_drop", "deletion", "sparseness"]
    evaluate(classifier, Pictures(12), folder, methods=METHODS, metrics=metrics, options=OPTIONS)
    return folder


def test_the_latex_table_has_a_cell_for_each_mean(run: Path) -> None:
    text = export_run(run, "latex").read_text(encoding="utf-8")
    columns, rows = tabular_of(text)
    assert columns == "{lrrr}"
    metrics = [r"Average drop, \% $\downarrow$", r"Deletion, AUC $\downarrow$", r"Sparseness $\uparrow$"]
    assert rows[0] == ["Method", *metrics]
    assert [row[0] for row in rows[1:]] == ["Grad-CAM", "small", "Score-CAM"]
    mean, interval = r"(\\textbf\{[\d.]+\}|[\d.]+)", r" \{\\scriptsize \[[\d.]+, [\d.]+\]\}"
    assert all(re.fullmatch(f"{mean}({interval})?", cell) for row in rows[1:] for cell in row[1:])
    assert re.fullmatch(mean + interval, rows[1][2])
    assert text.startswith("% Needs \\usepackage{adjustbox,booktabs}.\n\\begin{table}\n  \\centering\n")


def table_of(latex: str) -> Any:
    """The table as a parser of LaTeX reads it, which fails where a group, environment or formula is not closed."""
    nodes, _, _ = LatexWalker(latex, tolerant_parsing=False).get_latex_nodes()
    (table,) = (node for node in nodes if node.isNodeType(LatexEnvironmentNode))
    assert table.environmentname == "table"
    return table


def tabular_of(latex: str) -> tuple[str, list[list[str]]]:
    """The columns of the table, and the cells of each row between its rules."""
    tabular = table_of(latex)
    for name in ("adjustbox", "tabular"):
        (tabular,) = (node for node in tabular.nodelist if node.isNodeType(LatexEnvironmentNode))
        assert tabular.environmentname == name
    rows, rules = [[""]], []
    for node in tabular.nodelist:
        name = node.macroname if node.isNodeType(LatexMacroNode) else ""
        if name == "\\":
            rows.append([""])
        elif name.endswith("rule"):
            rules.append((name, len(rows) - 1))
        elif node.isNodeType(LatexSpecialsNode) and node.specials_chars == "&":
            rows[-1].append("")
        else:
            rows[-1][-1] += node.latex_verbatim()
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells.pop() == [""]  # the last row is ended, too
    assert {len(row) for row in cells} == {len(cells[0])}
    assert rules == [("toprule", 0), ("midrule", 1), ("bottomrule", len(cells))]
    return tabular.nodeargd.argnlist[-1].latex_verbatim(), cells


def caption_of(latex: str) -> str:
    """The caption as LaTeX shows it."""
    known = get_default_latex_context_db()
    shown = {"textbar": "|", "textless": "<", "textgreater": ">", "textasciicircum": "^", "texttt": "%s"}
    known.add_context_category("table", [MacroTextSpec(*macro) for macro in shown.items()], prepend=True)
    nodes = table_of(latex).nodelist
    (number,) = (i for i, node in enumerate(nodes) if node.isNodeType(LatexMacroNode) and node.macroname == "caption")
    return " ".join(LatexNodes2Text(known).nodelist_to_text([nodes[number + 1]]).split())


def test_text_of_the_run_is_escaped(run: Path) -> None:
    settings = replace(read_settings(run), model="a_b & {c} 100% \\x | *d*\n%~^<>$#", layer="features.0")
    records = read_records(run, curves=False)
    latex, markdown = _table(records, settings, "latex"), _table(records, settings, "markdown")
    assert caption_of(latex).startswith(r"a_b & {c} 100% \x | *d* %~^<>$#, layer features.0: means over 12 images")
    assert r"a\_b \& \{c\} 100% \\x \| \*d\* %\~^\<\>\$\#, layer `features.0`" in markdown


def test_the_markdown_table_has_a_row_for_each_method(run: Path) -> None:
    lines = export_run(run, "markdown").read_text(encoding="utf-8").splitlines()
    assert [line.count("|") for line in lines[:5]] == [5] * 5
    assert lines[0] == "| Method | Average drop, % ↓ | Deletion, AUC ↓ | Sparseness ↑ |"
    assert lines[1] == "|---|---:|---:|---:|"
    assert lines[5] == ""
    assert "means over 12 images with 95 % intervals" in lines[6]


def test_bold_marks_the_leading_methods(run: Path) -> None:
    leading = summarize(read_records(run), read_settings(run)).leading
    assert any(leading.values())
    formats: tuple[Any, ...] = ("latex", "markdown")
    latex, markdown = (export_run(run, each).read_text(encoding="utf-8") for each in formats)
    n_leading = sum(map(len, leading.values()))
    assert latex.count(r"\textbf{") == n_leading
    assert markdown.count("**") == 2 * n_leading
    assert "Bold: the best mean of a metric" in latex
    assert "Bold: the best mean of a metric" in markdown


def test_the_values_of_each_image_come_back_from_csv_and_parquet(run: Path) -> None:
    records = read_records(run)
    with export_run(run, "csv").open(newline="") as file:
        from_csv = list(csv.DictReader(file))
    from_parquet = pyarrow.parquet.read_table(export_run(run, "parquet")).to_pylist()
    assert len(from_csv) == len(from_parquet) == len(records) == 36
    for record, text, row in zip(records, from_csv, from_parquet, strict=True):
        assert (row["index"], row["method"], row["image"]) == (record.index, record.method, record.image)
        assert (row["target"], row["label"], row["correct"]) == (record.target, record.label, record.correct)
        assert row["error"] is None
        assert row["seconds"] > 0
        for name, value in record.values.items():
            assert row[name] == value
            assert text[name] == ("" if value is None else repr(value))
        assert text["map_error"] == ("" if record.map_error is None else repr(record.map_error))


def test_failures_and_formulas_are_plain_text(classifier: Classifier, tmp_path: Path) -> None:
    from captum_scorecam.evaluation.report.exports import _csv, _values

    evaluate(classifier, Pictures(1), tmp_path, methods=["grad_cam"], metrics=["average_drop"], options=OPTIONS)
    failed = Record("=1+1", 0, None, Failure("OSError", "truncated", "image"))
    rows = list(_values([failed], read_settings(tmp_path), tmp_path))
    assert rows[0]["error"] == "OSError: truncated"
    assert rows[0]["average_drop"] is None
    assert b"'=1+1,0,,OSError: truncated," in _csv(rows, read_settings(tmp_path))


def test_curves_are_drawn_as_svg_and_pdf(run: Path) -> None:
    svg = export_run(run, "svg")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    pdf = export_run(run, "pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert pdf == export_run(run, "pdf").read_bytes()
    assert svg.read_bytes() == export_run(run, "svg").read_bytes()


def test_charts_share_a_legend_and_a_metric_without_labels_has_its_title() -> None:
    curves = {name: MeanCurve((0.0, 1.0), [3.0, 0.0], 3) for name in ("grad_cam", "score_cam")}
    metrics = ("deletion", "srg", "of_a_plugin")
    svg = draw_curves(dict.fromkeys(metrics, curves), ("grad_cam", "score_cam"), metrics, "svg").decode()
    texts = Counter(re.findall("<!-- (.*) -->", svg))  # beside its outlines, each text is a comment
    assert {texts[name] for name in ("Grad-CAM", "Score-CAM", "Deletion: class score", "of_a_plugin")} == {1}
    assert texts["SRG: LeRF − MoRF"] == 1
    assert texts["Share of pixels deleted"] == texts["Share of pixels removed"] == 1


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (3, 3), (5, 3)])
def test_at_most_three_charts_are_side_by_side(n: int, columns: int) -> None:
    metrics = tuple(f"metric_{index}" for index in range(n))
    curves = {"grad_cam": MeanCurve((0.0, 1.0), [3.0, 0.0], 3)}
    svg = draw_curves(dict.fromkeys(metrics, curves), ("grad_cam",), metrics, "svg").decode()
    width = ElementTree.fromstring(svg).get("width")
    assert width == f"{72 * 4.2 * columns:.1f}pt".replace(".0pt", "pt")
    assert svg.count("<!-- n = 3 -->") == n


def test_methods_whose_shortened_names_are_equal_are_in_the_legend() -> None:
    methods = ("a" * 50, f"{'a' * 49}b")
    curves = {name: MeanCurve((0.0, 1.0), [3.0, 0.0], n) for name, n in zip(methods, (3, 20), strict=True)}
    svg = draw_curves({"deletion": curves}, methods, ("deletion",), "svg").decode()
    texts = re.findall("<!-- (.*) -->", svg)
    assert texts.count(f"{'a' * 23}…") == 2
    assert "n = 3 to 20" in texts


def test_the_curves_of_a_plugins_metric_have_its_labels() -> None:
    axes = ("Share of pixels kept\0", "Log-odds")  # no XML can have the zero
    register_metric(Metric("odds", "Odds, AUC", True, lambda _: MetricResult(0.0), axes=axes))
    curves = {"odds": {"grad_cam": MeanCurve((0.0, 1.0), [3.0, 0.0], 3)}}
    svg = draw_curves(curves, ("grad_cam",), ("odds",), "svg").decode()
    assert {"Share of pixels kept\ufffd", "Odds: log-odds"} <= {*re.findall("<!-- (.*) -->", svg)}
    (chart,) = make_charts(curves, ("grad_cam",), ("odds",))
    assert "Share of pixels kept" in chart.svg
    assert "Log-odds" in chart.svg


def test_a_title_with_several_commas_is_the_same_in_charts_and_tables() -> None:
    register_metric(Metric("drop", "Drop, top half, %", False, lambda _: MetricResult(0.0)))
    records = [record_of(index, "grad_cam", {"drop": 0.5}) for index in range(3)]
    summary = summarize(records, replace(SETTINGS, methods=("grad_cam",), metrics=("drop",)))
    (column,) = means_table(summary).columns
    curves = {"drop": {"grad_cam": MeanCurve((0.0, 1.0), [3.0, 0.0], 3)}}
    (chart,) = make_charts(curves, ("grad_cam",), ("drop",))
    svg = draw_curves(curves, ("grad_cam",), ("drop",), "svg").decode()
    assert (column.title, column.unit) == (chart.title, "%") == ("Drop, top half", "%")
    assert "Drop, top half" in re.findall("<!-- (.*) -->", svg)


def test_a_run_without_curves_or_records_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(1), tmp_path, methods=["grad_cam"], metrics=["average_drop"], options=OPTIONS)
    with pytest.raises(ValueError, match="Expected a run of metrics with curves, but got average_drop"):
        export_run(tmp_path, "pdf")
    with pytest.raises(ValueError, match=r"Expected `file_format` to be 'latex', .* but got 'docx'"):
        export_run(tmp_path, "docx")  # type: ignore[arg-type]
    (tmp_path / "records" / "rank-000.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Expected a run with records, but .* has none yet"):
        export_run(tmp_path, "csv")


@pytest.mark.parametrize("name", ["latex", "markdown", "csv", "parquet", "svg", "pdf", "html"])
def test_the_command_writes_each_format(run: Path, name: str) -> None:
    result = invoke("report", str(run), "--format", name)
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.split(": ", 1)[1].strip()).stat().st_size > 100


def test_the_command_refuses_other_suffixes_and_a_reference(run: Path, tmp_path: Path) -> None:
    result = invoke("report", str(run), "--format", "latex", "--output", str(tmp_path / "t.html"))
    assert (result.exit_code, "Expected `--output` to end in .tex" in result.stderr) == (2, True)
    result = invoke("report", str(run), "--format", "csv", "--reference", "grad_cam")
    assert (result.exit_code, "Expected no `--reference` with this format" in result.stderr) == (2, True)


def test_tables_say_which_means_are_of_fewer_images(run: Path, classifier: Classifier, tmp_path: Path) -> None:
    def failing(request: ExplanationRequest) -> Any:
        if float(request.inputs.sum()) > threshold:
            raise RuntimeError("too bright")
        return evaluation.METHODS["grad_cam"].explain(request)

    sums = sorted(float(classifier.inputs(Pictures(12)[index].image).sum()) for index in range(12))
    threshold = sums[8]
    register_method("failing", Method(failing))
    folder = tmp_path / "run"
    metrics = ["average_drop", "sparseness"]
    evaluate(classifier, Pictures(12), folder, methods=["failing", "grad_cam"], metrics=metrics, options=OPTIONS)
    notes = ["Failures, which are left out: 3.", "Average drop, %: n 9–12.", "Sparseness: n 9–12."]
    assert export_run(folder, "markdown").read_text(encoding="utf-8").splitlines()[-3:] == notes
    latex = export_run(folder, "latex").read_text(encoding="utf-8")
    assert "Average drop, %: n 9–12. Sparseness: n 9–12." in caption_of(latex)
    assert "n 12" not in export_run(run, "markdown").read_text(encoding="utf-8")
    assert "Not finished" not in export_run(folder, "markdown").read_text(encoding="utf-8")
    records = read_records(run, curves=False)
    failed = replace(records[0], method=None, values={}, error=Failure("E", "", "image"))
    unread = [replace(failed, index=index) for index in (12, 13)]
    settings = replace(read_settings(run), images=14)
    assert "Not finished" not in _table([*records, *unread], settings, "markdown")
    settings = replace(settings, images=20)
    assert "Not finished: 12 of 20 images." in _table(read_records(run, curves=False), settings, "markdown")


def test_a_title_that_begins_with_a_bracket_is_no_option_of_the_line_before(run: Path) -> None:
    register_method("bracket", Method(evaluation.METHODS["grad_cam"].explain, title="[a] < b"))
    settings = replace(read_settings(run), methods=("bracket",))
    records = [replace(record, method="bracket") for record in read_records(run) if record.method == "grad_cam"]
    _, rows = tabular_of(_table(records, settings, "latex"))
    assert rows[1][0] == r"{}[a] \textless{} b"


def test_the_seconds_are_of_the_attempt_that_succeeded(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    of_first = (folder / "times" / "rank-000.jsonl").read_text(encoding="utf-8").splitlines()[0]
    failed = {**json.loads(of_first), "attribution": None, "metrics": {}}
    (folder / "times" / "rank-001.jsonl").write_text(f"{json.dumps(failed)}\n")
    with export_run(folder, "csv").open(encoding="utf-8") as file:
        assert all(float(row["seconds"]) > 0 for row in csv.DictReader(file))


def test_an_export_does_not_replace_a_file_of_a_run(run: Path) -> None:
    before = (run / "configuration.json").read_bytes()
    with pytest.raises(ValueError, match=r"Expected `output` to end in \.csv, but got .*configuration\.json"):
        export_run(run, "csv", run / "configuration.json")
    assert (run / "configuration.json").read_bytes() == before


def test_an_export_does_not_replace_the_summary(run: Path) -> None:
    before = (run / "summary.csv").read_bytes()
    with pytest.raises(ValueError, match="Expected `output` to be another file than the summary of a run, but got"):
        export_run(run, "csv", run / "summary.csv")
    assert (run / "summary.csv").read_bytes() == before
