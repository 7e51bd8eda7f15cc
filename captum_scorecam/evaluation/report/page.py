"""The report of a run: one self-contained HTML file with tables, curves and a gallery."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from captum_scorecam._messages import warn_caller
from captum_scorecam._palette import CURVE_COLORS, MAP_COLORS
from captum_scorecam.evaluation.durable_files import write_durably
from captum_scorecam.evaluation.mean_curves import mean_curves
from captum_scorecam.evaluation.presentation import (
    budget_texts,
    decimals,
    method_title,
    metric_title,
    number_text,
    title_and_unit,
    unmarked_text,
)
from captum_scorecam.evaluation.record_files import iterate_records, read_records, unfinished_images
from captum_scorecam.evaluation.records import Configuration, Record, Stage
from captum_scorecam.evaluation.report.curves import make_charts
from captum_scorecam.evaluation.report.gallery import (
    COMPARED_SIZE,
    MAP_SIZE,
    PICTURE_SIZE,
    Gallery,
    GalleryImage,
    make_gallery,
)
from captum_scorecam.evaluation.report.tables import class_tables, differences_table, means_table
from captum_scorecam.evaluation.settings import compared_settings, read_configuration
from captum_scorecam.evaluation.statistics import FEWEST_RESAMPLED, FEWEST_TESTED, MOST_RESAMPLED, RESAMPLES
from captum_scorecam.evaluation.summary import Summary, summarize

MOST_ERRORS = 200
MOST_NAMES = 5
COLOR_STOPS = 17
_TEMPLATES = "templates"
_STAGES: dict[Stage, str] = {
    "image": "reading the image",
    "label": "finding the label",
    "method": "explaining",
    "metric": "computing the metric",
}


def write_report(run: Path | str, output: Path | str | None = None, reference: str | None = None) -> Path:
    """Writes the report of a run, finished or not.

    The page makes no network requests, and all text from the run is escaped. Pictures that are missing or damaged are
    left out; the page and a warning name them.

    Args:
        run (Path or str): The run's folder.
        output (Path or str, optional): The file to write. Default: None, ``report.html`` in the run's folder.
        reference (str, optional): The method that the others are compared to. Default: None, as in `summarize`.

    Returns:
        Path: The file.

    Raises:
        ValueError: If there is no run, it has no records yet, `reference` is not one of its methods, or `output` is not
            an .html file in an existing folder.
        OSError: If the file can't be written; an existing file is unchanged.
    """
    run = Path(run)
    output = run / "report.html" if output is None else Path(output)
    configuration = read_configuration(run)
    _check_output(output)
    records = read_records(run, curves=False)
    if not records:
        raise ValueError(f"Expected a run with records, but {str(run)!r} has none yet.")
    summary = summarize(records, configuration.settings, reference)
    gallery = make_gallery(run, records, configuration.settings)
    if text := _left_out(gallery):
        warn_caller(text)
    page = render_report(run, configuration, records, summary, gallery)
    write_durably(output, page.encode(errors="replace"))  # file names need not be valid Unicode
    return output


def _check_output(path: Path) -> None:
    """Checks that the page replaces neither a file of a run nor an image."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"Expected `output` to end in .html, but got {str(path)!r}.")
    if not path.parent.is_dir():
        raise ValueError(f"Expected `output` to be in a folder that exists, but there is no {str(path.parent)!r}.")


def render_report(
    run: Path, configuration: Configuration, records: Sequence[Record], summary: Summary, gallery: Gallery
) -> str:
    """Renders the report; its curves are read from the run's folder."""
    environment = Environment(
        loader=PackageLoader(__package__, _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        **_run_context(configuration, records),
        **_results_context(summary),
        **_gallery_context(gallery, summary),
        **_script_context(),
        charts=make_charts(mean_curves(iterate_records(run)), summary.methods, summary.metrics),
        curve_colors=CURVE_COLORS,
        number_text=number_text,
    )


def _run_context(configuration: Configuration, records: Sequence[Record]) -> dict[str, Any]:
    settings = configuration.settings
    return {
        "settings": compared_settings(settings) | {"command": settings.command},
        "versions": configuration.versions,
        "data_name": _data_name(settings.data),
        "accuracy": _accuracy(records),
        "unfinished": unfinished_images(records, settings),
    }


def _results_context(summary: Summary) -> dict[str, Any]:
    return {
        "summary": summary,
        "method_titles": [method_title(method) for method in summary.methods],
        "reference": method_title(summary.reference),
        "resamples": RESAMPLES,
        "resampled": FEWEST_RESAMPLED <= summary.overall.images <= MOST_RESAMPLED,
        "fewest_tested": FEWEST_TESTED,
        "tests": summary.tests,
        "means": means_table(summary),
        "unmarked": unmarked_text(summary.metrics),
        "has_leading": any(summary.leading.values()),
        "differences": differences_table(summary),
        "class_tables": class_tables(summary),
        "budgets": budget_texts(summary),
        "errors": _errors(summary),
    }


def _gallery_context(gallery: Gallery, summary: Summary) -> dict[str, Any]:
    images = gallery.images
    return {
        "left_out": _left_out(gallery),
        "images": images,
        "kilobytes": _kilobytes(images),
        "metrics": _gallery_metrics(summary, images),
        "gallery_data": _gallery_data(summary, images),
        "compared_size": COMPARED_SIZE,
        "picture_size": PICTURE_SIZE,
        "map_size": MAP_SIZE,
        "map_colors": _map_colors(),
    }


def _script_context() -> dict[str, Any]:
    script = (files(__package__) / _TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"script": Markup(script), "script_digest": digest}


def _data_name(path: str | None) -> str:
    """Returns a short name for a data set: the last part of a folder's path, the last two of a file's path."""
    if not path:
        return "a data set"
    parts = [part for part in re.split(r"[/\\]", path) if part] or [path]
    return "/".join(parts[-2:] if "." in parts[-1] else parts[-1:])


def _accuracy(records: Sequence[Record]) -> tuple[int, int] | None:
    """Returns how many images are predicted correctly, and how many have a label."""
    correct = {record.index: record.correct for record in records if record.error is None}
    known = [value for value in correct.values() if value is not None]
    return (sum(known), len(known)) if known else None


def _kilobytes(images: Sequence[GalleryImage]) -> int:
    """Returns the mean size of an image with its maps in the page."""
    sizes = [len(image.picture) + sum(len(tile.source or "") for tile in image.tiles) for image in images]
    return round(sum(sizes) / len(sizes) / 1000) if sizes else 0


def _errors(summary: Summary) -> list[dict[str, str]]:
    return [
        {
            "image": record.image,
            "method": method_title(record.method) if record.method else "all",
            "stage": _STAGES[failure.stage] if metric is None else f"computing {title_and_unit(metric)[0]}",
            "text": str(failure),
        }
        for record, metric, failure in summary.failures[:MOST_ERRORS]
    ]


def _gallery_metrics(summary: Summary, images: Sequence[GalleryImage]) -> list[dict[str, Any]]:
    """Returns how each metric is shown under the maps."""
    return [
        {
            "name": metric,
            "title": metric_title(metric),
            "places": decimals(tile.values.get(metric) for image in images for tile in image.tiles),
        }
        for metric in summary.metrics
    ]


def _gallery_data(summary: Summary, images: Sequence[GalleryImage]) -> dict[str, Any]:
    """Returns what the page's script sorts and filters by."""
    return {
        "methods": summary.methods,
        "metrics": summary.metrics,
        "images": [
            {
                "group": image.group,
                "correct": image.correct,
                "disagreement": image.disagreement,
                "values": {tile.method: dict(tile.values) for tile in image.tiles},
            }
            for image in images
        ],
    }


def _left_out(gallery: Gallery) -> str | None:
    """Names the pictures that are missing or damaged, or a few of them if there are many."""
    names = gallery.left_out
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"Some pictures are left out of the report: {', '.join(names[:MOST_NAMES])}{more}." if names else None


def _map_colors() -> list[list[float]]:
    """Returns the colours of the maps from the lowest to the highest value, RGB in [0, 1]."""
    from matplotlib import colormaps

    stops = [number / (COLOR_STOPS - 1) for number in range(COLOR_STOPS)]
    return [[round(float(part), 3) for part in colormaps[MAP_COLORS](stop)[:3]] for stop in stops]
