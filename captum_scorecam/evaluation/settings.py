"""What a run was asked to do, kept with it: to resume it, and to tell what its numbers are."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import warnings
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

import captum_scorecam
from captum_scorecam.evaluation.durable_files import write_durably

CONFIGURATION = "configuration.json"
_PACKAGES = ("torch", "torchvision", "captum", "torchmetrics", "pillow")


def read_configuration(run: Path) -> dict[str, Any]:
    """Reads the configuration of a run.

    Returns:
        dict: ``asked``, what has to be the same to resume the run (`Plan.asked`), and ``versions``, what it was begun
        with (`find_versions`).

    Raises:
        ValueError: If the folder holds no run.
    """
    path = run / CONFIGURATION
    try:
        configuration: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected the folder of a run, but {str(path)!r} can't be read: {error}.") from error
    if not isinstance(configuration, dict) or not {"asked", "versions"} <= configuration.keys():
        raise ValueError(f"Expected the folder of a run, but {str(path)!r} holds no configuration.")
    return configuration


def write_configuration(run: Path, asked: Mapping[str, Any], versions: Mapping[str, Any]) -> None:
    """Writes the configuration of a new run.

    Raises:
        OSError: If it can't be written.
    """
    text = json.dumps({"asked": asked, "versions": versions}, indent=2, sort_keys=True)
    write_durably(run / CONFIGURATION, f"{text}\n".encode())


def check_same(configuration: Mapping[str, Any], asked: Mapping[str, Any], versions: Mapping[str, Any]) -> None:
    """Checks that a run is resumed with what it was begun with, and warns where versions differ.

    Raises:
        ValueError: If something else is asked. It says what, before and now.
    """
    changes = _changes(configuration["asked"], asked)
    if changes:
        raise ValueError(
            f"Expected the configuration of the run that is there, but these differ: {'; '.join(changes)}. "
            "Choose another `--output`, or what it was begun with."
        )
    changes = _changes(configuration["versions"], versions)
    if changes:
        warnings.warn(f"The run was begun with others, so numbers may differ: {'; '.join(changes)}.", stacklevel=2)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    now = json.loads(json.dumps(now))  # as it would come back from the file
    return [
        f"{key}: {json.dumps(before.get(key))} -> {json.dumps(now.get(key))}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def find_versions(device: torch.device) -> dict[str, Any]:
    """Returns the packages' versions, the git revision of the working folder (None without one), the device's name."""
    is_cuda = device.type == "cuda"
    return {
        "captum_scorecam": captum_scorecam.__version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "cuda": torch.version.cuda if is_cuda else None,
        "git_revision": _git_revision(),
        "device_name": torch.cuda.get_device_name(device) if is_cuda else platform.machine(),
    }


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
    """Returns a digest of all parameters and buffers: the first 16 digits of their SHA-256."""
    tensors = sorted(model.state_dict().items())
    return _digest(
        part
        for name, tensor in tensors
        for part in (name.encode(), tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    )


def digest_of_lines(lines: Iterable[str]) -> str:
    """Returns a digest of texts: the first 16 digits of their SHA-256."""
    return _digest(line.encode("utf-8", "surrogateescape") + b"\n" for line in lines)


def _digest(parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
