"""Writes what a benchmark measured, with its command and its machine, as JSON and as Markdown."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


def machine(device: str) -> Row:
    """What it ran on, and with what."""
    packages = {name: version(name) for name in ("torch", "captum", "grad-cam", "torchcam")}
    cpu = {"cpu": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    return {"device": torch.cuda.get_device_name(device) if device != "cpu" else "CPU", **cpu, **packages}


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""

    def text(value: Any) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        return f"{value:.3g}" if abs(value) < 1e3 else f"{value:.0f}"

    lines = [list(rows[0]), ["---"] * len(rows[0]), *([text(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def record(output: Path, about: Row, rows: list[Row], details: Row | None = None) -> None:
    """Prints the table and writes `output`.json (with `details`) and `output`.md."""
    command = f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}".strip()
    output.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "about": about, "rows": rows, **(details or {})}
    output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    described = ", ".join(f"{name} {value}" for name, value in about.items())
    output.with_suffix(".md").write_text(f"    {command}\n\n{described}\n\n{table(rows)}\n")
    print(table(rows))
