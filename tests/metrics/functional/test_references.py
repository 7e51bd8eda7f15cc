"""The metrics against other libraries, with the difference in convention stated beside each comparison."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import quantus
import torch
import torchcam.methods
from pytorch_grad_cam.metrics import arcc
from pytorch_grad_cam.metrics import road as imputer
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric
from torchvision.transforms.v2.functional import gaussian_blur

from captum_scorecam.metrics import functional as F

N, SIZE = 6, (8, 10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(channels: int = 3) -> Tensor:
    return torch.rand(N, channels, *SIZE, generator=generator())


def maps() -> Tensor:
    """Returns maps scaled to [0, 1], without ties."""
    x = torch.rand(N, 1, *SIZE, generator=generator(1))
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low)


def classifier(channels: int = 3) -> nn.Sequential:
    """Returns a net whose layer has the images' size, so that no library resizes a map."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution, head = nn.Conv2d(channels, 4, 3, padding=1), nn.Linear(64, 5)
        head.weight.data.mul_(10)
    return nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), head).eval()


TARGETS = [0, 1, 2, 3, 4, 0]


# --- Average drop and increase ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "their_target"), [("output", ClassifierOutputTarget), ("probability", ClassifierOutputSoftmaxTarget)]
)
def test_drop_and_increase_of_grad_cam(score: Any, their_target: Any) -> None:
    """grad-cam: the absolute drop, as a fraction; the whole map, multiplied as it is given; raw outputs by default."""
    theirs = (images(), maps()[:, 0].numpy(), [their_target(t) for t in TARGETS], classifier())
    scores = F.masked_input_scores(classifier(), images(), maps(), TARGETS, keep_fraction=None, score=score)
    drop = F.average_drop(*scores, relative=False, reduction="none")
    increase = F.average_increase(*scores, reduction="none")
    torch.testing.assert_close(drop, 100 * torch.from_numpy(DropInConfidence()(*theirs)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(increase, 100 * torch.from_numpy(IncreaseInConfidence()(*theirs)))
    assert 0 < increase.mean() < 100


def torchcam_maps(net: nn.Sequential) -> tuple[torchcam.methods.GradCAM, Tensor]:
    # Its metrics explain the probabilities that they score.
    extractor = torchcam.methods.GradCAM(net, net[1])
    return extractor, extractor(TARGETS, net(images()).softmax(1))[0].unsqueeze(1)


def test_drop_and_increase_of_torchcam() -> None:
    """torchcam: relative drop of probabilities with 1e-7 added to Y, as a fraction; the whole map, scaled to [0, 1]."""
    net = classifier()
    extractor, cams = torchcam_maps(net)
    metric = ClassificationMetric(extractor, partial(torch.softmax, dim=-1))
    metric.update(images(), TARGETS)
    extractor.remove_hooks()
    scores = F.masked_input_scores(net, images(), cams, TARGETS, keep_fraction=None)
    theirs = metric.summary()
    assert F.average_drop(*scores).item() == pytest.approx(100 * theirs["avg_drop"], rel=1e-4)
    assert F.average_increase(*scores).item() == pytest.approx(100 * theirs["conf_increase"])
    assert 0 < theirs["conf_increase"] < 1


# --- Insertion and deletion -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "blank",
    [torch.zeros_like, partial(gaussian_blur, kernel_size=[5, 5], sigma=[2.0, 2.0])],
    ids=["zeros", "blur"],
)
def test_insertion_and_deletion_of_torchcam(blank: Callable[[Tensor], Tensor]) -> None:
    """torchcam: as here, with a number of steps for a fraction; the mean over examples."""
    net = classifier()
    extractor, cams = torchcam_maps(net)
    metric = DeletionInsertionMetric(extractor, partial(torch.softmax, dim=-1), steps=10, baseline=blank)
    metric.update(images(), TARGETS)
    extractor.remove_hooks()
    theirs = metric.summary()
    for name, function in [("insertion_auc", F.insertion), ("deletion_auc", F.deletion)]:
        curve = function(net, images(), cams, TARGETS, step=0.1, baselines=blank)
        assert curve.auc.mean().item() == pytest.approx(theirs[name], rel=1e-5)


@pytest.mark.parametrize("softmax", [True, False])
def test_deletion_is_quantus_pixel_flipping(softmax: bool) -> None:
    """Quantus: flips features, not pixels, so one channel; black is an image's minimum; no score of the full image."""
    x = images(1)
    x.flatten(1)[:, 0] = 0
    metric = quantus.PixelFlipping(features_in_step=8, perturb_baseline="black", normalise=False, disable_warnings=True)
    theirs = metric(
        classifier(1), x.numpy(), np.array(TARGETS), a_batch=maps().numpy(), softmax=softmax, channel_first=True
    )
    curve = F.deletion(classifier(1), x, maps(), TARGETS, step=0.1, score="probability" if softmax else "output")
    torch.testing.assert_close(curve.scores[:, 1:], torch.tensor(theirs), rtol=1e-4, atol=1e-6)


# --- Pointing games ---------------------------------------------------------------------------------------------------


def regions() -> Tensor:
    masks = torch.zeros(N, *SIZE, dtype=torch.bool)
    for n in range(N):
        masks[n, n // 2 : n // 2 + 3, n : n + 5] = True
    return masks


def quantus_value(metric: Any, attributions: Tensor) -> Tensor:
    values = metric(
        classifier(), images().numpy(), np.array(TARGETS), a_batch=attributions.numpy(),
        s_batch=regions()[:, None].numpy(), channel_first=True,
    )  # fmt: skip
    return torch.as_tensor(np.array(values, dtype=np.float32))


def test_energy_is_quantus_attribution_localisation() -> None:
    """Quantus: absolute values by default; 1e-9 added to the total."""
    metric = quantus.AttributionLocalisation(
        positive_attributions=True, abs=False, normalise=False, disable_warnings=True
    )
    signed = maps() - 0.3
    found = F.energy_pointing_game(signed, regions(), reduction="none")
    torch.testing.assert_close(found, quantus_value(metric, signed), rtol=1e-5, atol=1e-6)


def test_pointing_game_is_quantus() -> None:
    """Quantus: no tolerance; any of several equal maxima may hit."""
    metric = quantus.PointingGame(abs=False, normalise=False, disable_warnings=True)
    found = F.pointing_game(maps(), regions(), tolerance=0, reduction="none")
    assert torch.equal(found, quantus_value(metric, maps()))
    assert 0 < found.mean() < 1


# --- Similarities of the sanity check ---------------------------------------------------------------------------------


def test_similarities_of_quantus_and_skimage() -> None:
    """Quantus: the cosine's distance from 1. skimage: sample variances by default, no windows across edges."""
    net = classifier()
    explained: list[Tensor] = []

    def explain(x: Tensor) -> Tensor:
        explained.append(net[:2](x).detach().sum(1, keepdim=True))
        return explained[-1]

    (record,) = F.cascading_parameter_randomization(net, explain, images(), layers=["0"], generator=generator())
    before, after = (x[:, 0] for x in explained)
    spearman, cosine = quantus.similarity_func.correlation_spearman, quantus.similarity_func.cosine
    for n in range(N):
        a, b = after[n].flatten().numpy(), before[n].flatten().numpy()
        assert record.spearman[n].item() == pytest.approx(spearman(a, b), abs=1e-6)
        assert record.cosine[n].item() == pytest.approx(1 - cosine(a, b), abs=1e-6)
    scaled = [(x - x.amin((1, 2), True)) / (x.amax((1, 2), True) - x.amin((1, 2), True)) for x in (after, before)]
    # skimage averages windows inside the map only; mirrored padding adds those across its edges.
    padded = [np.pad(x[0].numpy(), 3, mode="reflect") for x in scaled]
    theirs = structural_similarity(*padded, data_range=1.0, use_sample_covariance=False)
    assert record.ssim[0].item() == pytest.approx(theirs, abs=1e-5)


# --- Concentration, rank accuracy, ROAD and ADCC ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Sparseness", "Complexity"])
def test_sparseness_and_complexity_of_quantus(name: str) -> None:
    """Quantus: 1e-7 added to each value before the Gini index, 1e-12 to each share before the logarithm."""
    metric = getattr(quantus, name)(abs=True, normalise=False, disable_warnings=True)
    signed = maps() - 0.3
    found = getattr(F, name.lower())(signed, reduction="none")
    torch.testing.assert_close(found, quantus_value(metric, signed), rtol=1e-4, atol=1e-5)


def test_relevance_mass_and_rank_of_quantus() -> None:
    """Quantus: negative values lower the mass, so non-negative maps here; ties are in NumPy's order, so none here."""
    for name, function in [("RelevanceMassAccuracy", F.relevance_mass), ("RelevanceRankAccuracy", F.relevance_rank)]:
        metric = getattr(quantus, name)(abs=False, normalise=False, disable_warnings=True)
        found = function(maps(), regions(), reduction="none")
        torch.testing.assert_close(found, quantus_value(metric, maps()), rtol=1e-5, atol=1e-6)


def test_the_random_logit_test_of_quantus() -> None:
    """Quantus: the similarity of flat maps, here the rank correlation; draws the other class with NumPy."""
    others = torch.rand(N, 1, *SIZE, generator=generator(2))
    metric = quantus.RandomLogit(
        similarity_func=quantus.similarity_func.correlation_spearman, num_classes=5, normalise=False,
        disable_warnings=True,
    )  # fmt: skip
    theirs = metric(
        classifier(), images().numpy(), np.array(TARGETS), a_batch=maps().numpy(), channel_first=True,
        explain_func=lambda **_: others.numpy(),
    )  # fmt: skip
    found = F.random_logit(maps(), others, similarity="spearman", reduction="none")
    torch.testing.assert_close(found, torch.tensor(np.array(theirs), dtype=torch.float32), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
def test_road_of_grad_cam(monkeypatch: pytest.MonkeyPatch) -> None:
    """grad-cam: thresholds at percentiles instead of counts, the same without ties; noise that isn't seeded."""
    monkeypatch.setattr(imputer.NoisyLinearImputer.__init__, "__defaults__", (0.0, imputer.neighbors_weights))
    targets = [ClassifierOutputSoftmaxTarget(t) for t in TARGETS]
    theirs = imputer.ROADCombined()(images(), maps()[:, 0].numpy(), targets, classifier())
    found = F.road(classifier(), images(), maps(), TARGETS, noise=0)
    torch.testing.assert_close(found.road, torch.from_numpy(theirs), rtol=1e-4, atol=1e-6)
    assert found.road.abs().max() > 0.01


def test_coherency_and_complexity_of_grad_cam() -> None:
    """grad-cam: maps in [0, 1] as they are given, not scaled; 1e-8 added to the product of standard deviations."""
    others = torch.rand(N, 1, *SIZE, generator=generator(2))
    seen: list[Tensor] = []

    def explain(input_tensor: Tensor, targets: Any) -> Any:  # noqa: ARG001
        seen.append(input_tensor)
        return others[:, 0].numpy()

    theirs = arcc.Coherency()(images(), maps()[:, 0].numpy(), None, None, explain)
    torch.testing.assert_close(
        F.coherency(maps(), others, reduction="none"), torch.from_numpy(theirs), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(F.explanation_map(images(), maps()), seen[0])
    complexities = torch.from_numpy(arcc.Complexity()(maps()[:, 0].numpy()))
    torch.testing.assert_close(F.l1_complexity(maps(), reduction="none"), complexities, rtol=1e-5, atol=0)
