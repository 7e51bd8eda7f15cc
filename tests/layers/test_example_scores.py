"""``auto`` looks for the layer of the outputs that the score reads."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from captum_scorecam import LayerGradCamPlusPlus
from captum_scorecam.layers import FoundLayers, find_layer

IMAGES = torch.zeros(1, 3, 32, 32)


class TwoHeads(nn.Module):
    """Two heads, each with a convolution of its own after a common trunk."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any] = lambda a, b: (a, b)) -> None:
        super().__init__()
        self.form = form
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
        self.first, self.second = (nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(8, 4) for _ in range(2))

    def forward(self, inputs: Tensor) -> Any:
        maps = self.trunk(inputs)
        return self.form(self.heads[0](self.first(maps).mean((2, 3))), self.heads[1](self.second(maps).mean((2, 3))))


def two_heads(form: Callable[[Tensor, Tensor], Any] = lambda a, b: (a, b)) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TwoHeads(form).eval()


@pytest.mark.parametrize(
    ("form", "score", "name"),
    [
        (lambda a, b: (a, b), lambda output: output[0], "first"),
        (lambda a, b: (a, b), lambda output: output[1], "second"),
        (lambda a, b: (a, b), lambda output: output[1][:, 2], "second"),
        (lambda a, b: {"age": a, "logits": b}, lambda output: output["logits"], "second"),
        (lambda a, b: SimpleNamespace(age=a, logits=b), lambda output: output.age, "first"),
        (lambda a, b: SimpleNamespace(age=a, logits=b), None, "second"),
        (lambda a, b: SimpleNamespace(logits=(a, b)), lambda output: output.logits[1], "second"),
        (lambda _, b: b.numpy(), torch.from_numpy, "second"),
        (lambda _, b: (b[:, :0], b), lambda output: output[1], "second"),
        (lambda a, b: ({"logits": a}, {"features": b}), lambda output: output[0]["logits"], "first"),
    ],
)
def test_auto_selects_the_layer_of_what_the_score_reads(
    form: Callable[[Tensor, Tensor], Any], score: Any, name: str
) -> None:
    assert find_layer(two_heads(form), IMAGES, score=score).name == name


@pytest.mark.parametrize(
    "score", [lambda output: output[0] + output[1], lambda output: output[0] * 0, lambda output: output[7]]
)
def test_scores_that_read_both_heads_or_tell_nothing_have_no_layer_of_one_head(score: Any) -> None:
    with pytest.raises(ValueError, match="none of the later ones is maps on which alone the output depends"):
        find_layer(two_heads(), IMAGES, score=score)


def test_outputs_of_different_sizes_count_alike() -> None:
    model = two_heads(lambda a, b: (1000 * a, b))
    with pytest.raises(ValueError, match="none of the later ones is maps on which alone the output depends"):
        find_layer(model, IMAGES, score=lambda output: output[0] + output[1])


def test_a_named_score_of_a_tuple_is_refused_before_the_search() -> None:
    with pytest.raises(TypeError, match="Expected `forward_func` to return a tensor or an object with `logits`"):
        find_layer(two_heads(), IMAGES, score="output")


def test_attributions_look_for_the_layer_of_their_score() -> None:
    model = two_heads()
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for i, name in enumerate(("first", "second")):
        of_name, found = (LayerGradCamPlusPlus(model, layer, score=itemgetter(i)) for layer in (name, "auto"))
        assert_close(found.attribute(images, target=1), of_name.attribute(images, target=1), rtol=0, atol=0)


def test_another_score_is_looked_for_again() -> None:
    model, layers = two_heads(), FoundLayers()
    scores: list[Any] = [lambda output: output[0], lambda output: output[1]]
    names = [layers.find(model, "auto", None, (IMAGES,), (), score).name for score in (*scores, scores[1], scores[0])]
    assert names == ["first", "second", "second", "first"]
