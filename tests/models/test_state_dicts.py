"""State dicts from files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captum_scorecam.models.state_dicts import class_count, read_state_dict


class Harmful:
    """Code that unpickling must not run."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (b"no torch file", "Expected `weights` to be a state dict written by torch.save, but .* can't be read as one"),
        ([1, 2], "Expected `weights` to contain a state dict of tensors"),
        ({}, "Expected `weights` to contain a state dict of tensors"),
        ({"state_dict": {"fc.bias": 3}}, "Expected `weights` to contain a state dict of tensors"),
        (Harmful(), "Expected `weights` to be a state dict written by torch.save, but .* can't be read as one"),
    ],
    ids=["bytes", "list", "empty", "numbers", "code"],
)
def test_a_file_without_a_state_dict_raises(
    saved: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(saved, bytes):
        path.write_bytes(saved)
    else:
        torch.save(saved, path)
    with pytest.raises(ValueError, match=message):
        read_state_dict(path)
    assert "unpickled" not in capsys.readouterr().out


def test_a_state_dict_that_ends_with_a_number_has_no_class_count() -> None:
    with pytest.raises(ValueError, match=r"ends with 'bn\.num_batches_tracked'"):
        class_count({"bn.num_batches_tracked": torch.tensor(3)})
