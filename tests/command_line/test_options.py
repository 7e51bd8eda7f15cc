"""The classifier that options select, and checks of where commands write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from captum_scorecam.command_line import options
from captum_scorecam.command_line.options import check_writable, load_on_device


def test_random_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, same, other = (
        load_on_device("squeezenet1_1", "none", "cpu", seed=seed).model.state_dict()["classifier.1.weight"]
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_process_without_a_gpu_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"Expected one GPU per process, but process 3 found only 2\."):
        load_on_device("tests.support.colour_classifier:with_names", gpu=2)


def test_cuda_needs_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="Expected `device` to be cpu or auto, since PyTorch finds no CUDA device"):
        load_on_device("tests.support.colour_classifier:with_names", device="cuda")
    classifier = load_on_device("tests.support.colour_classifier:with_names")
    assert next(classifier.model.parameters()).device == torch.device("cpu")


def test_new_and_old_files_are_good_outputs(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.PNG", ".png")
    (tmp_path / "old.htm").touch()
    check_writable(tmp_path / "old.htm", ".html", ".htm")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.jpg", "Expected `output` to end in .png"),
        ("nowhere/out.png", "in a folder that exists, but there is no .*nowhere"),
        ("image.png/out.png", "in a folder that exists"),
        ("folder.png", "to be a new or a writable file"),
    ],
)
def test_a_bad_output_is_an_error(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "image.png").touch()
    with pytest.raises(ValueError, match=message):
        check_writable(tmp_path / name, ".png")


@pytest.mark.parametrize(("refused", "message"), [("folder", "a writable folder"), ("out.png", "a writable file")])
def test_an_output_without_permission_is_an_error(
    refused: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "out.png").touch()
    if refused == "folder":
        monkeypatch.setattr(options, "TemporaryFile", refuse)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != refused and access(path, mode))
    with pytest.raises(ValueError, match=message):
        check_writable(folder / "out.png", ".png")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has a folder whose permissions say too much")
def test_an_output_in_a_folder_that_takes_no_files_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expected `output` to be in a writable folder, but '/proc' is not"):
        check_writable(Path("/proc/out.png"), ".png")


def test_the_check_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "out.png", ".png")
    assert list(tmp_path.iterdir()) == []
