"""``auto``: the last maps that the output depends on, or an error; never a stem, a branch, or an attention matrix."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import vit_activation_maps
from captum_scorecam.layers import ExplainedLayer, find_layer
from captum_scorecam.layers.layer_choice import FoundLayers
from tests.support.token_nets import (
    ChannelsLastNet,
    ClassAttentionNet,
    DeadBranchNet,
    SequenceFirstNet,
    TokenNet,
    TwoStreamNet,
    WindowNet,
)


def seeded(net: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return net().eval()


def maps_of(model: nn.Module, layer: ExplainedLayer, inputs: Tensor) -> Tensor:
    found: list[Tensor] = []
    if layer.of_input:
        hook = layer.module.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    else:
        hook = layer.module.register_forward_hook(lambda _module, _args, output: found.append(output))
    with torch.no_grad():
        model(inputs)
    hook.remove()
    return found[0] if layer.activation_transform is None else layer.activation_transform(found[0])


def assert_follows_the_image(
    model: nn.Module, layer: ExplainedLayer, grid: tuple[int, ...], size: tuple[int, ...]
) -> None:
    """Each of some cells reacts more than the others to a change of its own part of the image."""
    generator = torch.Generator().manual_seed(1)
    inputs, others = (torch.rand(1, 3, *size, generator=generator) for _ in range(2))
    before = maps_of(model, layer, inputs)
    assert tuple(before.shape[2:]) == grid
    for cell in ([0] * len(grid), [n - 1 for n in grid], [n // 2 for n in grid], [0, *(n - 1 for n in grid[1:])]):
        part = [slice(c * s // n, (c + 1) * s // n) for c, n, s in zip(cell, grid, size, strict=True)]
        changed = inputs.clone()
        place: Any = (..., *part)
        changed[place] = others[place]
        reaction = (maps_of(model, layer, changed) - before).square().sum((0, 1))
        assert [int(i) for i in torch.unravel_index(reaction.argmax(), grid)] == cell


@pytest.mark.parametrize(
    ("net", "size", "name", "grid"),
    [
        (lambda: TokenNet(0), (32, 32), "norm", (8, 8)),
        (lambda: TokenNet(0), (32, 48), "norm", (8, 12)),
        (lambda: TokenNet(1), (32, 32), "blocks.3.norm1", (8, 8)),
        (lambda: TokenNet(1), (48, 32), "blocks.3.norm1", (12, 8)),
        (lambda: TokenNet(2), (32, 32), "blocks.3.norm1", (8, 8)),
        (lambda: TokenNet(5), (32, 32), "blocks.3.norm1", (8, 8)),
        (lambda: TokenNet(1, rank=1), (96,), "blocks.3.norm1", (24,)),
        (lambda: TokenNet(0, rank=1), (96,), "norm", (24,)),
        (lambda: TokenNet(1, rank=3), (8, 16, 24), "blocks.3.norm1", (2, 4, 6)),
        (ChannelsLastNet, (32, 32), "norm", (8, 8)),
        (ChannelsLastNet, (24, 40), "norm", (6, 10)),
        (lambda: ChannelsLastNet(width=8), (32, 32), "norm", (8, 8)),
        (SequenceFirstNet, (32, 32), "norm", (8, 8)),
        (ClassAttentionNet, (32, 32), "blocks", (8, 8)),
        (DeadBranchNet, (17, 17), "features", (8, 8)),
    ],
)
def test_auto_selects_maps_in_every_layout(
    net: Callable[[], nn.Module], size: tuple[int, ...], name: str, grid: tuple[int, ...]
) -> None:
    model = seeded(net)
    found = find_layer(model, torch.zeros(1, 3, *size))
    assert found.name == name
    assert_follows_the_image(model, found, grid, size)


def test_the_transform_of_a_square_grid_with_a_class_token_is_the_public_one() -> None:
    assert (
        find_layer(seeded(lambda: TokenNet(1)), torch.zeros(1, 3, 32, 32)).activation_transform is vit_activation_maps
    )


class Pyramid(nn.Module):
    """Maps of two sizes reach the score: the finer ones hold all information, and are no last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 16, 3, stride=2)
        self.coarse = nn.Conv2d(16, 8, 3, stride=2)
        self.head = nn.Linear(24, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        fine = self.fine(inputs)
        scores: Tensor = self.head(torch.cat([fine.mean((2, 3)), self.coarse(fine).mean((2, 3))], dim=1))
        return scores


class ShuffledTokens(TokenNet):
    """Tokens in an order that is not the image's."""

    def __init__(self) -> None:
        super().__init__(0)
        self.register_buffer("order", torch.randperm(64, generator=torch.Generator().manual_seed(0)))

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.stem(inputs).flatten(2).transpose(1, 2)[:, self.order]
        scores: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return scores


class LastStep(nn.Module):
    """A recurrent network over a signal, of which the head reads the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 8, 4, stride=4)
        self.memory = nn.LSTM(8, 16, batch_first=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        steps, _ = self.memory(self.stem(inputs).transpose(1, 2))
        scores: Tensor = self.head(self.norm(steps)[:, -1])
        return scores


class Decoder(nn.Module):
    """Maps made from a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 256))
        self.decoder = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.decoder(self.encoder(inputs).view(-1, 4, 8, 8)).mean((2, 3)))
        return scores


def test_steps_of_which_the_head_reads_one_are_not_explained() -> None:
    with pytest.raises(ValueError, match="none of the later ones is maps on which alone the output depends"):
        find_layer(seeded(LastStep), torch.zeros(1, 3, 64))


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)], ids=["mean", "maximum"])
@pytest.mark.parametrize("seed", range(4))
def test_maps_that_are_pooled_are_explained(pool: nn.Module, seed: int) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 2, 4, stride=4), pool, nn.Flatten(), nn.Linear(2, 3)), seed)
    assert find_layer(model, torch.zeros(1, 3, 32, 32)).name == "0"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("layer", ["auto", "decoder"])
def test_maps_made_from_a_vector_are_not_explained(layer: str, seed: int) -> None:
    with pytest.raises(ValueError, match=r"unknown order|is computed from a vector|does not follow the positions"):
        find_layer(seeded(Decoder, seed), torch.zeros(1, 3, 32, 32), layer)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (TwoStreamNet, "none of the later ones is maps on which alone the output depends"),
        (Pyramid, r"\(8, 7, 7\) of 'coarse' follows .*'fine', and the output does not depend on it alone"),
        (ShuffledTokens, r"\(64, 16\) of 'norm' holds image positions in an unknown order"),
        (WindowNet, "'blocks' has no axis of examples"),
    ],
)
def test_auto_refuses_what_is_uncertain_and_lists_candidates(net: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(
        ValueError, match=f"Expected a model with a layer .*{reason}.*Name the layer; the last"
    ) as error:
        find_layer(seeded(net), torch.zeros(1, 3, 32, 32))
    assert "'stem' (N×" in str(error.value) or "'fine' (N×16×15×15)" in str(error.value)


class BothWays(nn.Module):
    """Adds the scores of an image and of its mirror image, in two calls or in one."""

    def __init__(self, in_one: bool) -> None:
        super().__init__()
        self.net, self.in_one = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), in_one

    def forward(self, inputs: Tensor) -> Tensor:
        if self.in_one:
            both: Tensor = self.net(torch.cat([inputs, inputs.flip(-1)]))
            return both.flatten(1).view(2, len(inputs), -1).mean(0)
        scores: Tensor = self.net(inputs) + self.net(inputs.flip(-1))
        return scores.flatten(1)


@pytest.mark.parametrize("in_one", [False, True])
def test_candidates_that_run_twice_or_merge_rows_are_listed(in_one: bool) -> None:
    shape = "4×8×7×7" if in_one else "2×8×7×7"
    with pytest.raises(ValueError, match=rf"'net\.\d'? ?.*\({shape}\).*for two images.* Explain the model inside"):
        find_layer(seeded(lambda: BothWays(in_one)), torch.zeros(1, 3, 16, 16))


def test_a_model_without_maps_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match="certain to hold the last maps of the image, but no activation with spatial dimensions was seen",
    ):
        find_layer(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.zeros(1, 3, 4, 4))


def test_a_traced_model_is_refused() -> None:
    images = torch.zeros(1, 3, 17, 17)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated
        traced: nn.Module = torch.jit.trace(seeded(DeadBranchNet), images)  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="no hooks are called, as in TorchScript"):
        find_layer(traced, images)


def test_a_model_whose_output_ignores_the_image_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1))
    for parameter in model[1].parameters():
        nn.init.zeros_(parameter)
    with pytest.raises(ValueError, match="its output is the same for two images of noise"):
        find_layer(model, torch.zeros(1, 3, 8, 8))


def test_a_head_of_zeros_does_not_hide_the_layer() -> None:
    model = seeded(lambda: TokenNet(1))
    nn.init.zeros_(model.get_parameter("head.weight"))
    assert find_layer(model, torch.zeros(1, 3, 32, 32)).name == "blocks.3.norm1"


class Wrapped(nn.Module):
    """Returns a model's scores in some other form, and may take more arguments."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.form = seeded(DeadBranchNet), form

    def forward(self, inputs: Tensor, scale: Tensor | None = None) -> Any:
        return self.form(self.net(inputs if scale is None else inputs * scale[:, None, None, None]))


@pytest.mark.parametrize(
    "form",
    [
        lambda scores: SimpleNamespace(logits=scores),
        lambda scores: (scores, scores * 0),
        lambda scores: {"out": scores},
        lambda scores: SimpleNamespace(loss=None, scores=scores),
        lambda scores: [{"scores": row[row > row.mean()]} for row in scores],
        lambda scores: [{"scores": row.repeat(1 + int(100 * row[0].abs()) % 5)} for row in scores],
    ],
    ids=["logits", "tuple", "dict", "fields", "detections", "detections of any number"],
)
def test_outputs_come_in_several_forms(form: Callable[[Tensor], Any]) -> None:
    assert find_layer(Wrapped(form), torch.zeros(1, 3, 17, 17)).name == "net.features"


def test_additional_arguments_with_a_row_per_example_follow_it() -> None:
    model = Wrapped(lambda scores: scores)
    found = find_layer(model, (torch.zeros(3, 3, 17, 17),), additional_forward_args=torch.tensor([1.0, 2.0, 3.0]))
    assert found.name == "net.features"


def test_maps_of_classes_for_every_pixel_are_not_explained() -> None:
    model = seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.Upsample((17, 17)))
    )
    assert find_layer(model, torch.zeros(1, 3, 17, 17)).name == "1"


def test_the_last_maps_may_have_the_shape_of_the_input() -> None:
    convolutions = (nn.Conv1d(8, 32, 7, padding=3), nn.ReLU(), nn.Conv1d(32, 8, 3, padding=1), nn.ReLU())
    model = seeded(lambda: nn.Sequential(*convolutions, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 5)))
    assert find_layer(model, torch.rand(1, 8, 64)).name == "3"


def test_what_is_done_to_the_input_before_any_parameter_is_not_explained() -> None:
    model = seeded(lambda: nn.Sequential(nn.Dropout(), nn.Identity(), nn.Flatten(), nn.Linear(3 * 64, 5)))
    with pytest.raises(ValueError, match="no activation with spatial dimensions was seen"):
        find_layer(model, torch.rand(1, 3, 8, 8))


class InInferenceMode(nn.Module):
    """Runs without gradients in a way that its tensors remember."""

    def __init__(self) -> None:
        super().__init__()
        self.net = seeded(DeadBranchNet)

    @torch.inference_mode()
    def forward(self, inputs: Tensor) -> Any:
        return self.net(inputs)


@pytest.mark.parametrize("layer", ["auto", "net.features"])
def test_a_model_may_run_in_inference_mode(layer: str) -> None:
    assert find_layer(InInferenceMode().eval(), torch.zeros(1, 3, 17, 17), layer).name == "net.features"


class OfTasks(nn.Module):
    """A branch of convolutions for each task."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU()) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(8, 4) for _ in range(2))

    def forward(self, x: Tensor, task: int) -> Any:
        return self.heads[task](self.branches[task](x).mean((2, 3)))


def test_the_layer_is_that_of_each_additional_argument() -> None:
    model, inputs, layers = seeded(OfTasks), (torch.rand(1, 3, 16, 16),), FoundLayers()
    names = [layers.find(model, "auto", None, inputs, (task,), "output").name for task in (0, 1, 0)]
    assert names == ["branches.0", "branches.1", "branches.0"]
