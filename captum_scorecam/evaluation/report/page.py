"""The report of a run: one HTML file that needs nothing else, with tables, curves and a gallery."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from captum_scorecam.evaluation.report import curves as report_curves
from captum_scorecam.evaluation.report import gallery as report_gallery
from captum_scorecam.evaluation.durable_files import write_durably
from captum_scorecam.evaluation.presentation import decimals, measure_title, method_title, number_text
from captum_scorecam.evaluation.record_files import iterate_records, read_records
from captum_scorecam.evaluation.records import Record
from captum_scorecam.evaluation.report.gallery import GalleryImage, make_gallery
from captum_scorecam.evaluation.report.tables import class_tables, differences_table, means_table
from captum_scorecam.evaluation.settings import read_configuration
from captum_scorecam.evaluation.statistics import RESAMPLES
from captum_scorecam.evaluation.summary import Summary, summarize

MOST_ERRORS = 200
COLOUR_MAP, COLOUR_STOPS = "inferno", 17
_TEMPLATES = "templates"


def write_report(run: Path, output: Path | None = None, reference: str | None = None) -> Path:
    """Writes the report of a run, finished or not.

    The page makes no network requests, and everything that a run holds as text is escaped.

    Args:
        run (Path): The run's folder.
        output (Path, optional): The file to write. Default: None, ``report.html`` in the run's folder.
        reference (str, optional): The method that the others are compared to. Default: None, as of `summarize`.

    Returns:
        Path: The file that was written.

    Raises:
        ValueError: If there is no run, or it has no records yet, or the reference is none of its methods, or the
            output is no .html file in a folder that exists.
        OSError: If the file can't be written; what stood there is as it was.
    """
    output = run / "report.html" if output is None else output
    _check_output(output)
    configuration = read_configuration(run)
    records = read_records(run, curves=False)
    if not records:
        raise ValueError(f"Expected a run with records, but {str(run)!r} has none yet.")
    summary = summarize(records, configuration["asked"], reference)
    page = render_report(run, configuration, records, summary)
    write_durably(output, page.encode(errors="replace"))  # names of files need not be text
    return output


def _check_output(path: Path) -> None:
    """Checks that no file of a run, or an image, is replaced by the page."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"Expected `--output` to end in .html, but got {str(path)!r}.")
    if not path.parent.is_dir():
        raise ValueError(f"Expected `--output` to be in a folder that exists, but there is no {str(path.parent)!r}.")


def render_report(run: Path, configuration: Mapping[str, Any], records: Sequence[Record], summary: Summary) -> str:
    """Renders the report, whose curves and pictures are read from the run's folder."""
    script = (files(__package__) / _TEMPLATES / "report.js").read_text(encoding="utf-8")
    images = make_gallery(run, records, summary.methods)
    curves = report_curves.mean_curves(iterate_records(run))
    environment = Environment(
        loader=PackageLoader(__package__, _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        asked=configuration["asked"],
        versions=configuration["versions"],
        data_name=_data_name(configuration["asked"].get("data")),
        summary=summary,
        method_titles=[method_title(method) for method in summary.methods],
        reference=method_title(summary.reference),
        resamples=RESAMPLES,
        means=means_table(summary, summary.overall),
        differences=differences_table(summary),
        class_tables=class_tables(summary),
        charts=report_curves.make_charts(curves, summary.methods, summary.measures),
        chart_size=report_curves,
        errors=_errors(summary),
        images=images,
        accuracy=_accuracy(records),
        unfinished=configuration["asked"]["images"] - _finished(records, len(summary.methods)),
        compared_size=report_gallery.COMPARED_SIZE,
        picture_size=report_gallery.PICTURE_SIZE,
        map_size=report_gallery.MAP_SIZE,
        kilobytes=_kilobytes(images),
        measures=_gallery_measures(summary, images),
        shown=number_text,
        gallery_data=_gallery_data(summary, images),
        colour_stops=_colour_stops(),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _data_name(path: str | None) -> str:
    """Returns a name for a data set: of a folder, the last part of its path, of whichever system; of a file, two."""
    if not path:
        return "a data set"
    parts = [part for part in re.split(r"[/\\]", path) if part] or [path]
    return "/".join(parts[-2:] if "." in parts[-1] else parts[-1:])


def _accuracy(records: Sequence[Record]) -> tuple[int, int] | None:
    """Returns how many images are predicted rightly, of how many that have a label."""
    correct = {record["index"]: record.get("correct") for record in records if not record["error"]}
    known = [value for value in correct.values() if value is not None]
    return (sum(known), len(known)) if known else None


def _finished(records: Sequence[Record], methods: int) -> int:
    """Returns how many images have a record of each method, or one that says that none can be run."""
    done: dict[int, set[str | None]] = {}
    for record in records:
        done.setdefault(record["index"], set()).add(record["method"])
    return sum(None in found or len(found) == methods for found in done.values())


def _kilobytes(images: Sequence[GalleryImage]) -> int:
    """Returns what an image and its maps take in the page, on average."""
    sizes = [len(image.picture) + sum(len(tile.source or "") for tile in image.tiles) for image in images]
    return round(sum(sizes) / len(sizes) / 1000) if sizes else 0


def _errors(summary: Summary) -> list[dict[str, str]]:
    return [
        {
            "image": record["image"],
            "method": method_title(record["method"]) if record["method"] else "all",
            "stage": record["error"]["stage"],
            "text": f"{record['error']['type']}: {record['error']['message']}",
        }
        for record in summary.errors[:MOST_ERRORS]
    ]


def _gallery_measures(summary: Summary, images: Sequence[GalleryImage]) -> list[dict[str, Any]]:
    """Returns how each measure is shown under the maps."""
    return [
        {
            "name": measure,
            "title": measure_title(measure),
            "places": decimals(tile.values.get(measure) for image in images for tile in image.tiles),
        }
        for measure in summary.measures
    ]


def _gallery_data(summary: Summary, images: Sequence[GalleryImage]) -> dict[str, Any]:
    """Returns what the page sorts and filters by."""
    return {
        "methods": list(summary.methods),
        "measures": list(summary.measures),
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


def _colour_stops() -> list[list[float]]:
    """Returns the colours of the maps from the lowest to the highest value, RGB in [0, 1]."""
    from matplotlib import colormaps

    stops = [number / (COLOUR_STOPS - 1) for number in range(COLOUR_STOPS)]
    return [[round(float(part), 3) for part in colormaps[COLOUR_MAP](stop)[:3]] for stop in stops]
