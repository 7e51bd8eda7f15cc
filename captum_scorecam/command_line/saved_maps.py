"""Maps as arrays: a ``.npy`` file for each image, class and method, and a manifest that lists them."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from captum_scorecam import __version__
from captum_scorecam.command_line.explanation import ClassExplanation, ImageExplanation
from captum_scorecam.engines.by_name import EngineName
from captum_scorecam.evaluation import MethodOptions
from captum_scorecam.evaluation.durable_files import write_durably
from captum_scorecam.evaluation.method import ChosenMethod

MANIFEST = "manifest.json"
_WRITER = "captum-scorecam explain"
_LONGEST_STEM = 80
_OPTIONS = ("n_masks", "mask_iterations", "perturbations_per_eval", "max_forwards", "error", "seed")


class Explained(NamedTuple):
    """What the maps of a run have in common.

    Attributes:
        model (str): The model's name.
        weights (str): Its weights, as given.
        weights_digest (str): Their digest.
        layer (str): The layer that methods of a layer explain.
        methods (mapping of str to ChosenMethod): The methods by name.
        options (MethodOptions): Options of the methods that were given none of their own.
        engine (str): What ran masked inputs.
    """

    model: str
    weights: str
    weights_digest: str
    layer: str
    methods: Mapping[str, ChosenMethod]
    options: MethodOptions
    engine: EngineName


def check_maps_folder(folder: Path) -> None:
    """Checks, before any work, that maps can be saved without changing files that were not written for this purpose.

    Args:
        folder (Path): A folder that is new, empty, or contains only what `write_maps` wrote.

    Raises:
        ValueError: If it is another one, or not writable.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected `save_maps` to be a folder, but {str(folder)!r} is a file.")
    if not folder.parent.is_dir():
        raise ValueError(f"Expected `save_maps` to be in a folder that exists, but there is no {str(folder.parent)!r}.")
    if folder.is_dir() and (foreign := sorted({path.name for path in folder.iterdir()} - _written(folder))):
        raise ValueError(
            "Expected `save_maps` to be a new or empty folder, or one with nothing but saved maps, but "
            f"{str(folder)!r} contains {foreign[0]!r}."
        )
    try:
        with TemporaryFile(dir=folder if folder.is_dir() else folder.parent):
            pass
    except OSError as error:
        raise ValueError(f"Expected `save_maps` to be a writable folder, but {str(folder)!r} is not.") from error


def write_maps(
    folder: Path, images: Sequence[Path], explanations: Sequence[ImageExplanation], explained: Explained
) -> None:
    """Writes each map and a manifest; it replaces maps that it wrote before.

    The manifest is written first, with the names of the files to replace, so that an interrupted call can be repeated.

    Args:
        folder (Path): The folder, checked by `check_maps_folder`; created if it is missing.
        images (sequence of Path): The image files.
        explanations (sequence of ImageExplanation): One per image.
        explained (Explained): What the maps have in common.

    Raises:
        OSError: If a file can't be written.
    """
    folder.mkdir(exist_ok=True)
    entries: list[dict[str, Any]] = []
    files: dict[str, Tensor] = {}
    for number, (image, explanation) in enumerate(zip(images, explanations, strict=True)):
        prefix = f"{number:03d}_{re.sub(r'[^A-Za-z0-9-]+', '_', image.stem)[:_LONGEST_STEM]}"
        for shown in explanation.classes:
            for entry, arrays in _maps_of(shown, prefix, explained):
                files |= arrays
                entries.append({"image": str(image), "score": explanation.score, **entry})
    manifest = {
        "written_by": _WRITER,
        "version": __version__,
        "model": explained.model,
        "weights": explained.weights,
        "weights_digest": explained.weights_digest,
        "engine": explained.engine,
        "options": {name: getattr(explained.options, name) for name in _OPTIONS},
        "maps": entries,
    }
    replaced = sorted(_written(folder) - {MANIFEST, *files})
    _write_manifest(folder, manifest | {"replaced": replaced})
    for name, values in files.items():
        write_durably(folder / name, _npy(values))
    for name in replaced:
        (folder / name).unlink(missing_ok=True)
    _write_manifest(folder, manifest)


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_durably(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())


def _maps_of(
    shown: ClassExplanation, prefix: str, explained: Explained
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Yields a class's entries of the manifest, each with its arrays by file name."""
    for method, values in shown.maps.items():
        chosen, error = explained.methods[method], shown.errors.get(method)
        file = f"{prefix}_{method}_{shown.index}.npy"
        entry: dict[str, Any] = {
            "file": file,
            "class_index": shown.index,
            "class_name": shown.name,
            "role": shown.role,
            "method": method,
            "method_options": chosen.text,
            "layer": explained.layer if chosen.method.of_layer else None,
            "shape": list(values.shape),
        }
        arrays = {file: values}
        if error is not None:
            entry["error"] = error.largest if math.isfinite(error.largest) else None
            if error.values is not None:
                entry["error_file"] = f"{prefix}_{method}_{shown.index}_error.npy"
                arrays[entry["error_file"]] = error.values
        yield entry, arrays


def _npy(values: Tensor) -> bytes:
    content = io.BytesIO()
    np.save(content, values.float().numpy(), allow_pickle=False)
    return content.getvalue()


def _written(folder: Path) -> set[str]:
    """Returns the names of the files that a manifest lists, and its own; none if there is no such manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["written_by"] != _WRITER:
            return set()
        files = {entry[key] for entry in manifest["maps"] for key in ("file", "error_file") if key in entry}
        files |= {*manifest.get("replaced", ())}  # only where it was interrupted
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {MANIFEST} | {name for name in files if isinstance(name, str) and Path(name).name == name}
