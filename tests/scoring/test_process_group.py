"""Two gloo processes share the masked forwards of one call."""

from __future__ import annotations

import socket
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from captum_scorecam import ScoreCAM
from tests.support.score_cam import run_score_cam
from tests.support.two_ranks import START_METHOD


class Net(nn.Module):
    """The maps of the layer `shifted` don't reach the output."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, 7, 3, stride=2)
        self.fc = nn.Linear(7, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.shifted = nn.Identity()
        self.shift = shift * torch.randn(7, 5, 4, generator=generator)
        self.rows = 0
        self.breaks_after = float("inf")  # rows

    def forward(self, x: Tensor) -> Any:
        self.rows += len(x)
        maps = self.conv(x)
        self.shifted(maps + self.shift)
        output = self.fc(maps.relu().mean((2, 3)))
        return output * torch.nan if self.rows > self.breaks_after else output


IMAGES = torch.rand(3, 3, 11, 9, generator=torch.Generator().manual_seed(1))
CALLS: list[dict[str, Any]] = [
    {},
    {"score": "probability", "channel_weighting": "increase", "perturbations_per_eval": 2},
    {"max_channels": 1, "perturbations_per_eval": 2},
]


def explain(process_group: dist.ProcessGroup | None) -> tuple[list[Tensor], list[int]]:
    maps, rows = [], []
    for call in CALLS:
        net = Net().eval()
        maps.append(run_score_cam(net, net.conv, IMAGES, [0, 1, 2], process_group=process_group, **call))
        rows.append(net.rows)
    return maps, rows


def error_of_rank(rank: int, breaks_after: int) -> str:
    """The error of a call in which the other rank's model breaks after some rows."""
    net = Net().eval()
    net.breaks_after = breaks_after if rank == 1 else float("inf")
    try:
        ScoreCAM(net, net.conv, channel_weighting="increase").attribute(IMAGES, 0, process_group=dist.group.WORLD)
    except (RuntimeError, ValueError) as failure:
        return str(failure)
    return "none"


def run_rank(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    maps, rows = explain(dist.group.WORLD)
    errors = [error_of_rank(rank, rows) for rows in (0, 3, 6)]
    net = Net(shift=rank).eval()
    shifted = ScoreCAM(net, net.shifted).attribute(IMAGES, 0, process_group=dist.group.WORLD)
    group = weakref.ref(dist.group.WORLD)
    dist.destroy_process_group()
    kept = {"maps": maps, "rows": rows, "errors": errors, "shifted": shifted, "group_ended": group() is None}
    torch.save(kept, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(run_rank, (port, str(folder)), nprocs=2, start_method=START_METHOD)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_two_ranks_give_the_maps_of_one(ranks: list[dict[str, Any]]) -> None:
    maps, _ = explain(None)
    for rank in ranks:
        for shared, alone in zip(rank["maps"], maps, strict=True):
            assert torch.allclose(shared, alone, rtol=1e-5, atol=1e-7)


def test_each_rank_runs_half_of_the_masked_inputs(ranks: list[dict[str, Any]]) -> None:
    _, alone = explain(None)
    unmasked = [3, 6, 3]  # the forward that reads the activations, and that of the baselines for 'increase'
    masked = [[rank["rows"][call] - unmasked[call] for rank in ranks] for call in range(len(CALLS))]
    assert [rows - n for rows, n in zip(alone, unmasked, strict=True)] == [21, 21, 3]
    # A last chunk of one row is padded: three examples were given, and a model may not take a single one.
    assert masked == [[11 + 1, 10], [11, 10], [2, 1 + 1]]


def test_a_rank_that_fails_raises_its_error_and_the_other_does_not_wait(ranks: list[dict[str, Any]]) -> None:
    inputs, *masked = ranks[1]["errors"]  # those of baselines, and of channels
    assert inputs.startswith("Expected finite scores of the inputs")
    assert [error.partition(" for ")[0] for error in masked] == 2 * ["Expected finite scores, but got NaN or Inf"]
    assert ranks[0]["errors"] == 3 * ["Expected all 2 ranks to run their forward passes, but 1 failed."]


def test_ranks_with_different_activations_return_the_map_of_the_first(ranks: list[dict[str, Any]]) -> None:
    first, second = (Net(shift=rank).eval() for rank in range(2))
    expected = ScoreCAM(first, first.shifted).attribute(IMAGES, 0)
    for rank in ranks:
        torch.testing.assert_close(rank["shifted"], expected, rtol=1e-5, atol=1e-7)
    alone = ScoreCAM(second, second.shifted).attribute(IMAGES, 0)
    assert not torch.allclose(alone, expected, rtol=0.1)


def test_the_group_ends_when_its_user_destroys_it(ranks: list[dict[str, Any]]) -> None:
    # A group that something still holds keeps its threads into the exit of the process, and they may abort it.
    assert [rank["group_ended"] for rank in ranks] == [True, True]
