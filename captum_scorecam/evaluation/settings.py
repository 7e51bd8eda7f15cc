"""Reads and writes ``configuration.json``: a run's settings and the versions it was started with."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import captum_scorecam
from captum_scorecam._messages import warn_caller
from captum_scorecam.evaluation.durable_files import write_durably
from captum_scorecam.evaluation.options_text import PACKAGES, base_and_options
from captum_scorecam.evaluation.records import FORMAT_VERSION, Configuration, RunSettings
from captum_scorecam.evaluation.registry import NAME
from captum_scorecam.evaluation.typed_json import from_json, members, plain_json, to_json

CONFIGURATION = "configuration.json"
_PACKAGES = ("torch", "torchvision", "captum", "torchmetrics", "numpy", "scipy", "pillow")


def read_configuration(run: Path) -> Configuration:
    """Reads the configuration of a run.

    Raises:
        ValueError: If the folder contains no run, the format version differs, or the file is damaged.
    """
    path = run / CONFIGURATION
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"Expected the folder of a run, but {str(run)!r} contains no {CONFIGURATION}.") from error
    except OSError as error:
        raise ValueError(f"Expected the folder of a run, but {str(path)!r} can't be read: {error.strerror}.") from error
    _check_format_version(text, path)
    configuration = from_json(Configuration, text, repr(str(path)))
    if problem := _problem(configuration.settings):
        raise ValueError(f"Expected a configuration in {str(path)!r}, but {problem}.")
    return configuration


def _check_format_version(text: bytes, path: Path) -> None:
    try:
        content = plain_json(text)
    except ValueError:
        return  # `from_json` describes the damage
    version = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(content, dict) and version != FORMAT_VERSION:
        raise ValueError(
            f"Expected a run of format version {FORMAT_VERSION}, but {str(path)!r} has {version!r:.80}: "
            "another version of captum-scorecam wrote it. Read it with that version, or evaluate again."
        )


def _problem(settings: RunSettings) -> str | None:
    """Returns what is wrong with settings whose fields are each in their range, or None."""
    for name, names in (("methods", settings.methods), ("metrics", settings.metrics)):
        if not names or len({*names}) < len(names) or not all(NAME.fullmatch(one) for one in names):
            return f"`{name}` is {list(names)!r:.80}"
    for field, options, names in (
        ("method_options", settings.method_options, settings.methods),
        ("metric_options", settings.metric_options, settings.metrics),
    ):
        for name, text in options.items():
            try:
                base_and_options(text, *PACKAGES)
            except ValueError:
                return f"`{field}` of {name!r:.80} is {text!r:.80}"
            if name not in names:
                return f"`{field}` has {name!r:.80}, which did not run"
    if settings.images > settings.images_available:
        return f"`images` is {settings.images} and `images_available` is {settings.images_available}"
    return None


def read_settings(run: Path | str) -> RunSettings:
    """Reads the settings of a run.

    Args:
        run (Path or str): The run's folder.

    Raises:
        ValueError: If the folder contains no run, the format version differs, or the file is damaged.
    """
    return read_configuration(Path(run)).settings


def write_configuration(run: Path, settings: RunSettings, versions: Mapping[str, str | None]) -> None:
    """Writes the configuration of a new run.

    Raises:
        OSError: If the file can't be written.
    """
    text = to_json(Configuration(FORMAT_VERSION, settings, versions), indent=2)
    write_durably(run / CONFIGURATION, f"{text}\n".encode())


def check_same_settings(before: RunSettings, now: RunSettings) -> None:
    """Checks that a run is resumed with the settings it was started with.

    Raises:
        ValueError: If the settings differ. The message lists the differences.
    """
    if before.inputs is None:  # of an earlier version, which recorded neither
        before = replace(before, inputs=now.inputs, unbounded=now.unbounded)
    if before.read_as is None:
        before = replace(before, read_as=now.read_as)
    if before.weights_digest == now.weights_digest:
        before = replace(before, weights=now.weights)
    changes = _changes(*map(_by_parameter, (before, now)))
    if changes:
        raise ValueError(
            f"The run in this folder was started with different settings: {changes}. "
            "Choose another `folder` or use the settings of that run."
        )


def compared_settings(settings: RunSettings) -> dict[str, Any]:
    """Returns the settings that a resumed run must share, by name; each source is one of them.

    The name of the weights may differ if the weights are the same.
    """
    compared = members(settings)
    del compared["command"]
    sources = compared.pop("sources")
    return compared | {f"source of {module}": digest for module, digest in sources.items()}


def _by_parameter(settings: RunSettings) -> dict[str, Any]:
    """Returns `compared_settings` with parameters in backticks; `classes` is the name of another parameter."""
    compared = compared_settings(settings)
    classes = compared.pop("classes")
    named = {f"`{name}`" if name.isidentifier() else name: value for name, value in compared.items()}
    return named | {"number of classes": classes}


def warn_of_other_versions(
    before: Mapping[str, str | None],
    now: Mapping[str, str | None],
    what: str = "The run in this folder was started with",
) -> None:
    """Warns if a run is resumed, or joined by a rank, with versions other than those it was started with."""
    before, now = ({key: value for key, value in each.items() if key != "cpu_cores"} for each in (before, now))
    if changes := _changes(before, now):
        warn_caller(f"{what} other versions, so numbers may differ: {changes}.")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{key}: {json.dumps(before.get(key))} -> {json.dumps(now.get(key))}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    )


def find_versions(device: torch.device, *packages: str) -> dict[str, str | None]:
    """Returns the versions of the packages that a run depends on, the device's name and the current git revision.

    Args:
        device (torch.device): The device.
        packages (str): Packages that not every run depends on.
    """
    is_cuda = device.type == "cuda"
    return {
        "captum_scorecam": captum_scorecam.__version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in (*_PACKAGES, *packages)},
        "cuda": torch.version.cuda if is_cuda else None,
        "git_revision": _git_revision(),
        "device_name": torch.cuda.get_device_name(device) if is_cuda else platform.machine(),
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_cores": str(os.cpu_count()),
    }


def cpu_name() -> str:
    """Returns the processor's name, or its architecture if PyTorch and the operating system do not know it."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in early versions of PyTorch
    return str(capabilities.get("cpu_name") or platform.processor() or platform.machine())


def packages_of(model: nn.Module) -> list[str]:
    """Returns the installed packages of the model's modules, of those that are imported by their own name."""
    imported = {type(module).__module__.partition(".")[0] for module in model.modules()}
    return sorted(filter(_version, imported))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def digest_of_weights(model: nn.Module) -> str:
    """Returns the first 16 hex digits of the SHA-256 of all parameters, buffers and extra state."""
    buffers = dict(model.named_buffers(remove_duplicate=False))  # a state dict lacks those that are not persistent
    state = sorted({**buffers, **model.state_dict()}.items())
    return _digest(part for name, value in state for part in (name.encode(), *_parts(value)))


def _parts(value: object) -> Iterator[bytes | memoryview]:
    """The bytes of a value of a state dict: a tensor, the packed weights of a quantised layer, or extra state."""
    if isinstance(value, Tensor):
        plain = value.dequantize() if value.is_quantized else value
        yield plain.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield repr(key).encode()
            yield from _parts(each)
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _parts(each)
    elif value is None or isinstance(value, (str, bytes, bool, int, float, torch.dtype)):
        yield repr(value).encode()
    else:
        yield type(value).__qualname__.encode()  # other objects have no text that is the same in each process


def inputs_text(example: Tensor) -> str:
    """Describes a preprocessed image 1×C×H×W, by which to tell whether the preprocessing has changed."""
    channels = example[0].double().cpu().flatten(1)
    means, deviations = (
        " ".join(f"{round(value, 2) + 0:.2f}" for value in of_channels.tolist())
        for of_channels in (channels.mean(1), channels.std(1, correction=0))
    )
    return f"{tuple(example.shape[1:])}, mean {means}, deviation {deviations}"


def digest_of_lines(lines: Iterable[str]) -> str:
    """Returns the first 16 hex digits of the SHA-256 of lines of text."""
    return _digest(line.encode("utf-8", "surrogateescape") + b"\n" for line in lines)


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
