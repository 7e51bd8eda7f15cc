"""Reads files with weights, and says what a file is that contains none."""

from __future__ import annotations

import tarfile
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from safetensors.torch import load_file

_EXPECTED = "Expected `weights` to be a state dict written by torch.save, or a .safetensors file"
SAVE_STATE_DICT = "Save its state dict instead: torch.save(model.state_dict(), FILE)."
_SAFETENSORS, _TORCH, _OLD_TORCH = (
    "a safetensors file",
    "a file written by torch.save",
    "a file in torch.save's old format",
)
_SIGNATURES = (
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", _OLD_TORCH),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer (git lfs pull fetches the file itself)"),
    *((bytes([0x80, protocol]), "a pickle file that torch.save did not write") for protocol in range(2, 6)),
)
_IMAGES = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
_loading = threading.Lock()  # torch.serialization.safe_globals is shared by all threads


class StandIn:
    """Takes the place of a pickled object whose class is not one of PyTorch's own, so that its code does not run.

    Attributes:
        is_model (bool): Whether the object is an ``nn.Module``.
        is_numpy (bool): Whether the object is a NumPy array or number.
    """

    is_model = False
    is_numpy = False

    def __new__(cls, *_: object) -> StandIn:  # noqa: D102
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.is_model = isinstance(state, dict) and "_parameters" in state  # the state of every nn.Module


def read_weight_file(path: Path) -> Any:
    """Reads a file by its content, whatever its suffix, without running code from it.

    Objects of classes that ``torch.load`` does not allow with ``weights_only=True``, such as the settings in a
    training checkpoint, become `StandIn` objects.

    Args:
        path (Path): A file written by ``torch.save`` or safetensors.

    Returns:
        object: What was saved, on the CPU.

    Raises:
        ValueError: If there is no such file, or it is not readable as one of these.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        problem = f"{str(path)!r} is {kind}" if path.exists() else f"there is no file {str(path)!r}"
        raise ValueError(f"Expected `weights` to be DEFAULT, none or a file, but {problem}.")
    kind = kind_of_file(path)
    if kind == _SAFETENSORS:
        return _read_safetensors(path)
    if kind not in (_TORCH, _OLD_TORCH):
        raise ValueError(f"{_EXPECTED}, but {str(path)!r} is {kind}.")
    return _read_torch_file(path) if kind == _TORCH else _read_old_torch_file(path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors' own type
        raise ValueError(f"{_EXPECTED}, but {str(path)!r} is an incomplete or damaged safetensors file.") from error


def _read_torch_file(path: Path) -> Any:
    foreign: list[str] = []
    try:
        with _loading:
            foreign = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
            with torch.serialization.safe_globals([_stand_in(name) for name in foreign]):
                return _load(path)
    except Exception as error:  # the unpickler's and the zip reader's errors, whose texts advise weights_only=False
        if foreign:
            classes = list(dict.fromkeys("NumPy arrays" if _is_numpy(name) else name for name in foreign))
            listed = ", ".join(classes[:3]) + ", …" * (len(classes) > 3)
            raise ValueError(
                f"{_EXPECTED}, but {str(path)!r} contains pickled objects ({listed}). {SAVE_STATE_DICT}"
            ) from error
        raise ValueError(
            f"{_EXPECTED}, but {str(path)!r} is damaged, or was saved with options other than torch.save's defaults."
        ) from error


def _stand_in(name: str) -> type[StandIn]:
    module, _, class_name = name.rpartition(".")
    return type(class_name, (StandIn,), {"__module__": module, "is_numpy": _is_numpy(name)})


def _is_numpy(name: str) -> bool:
    return name.startswith("numpy.")


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Validating sparse tensor invariants")  # sparse tensors are refused later
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_old_torch_file(path: Path) -> Any:
    try:
        return _load(path)
    except Exception as error:
        raise ValueError(
            f"{_EXPECTED}, but {str(path)!r} is damaged, or contains pickled objects such as a model. {SAVE_STATE_DICT}"
        ) from error


def kind_of_file(path: Path) -> str:
    """Returns what a file is, with its article, judged by its content."""
    with path.open("rb") as file:
        start = file.read(4096)
    if not start.strip(b"\0"):
        return "an empty file" if not start else "a file of zeros"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return _SAFETENSORS
    if start.startswith(b"PK"):
        return _kind_of_zip(path)
    for signature, kind in _SIGNATURES:
        if start.startswith(signature):
            return kind
    return _kind_of_image(path) or _kind_of_text(start) or _other_kind(path)


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            is_whole = _checksums_match(archive)
    except Exception:  # zipfile's and zlib's many types
        is_whole = False
    if not is_whole:
        return "an incomplete or damaged archive"
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last:
        return "a TorchScript archive, not a state dict"
    if last & {"archive_format", "serialized_exported_program.json"}:
        return "a program of torch.export, not a state dict"
    if "data.pkl" in last:
        return _TORCH
    if all(name.endswith(".npy") for name in names):
        return "a NumPy archive"
    return "a zip archive that torch.save did not write"


def _checksums_match(archive: zipfile.ZipFile) -> bool:
    """Checks the content of an archive, which ``torch.load`` does not do."""
    archive.filelist = [entry for entry in archive.infolist() if entry.CRC]  # torch.save can leave checksums out
    return archive.testzip() is None


def _kind_of_image(path: Path) -> str | None:
    try:
        with Image.open(path, formats=_IMAGES) as image:
            return f"an image ({image.format})"
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _kind_of_text(start: bytes) -> str | None:
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # not a character that the end of `start` cuts
            return None
        text = start[: error.start].decode()
    if not all(character.isprintable() or character.isspace() for character in text):
        return None
    return "a web page" if text.lstrip().lower().startswith(("<!doctype html", "<html")) else "a text file"


def _other_kind(path: Path) -> str:
    if tarfile.is_tarfile(path):
        return "a tar archive"
    return "an ONNX model" if path.suffix == ".onnx" else "a binary file of an unknown format"
