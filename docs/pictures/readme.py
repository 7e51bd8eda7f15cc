"""Draws the README's picture by running the README's code as it stands there.

    python docs/pictures/readme.py [FOLDER]

The picture goes to docs/, or to another folder.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(folder: Path) -> None:
    """Runs the README's Python code in a folder."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    os.chdir(folder)
    os.environ["MPLBACKEND"] = "agg"
    exec(compile("".join(blocks), "README.md", "exec"), {})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
