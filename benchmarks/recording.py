"""Writes the results of a benchmark, with its command and its machine, as JSON and as Markdown."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
_EXTENSIONS = ("avx2", "avx512_f", "avx512_bf16", "avx512_vnni", "amx")  # that matrix products use


def machine(device: str) -> Row:
    """The hardware, the number of threads and the versions of the packages."""
    from captum_scorecam.evaluation.settings import cpu_name  # which the measured processes, too, would load

    packages = {name: version(name) for name in ("torch", "captum", "grad-cam", "torchcam")}
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in early versions of PyTorch
    extensions = " ".join(sorted(name for name in found if found[name] is True and name.startswith(_EXTENSIONS)))
    cpu = {"cpu": cpu_name(), "extensions": extensions, "threads": torch.get_num_threads()}
    return {"device": torch.cuda.get_device_name(device) if device != "cpu" else "CPU", **cpu, **packages}


def peak_resident_bytes() -> int:
    """The peak resident size of this process, under Linux; that of `getrusage` includes the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""

    def text(value: Any) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        return f"{value:.3g}" if abs(value) < 1e3 else f"{value:.0f}"

    lines = [list(rows[0]), ["---"] * len(rows[0]), *([text(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def record(output: Path, settings: Row, rows: Sequence[Row], details: Mapping[str, Any] | None = None) -> None:
    """Prints the table and writes `output`.json (with `details`) and `output`.md."""
    command = f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}".strip()
    output.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "settings": settings, "rows": rows, **(details or {})}
    output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    listed = ", ".join(f"{name} {value}" for name, value in settings.items())
    output.with_suffix(".md").write_text(f"    {command}\n\n{listed}\n\n{table(rows)}\n")
    print(table(rows))
