"""Reads the text files of data sets, with errors in plain words."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path, expected: str) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Args:
        path (Path): The file.
        expected (str): What the file should be, for error messages, such as ``a CSV file``.

    Raises:
        ValueError: If the file can't be read or isn't UTF-8.
    """
    content = read_bytes(path, f"{expected} in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"Expected {expected} in UTF-8, but line {line} of {str(path)!r} has another encoding. Save it as UTF-8."
        ) from error


def read_bytes(path: Path, expected: str) -> bytes:
    """Reads a file; raises ValueError if that fails."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"Expected {expected}, but {str(path)!r} can't be read as one: {error.strerror}.") from error
