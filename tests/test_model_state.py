"""A model that compiles a part of itself in its first forward, in a process that had not loaded the compiler."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys

import torch
from torch import nn

from captum_scorecam import ScoreCAM


class CompilesItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        self.compiled = []

    def forward(self, x):
        if not self.compiled:
            self.compiled.append(torch.compile(self.head, backend="eager"))
        return self.compiled[0](self.conv(x))


assert "torch._dynamo" not in sys.modules
model = CompilesItself()
before = {name: value.clone() for name, value in model.state_dict().items()}
ScoreCAM(model, model.conv).attribute(torch.rand(2, 3, 8, 8), target=1)
assert model.compiled
assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
"""


def test_buffers_of_a_part_compiled_in_the_first_forward_stay_as_they_were() -> None:
    finished = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
