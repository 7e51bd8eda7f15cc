"""What the study adds: LayerCAM, two controls that ignore the image, and curves in 28 steps of 3.6 %."""

import torch
from captum.attr import LayerGradientXActivation

from captum_scorecam.evaluation import (
    Curve,
    Method,
    MethodRun,
    Metric,
    MetricResult,
    register_captum,
    register_method,
    register_metric,
)
from captum_scorecam.metrics.functional import deletion, insertion, srg


class LayerCAM(LayerGradientXActivation):
    """Activation times positive gradients (Jiang et al., 2021), for a layer that ends in a ReLU."""

    def attribute(self, *args, **kwargs):
        """Returns the maps of the channels, N×K×spatial, whose sum is the map."""
        return super().attribute(*args, **kwargs).relu()


def centre(request):
    """A Gaussian in the middle of the image."""
    grid = torch.meshgrid(*[torch.linspace(-2, 2, n) for n in request.inputs.shape[2:]], indexing="ij")
    return torch.stack(grid).square().sum(0).neg().exp().expand(1, 1, -1, -1), MethodRun(0)


def uniform(request):
    """The same value everywhere."""
    return torch.ones(1, 1, *request.inputs.shape[2:]), MethodRun(0)


def in_28_steps(function, metric_input):
    """Runs insertion, deletion or SRG."""
    request = metric_input.request
    return function(
        request.forward_of_masked,
        request.inputs,
        metric_input.maps,
        metric_input.target,
        step=1 / 28,
        score=request.score,
        perturbations_per_eval=metric_input.perturbations_per_eval,
    )


def area(function):
    """The metric of insertion or deletion."""

    def compute(metric_input):
        curve = in_28_steps(function, metric_input)
        return MetricResult(float(curve.auc), Curve(curve.fractions.tolist(), curve.scores.flatten().tolist()))

    return compute


def gain(metric_input):
    """The metric SRG."""
    curves = in_28_steps(srg, metric_input)
    return MetricResult(
        float(curves.srg), Curve(curves.fractions.tolist(), (curves.lerf - curves.morf).flatten().tolist())
    )


register_captum("layer_cam", LayerCAM, title="LayerCAM")
register_method("centre", Method(centre, of_layer=False, title="Centre", in_chunks=False))
register_method("uniform", Method(uniform, of_layer=False, title="Uniform", in_chunks=False))
for name, title, higher_is_better, compute, lowest, axes in (
    ("insertion_28", "Insertion, AUC", True, area(insertion), 0, ("Share of pixels inserted", "Class score")),
    ("deletion_28", "Deletion, AUC", False, area(deletion), 0, ("Share of pixels deleted", "Class score")),
    ("srg_28", "SRG", True, gain, -1, ("Share of pixels removed", "LeRF − MoRF")),
):
    register_metric(Metric(name, title, higher_is_better, compute, range=(lowest, 1), in_chunks=True, axes=axes))
