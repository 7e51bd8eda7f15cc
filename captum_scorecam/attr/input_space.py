"""Resizes layer attributions to the shape of the inputs."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from captum.attr import Attribution, LayerAttribution
from captum.log import log_usage
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import Tensors
from captum_scorecam._messages import check_choice
from captum_scorecam.masking.scaling import INTERPOLATION_MODES

InterpolationMode: TypeAlias = Literal["nearest", "nearest-exact", "area", "linear", "bilinear", "bicubic", "trilinear"]


class InputSpaceAttribution(Attribution):
    """Resizes a layer attribution's map to the shape of the inputs.

    Captum's ``infidelity`` and ``sensitivity_max``, as well as Quantus, expect attributions with the shape of the
    inputs, and a tuple for a tuple. A layer map N×1×h×w is resized to the input's spatial size and
    repeated over its channels. Any layer attribution that returns one map can be wrapped, such as Captum's
    ``LayerGradCam``.

    Args:
        attribution (LayerAttribution): The layer attribution method.
        interpolate_mode (str, optional): A mode of ``torch.nn.functional.interpolate``. Default: None: linear, bilinear
            or trilinear, depending on the map's rank.

    Raises:
        TypeError: If `attribution` is not a layer attribution.
        ValueError: If `interpolate_mode` is unknown.

    Example:
        >>> import torch
        >>> from captum.attr import LayerGradCam
        >>> from captum_scorecam import InputSpaceAttribution
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8, stride=8), torch.nn.Flatten())
        >>> InputSpaceAttribution(LayerGradCam(model, model[0])).attribute(torch.rand(2, 3, 32, 32), target=0).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, attribution: LayerAttribution, interpolate_mode: InterpolationMode | None = None) -> None:
        if not isinstance(attribution, LayerAttribution):
            raise TypeError(f"Expected `attribution` to be a LayerAttribution, but got {type(attribution).__name__}.")
        if interpolate_mode is not None:
            check_choice("interpolate_mode", interpolate_mode, InterpolationMode)
        super().__init__(attribution.forward_func)
        self.attribution = attribution
        self.interpolate_mode = interpolate_mode

    @property
    def multiplies_by_inputs(self) -> bool:
        """Same as for the wrapped attribution."""
        return bool(self.attribution.multiplies_by_inputs)

    @log_usage()
    def attribute(self, inputs: Tensor | Tensors, *args: Any, **kwargs: Any) -> Tensor | Tensors:
        """Computes the wrapped attribution and resizes its map.

        Args:
            inputs (Tensor or tuple of Tensor): Each N×C×spatial.
            *args, **kwargs: Further arguments of the wrapped ``attribute``.

        Returns:
            Tensor or tuple of Tensor: One attribution per input, with its shape and dtype (of an integer input, the
                map's), contiguous; a tuple if `inputs` is a tuple.

        Raises:
            ValueError: If the wrapped attribution returns several maps, or its map and an input differ in spatial rank.
        """
        maps = self.attribution.attribute(inputs, *args, **kwargs)
        if not isinstance(maps, Tensor):
            raise ValueError(f"Expected one map from the layer, but got {len(maps)}.")
        resized = tuple(self._resized(maps, x) for x in _captum.format_inputs(inputs))
        return resized if isinstance(inputs, tuple) else resized[0]

    def _resized(self, maps: Tensor, inputs: Tensor) -> Tensor:
        if maps.dim() != inputs.dim() or maps.dim() - 2 not in INTERPOLATION_MODES:
            raise ValueError(
                f"Expected a map with the spatial dimensions of the input {tuple(inputs.shape)}, "
                f"but got shape {tuple(maps.shape)}."
            )
        mode = self.interpolate_mode or INTERPOLATION_MODES[maps.dim() - 2]
        summed = converted(maps, inputs.dtype if inputs.is_floating_point() else maps.dtype).sum(1, keepdim=True)
        resized: Tensor = LayerAttribution.interpolate(summed, tuple(inputs.shape[2:]), mode)
        return resized.expand_as(inputs).contiguous()


def over_channels(maps: Tensors, inputs: Tensor | Tensors) -> Tensor | Tensors:
    """Repeats maps N×1×size, one per input, over the channels of the inputs.

    Returns:
        Tensor or tuple of Tensor: One tensor per input, of its shape, dtype and device, contiguous; a tuple if
        `inputs` is a tuple.
    """
    repeated = tuple(
        converted(m, x.dtype).to(x).expand_as(x).contiguous()
        for m, x in zip(maps, _captum.format_inputs(inputs), strict=True)
    )
    return repeated if isinstance(inputs, tuple) else repeated[0]


def converted(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """Converts maps to the dtype of the inputs.

    Raises:
        ValueError: If a finite value is beyond its range.
    """
    found = maps.to(dtype)
    if torch.finfo(dtype).max < torch.finfo(maps.dtype).max and not torch.equal(found.isinf(), maps.isinf()):
        raise ValueError(
            f"Expected maps within the range of the inputs' {dtype}, but values reach {float(maps.abs().amax()):.3g}. "
            "Pass inputs in bfloat16 or float32."
        )
    return found
