"""Reading files with weights, and saying what other files are."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from captum_scorecam.models.weight_files import StandIn, read_weight_file
from tests.support.systems import needs_posix

STATE = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}


class Harmful:
    """Code that unpickling must not run."""

    def __init__(self, function: Callable[..., object] = print, argument: str = "it ran") -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3)).save(buffer, kind)
    return buffer.getvalue()


def numpy_file(save: Callable[[Any, Any], None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, np.zeros(3))
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
    return buffer.getvalue()


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "png": (lambda: image("PNG"), r"is an image \(PNG\)\.$"),
    "jpeg": (lambda: image("JPEG"), r"is an image \(JPEG\)\.$"),
    "nothing": (lambda: b"", r"is an empty file\.$"),
    "zeros": (lambda: bytes(99), r"is a file of zeros\.$"),
    "text": (lambda: "naïve words".encode() * 999, r"is a text file\.$"),
    "web page": (lambda: b"\n<!DOCTYPE html><html>not found</html>", r"is a web page\.$"),
    "git lfs": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "is a Git LFS pointer .git lfs pull",
    ),
    "numpy": (lambda: numpy_file(np.save), r"is a NumPy array\.$"),
    "npz": (lambda: numpy_file(np.savez), r"is a NumPy archive\.$"),
    "zip": (lambda: zipped("a/photo.png", "data.txt"), r"is a zip archive that torch\.save did not write\.$"),
    "torch.export": (
        lambda: zipped("m/archive_format", "m/data.pkl"),
        r"is a program of torch\.export, not a state dict\.$",
    ),
    "tar": (tar, r"is a tar archive\.$"),
    "gzip": (lambda: gzip.compress(b"content"), r"is a gzip archive\.$"),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n\0\0", r"is an HDF5 file\.$"),
    "pickle": (lambda: pickle.dumps(STATE), r"is a pickle file that torch\.save did not write\.$"),
    "unknown": (lambda: bytes(range(128, 256)), r"is a binary file of an unknown format\.$"),
    "cut off": (lambda: saved(STATE)[:-200], r"is an incomplete or damaged archive\.$"),
    "other protocol": (lambda: saved(STATE, pickle_protocol=5), r"is damaged, or was saved with options other than"),
    "old whole model": (
        lambda: saved(nn.Linear(2, 1), _use_new_zipfile_serialization=False),
        r"is damaged, or contains pickled objects such as a model\. Save its state dict instead",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_other_files_are_named(kind: str, tmp_path: Path) -> None:
    content, message = FILES[kind]
    (tmp_path / "weights.pt").write_bytes(content())
    with pytest.raises(ValueError, match=message) as raised:
        read_weight_file(tmp_path / "weights.pt")
    assert str(raised.value).startswith("Expected `weights` to be a state dict written by torch.save")
    assert "weights_only" not in str(raised.value)


@needs_posix
def test_a_device_is_named() -> None:
    with pytest.raises(ValueError, match="Expected `weights` to be DEFAULT, none or a file, but '/dev/null' is a dev"):
        read_weight_file(Path("/dev/null"))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_archive_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.ReLU()), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"is a TorchScript archive, not a state dict\.$"):
        read_weight_file(tmp_path / "model.pt")


def test_a_changed_byte_of_the_weights_is_found(tmp_path: Path) -> None:
    content = saved(STATE)
    value = np.float32(2).tobytes()
    assert content.count(value) == 1
    (tmp_path / "weights.pt").write_bytes(content.replace(value, np.float32(8).tobytes()))
    with pytest.raises(ValueError, match=r"weights\.pt' is an incomplete or damaged archive\.$"):
        read_weight_file(tmp_path / "weights.pt")


def test_a_file_written_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "weights.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_weight_file(tmp_path / "weights.pt")["weight"].tolist() == [[1.0, 2.0]]


def test_any_changed_byte_leaves_the_weights_or_is_a_value_error(tmp_path: Path) -> None:
    content = saved(STATE)
    for position in range(0, len(content), 17):
        changed = bytearray(content)
        changed[position] ^= 1
        (tmp_path / "weights.pt").write_bytes(changed)
        with contextlib.suppress(ValueError):
            assert read_weight_file(tmp_path / "weights.pt")["weight"].tolist() == [[1.0, 2.0]]


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"DEFAULT, none or a file, but .* is a folder\.$"):
        read_weight_file(tmp_path)
    with pytest.raises(ValueError, match="DEFAULT, none or a file, but there is no file"):
        read_weight_file(tmp_path / "nothing.pt")


@pytest.mark.parametrize("zipped_format", [True, False])
def test_files_of_torch_save_are_read(zipped_format: bool, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "weights", _use_new_zipfile_serialization=zipped_format)
    assert read_weight_file(tmp_path / "weights")["weight"].tolist() == [[1.0, 2.0]]


def test_other_objects_beside_the_weights_become_stand_ins(tmp_path: Path) -> None:
    others = {"args": argparse.Namespace(lr=0.1), "path": Path("runs"), "best": np.float64(3), "code": Harmful()}
    torch.save({"state_dict": STATE, **others}, tmp_path / "checkpoint.pt")
    allowed = torch.serialization.get_safe_globals()
    read = read_weight_file(tmp_path / "checkpoint.pt")
    assert read["state_dict"]["bias"].tolist() == [3.0]
    assert [isinstance(read[name], StandIn) for name in others] == [True] * 4
    assert torch.serialization.get_safe_globals() == allowed


@pytest.mark.parametrize("function", [print, os.system, eval], ids=["print", "os.system", "eval"])
def test_no_code_of_a_file_runs(
    function: Callable[..., object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": STATE, "code": Harmful(function, "print('it ran')")}, tmp_path / "checkpoint.pt")
    with contextlib.suppress(ValueError):
        read_weight_file(tmp_path / "checkpoint.pt")
    assert "it ran" not in capfd.readouterr().out


def test_objects_that_have_no_stand_in_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "code": Harmful(os.system)}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"contains pickled objects \((posix|nt)\.system\)\. Save its state dict"):
        read_weight_file(tmp_path / "checkpoint.pt")


def test_safetensors_files_are_read_whatever_their_suffix(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.bin")
    assert read_weight_file(tmp_path / "weights.bin")["weight"].tolist() == [[1.0, 2.0]]
    content = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(content[:-2])
    with pytest.raises(ValueError, match=r"is an incomplete or damaged safetensors file\.$"):
        read_weight_file(tmp_path / "weights.safetensors")
