"""What PyTorch computes float32 convolutions and matrix products in: TF32 by default in convolutions on newer GPUs."""

from __future__ import annotations

import torch

EPSILONS = {"tf32": 2**-10, "bf16": 2**-7}


def convolution_epsilon(device: torch.device) -> float:
    """Returns the relative distance of neighbouring numbers in float32 convolutions."""
    if not hasattr(torch.backends.cudnn, "conv"):  # before PyTorch 2.9
        return _epsilon("tf32" if device.type == "cuda" and torch.backends.cudnn.allow_tf32 else "ieee", device)
    backend = torch.backends.cudnn if device.type == "cuda" else torch.backends.mkldnn
    return _epsilon(backend.conv.fp32_precision, device)


def float32_epsilon(device: torch.device) -> float:
    """Returns the relative distance of neighbouring numbers where float32 is rounded most on a device."""
    if not hasattr(torch.backends.cudnn, "conv"):  # before PyTorch 2.9
        product = {"medium": "bf16", "high": "tf32"}.get(torch.get_float32_matmul_precision(), "ieee")
    else:
        backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
        product = backend.matmul.fp32_precision
    return max(convolution_epsilon(device), _epsilon(product, device))


def _epsilon(precision: str, device: torch.device) -> float:
    full = torch.finfo(torch.float32).eps
    return EPSILONS.get(precision, full) if device.type != "cuda" or _has_tf32(device) else full


def _has_tf32(device: torch.device) -> bool:
    """Checks whether a GPU can do what the settings allow: NVIDIA's can from Ampere on, compute capability 8.0.

    True without a GPU, where nothing but the settings is known.
    """
    if not torch.cuda.is_available():
        return True
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)
