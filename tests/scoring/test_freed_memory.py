"""Freed memory is kept by the process in the body of a context, and never otherwise."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

from captum_scorecam import ScoreCAM, freed_memory_kept
from captum_scorecam.scoring import freed_memory
from captum_scorecam.scoring.freed_memory import KEEPING, USUAL

LARGE = 64 * 2**20  # bytes; glibc gives blocks from 32 MiB on back to the system when they are freed


class Mallinfo2(ctypes.Structure):
    """The result of glibc's mallinfo2: sizes in bytes."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")]
    _fields_ += [(name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


needs_mallinfo = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="mallinfo2 is glibc's"
)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, int]]:
    """Records the calls to the C library, in order, instead of making them."""
    told: list[dict[int, int]] = []
    monkeypatch.setattr(freed_memory, "_set", told.append)
    monkeypatch.setattr(freed_memory, "_is_glibc", lambda: True)
    monkeypatch.setattr(freed_memory, "_is_tuned_by_the_environment", lambda: False)
    return told


def bytes_of_heap_and_of_own_mappings() -> tuple[int, int]:
    """The bytes of the heap, used or free, and of the blocks that go back to the system when they are freed."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo2
    info = mallinfo2()
    return info.arena, info.hblkhd


@needs_mallinfo
def test_a_large_block_lies_in_the_heap_in_the_body_and_stays_there_when_it_is_freed() -> None:
    _, mapped = bytes_of_heap_and_of_own_mappings()
    with freed_memory_kept():
        block = torch.zeros(LARGE, dtype=torch.uint8)
        heap_with_block, mapped_with_block = bytes_of_heap_and_of_own_mappings()
        assert mapped_with_block == mapped
        del block
        assert bytes_of_heap_and_of_own_mappings() == (heap_with_block, mapped)


@needs_mallinfo
def test_after_the_body_a_large_block_goes_back_when_it_is_freed() -> None:
    with freed_memory_kept():
        pass
    _, mapped = bytes_of_heap_and_of_own_mappings()
    larger_than_any_hole_in_the_heap = 8 * LARGE
    block = torch.empty(larger_than_any_hole_in_the_heap, dtype=torch.uint8)
    assert bytes_of_heap_and_of_own_mappings()[1] >= mapped + larger_than_any_hole_in_the_heap
    del block
    assert bytes_of_heap_and_of_own_mappings()[1] == mapped


def test_an_attribution_changes_nothing_of_the_process(settings: list[dict[int, int]]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    ScoreCAM(model, model[0]).attribute(torch.rand(1, 3, 8, 8), target=1)
    assert settings == []


IN_A_NEW_PROCESS = """
import torch
from torch import nn
from captum_scorecam import ScoreCAM
from tests.scoring.test_freed_memory import bytes_of_heap_and_of_own_mappings

def is_mapped(n_bytes):
    _, before = bytes_of_heap_and_of_own_mappings()
    block = torch.empty(n_bytes, dtype=torch.uint8)
    return bytes_of_heap_and_of_own_mappings()[1] > before

torch.empty(2**20, dtype=torch.uint8)
before = is_mapped(24 * 2**20)
torch.empty(2**20, dtype=torch.uint8)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
ScoreCAM(model, model[0]).attribute(torch.rand(1, 3, 8, 8), target=1)
print(before, is_mapped(31 * 2**20), is_mapped(48 * 2**20))
"""


@needs_mallinfo
def test_after_an_attribution_large_blocks_are_reused_as_after_any_freed_tensor_of_their_size() -> None:
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    found = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS], env=usual, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["True", "False", "True"]


def test_contexts_within_others_and_in_other_threads_change_it_once(settings: list[dict[int, int]]) -> None:
    entered, may_leave = threading.Event(), threading.Event()

    def in_another_thread() -> None:
        with freed_memory_kept():
            entered.set()
            assert may_leave.wait(10)

    thread = threading.Thread(target=in_another_thread)
    with freed_memory_kept():
        with freed_memory_kept():
            thread.start()
            assert entered.wait(10)
        assert settings == [KEEPING]
    assert settings == [KEEPING]  # the other thread is still in its body
    may_leave.set()
    thread.join()
    assert settings == [KEEPING, USUAL]


def test_all_that_was_changed_is_put_back_after_an_error(settings: list[dict[int, int]]) -> None:
    def fails() -> None:
        with freed_memory_kept():
            assert settings == [KEEPING]
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert settings == [KEEPING, USUAL]
    assert KEEPING.keys() <= USUAL.keys()


def test_nothing_is_changed_with_another_c_library(
    settings: list[dict[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freed_memory, "_is_glibc", lambda: False)
    with freed_memory_kept():
        pass
    assert settings == []


@pytest.mark.parametrize(
    ("name", "value", "tuned"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072", True),
        ("MALLOC_MMAP_MAX_", "0", True),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1073741824", True),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=4", False),
        ("MALLOC_ARENA_MAX", "2", False),
    ],
)
def test_who_tunes_the_c_library_is_obeyed(monkeypatch: pytest.MonkeyPatch, name: str, value: str, tuned: bool) -> None:
    for known in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"):
        monkeypatch.delenv(known, raising=False)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv(name, value)
    told: list[dict[int, int]] = []
    monkeypatch.setattr(freed_memory, "_set", told.append)
    monkeypatch.setattr(freed_memory, "_is_glibc", lambda: True)
    with freed_memory_kept():
        pass
    assert told == ([] if tuned else [KEEPING, USUAL])
