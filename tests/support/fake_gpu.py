"""Two GPUs that need no driver: their tensors hold their values on the CPU and fail where those on CUDA would.

Tensors report ``gpu:0`` or ``gpu:1``. Operations on tensors of several devices raise CUDA's errors, and what would wait
for the GPU is counted. Gradients are not supported. :func:`install` changes PyTorch for good, so it belongs into a
process of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

T = TypeVar("T", Tensor, nn.Module)

CPU = torch.device("cpu")
AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
INDEXING = ("index", "index_put_", "_index_put_impl_")
WAITING = ("_local_scalar_dense", "equal", "nonzero", "_unique2", "masked_select")

waits: Counter[str] = Counter()  # what has waited for the GPU


class FakeTensor(Tensor):
    """A tensor that reports to be on a GPU.

    Attributes:
        content (Tensor): Its values, on the CPU.
        place (torch.device): The device that it reports.
    """

    content: Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, content: Tensor, place: torch.device) -> FakeTensor:
        made: FakeTensor = Tensor._make_wrapper_subclass(
            cls,
            content.size(),
            strides=content.stride(),
            storage_offset=content.storage_offset(),
            dtype=content.dtype,
            layout=content.layout,
            device=place,
        )
        made.content, made.place = content, place
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> Any:  # type: ignore[override]
        return f"FakeTensor({self.content!r}, {self.place})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        waits["tolist"] += 1
        return self.content.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.place} device type tensor to numpy")


class FakeGpus(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which tensors are made on the GPUs, too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        asked = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        if asked is not None and asked.type == "gpu":
            kwargs["device"] = torch.device("gpu", asked.index or 0)
        elif not any(isinstance(x, FakeTensor) for x in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        return _run(func, args, kwargs)


def install() -> None:
    """Registers the GPUs with PyTorch."""

    class Module(backend_registration._DummyBackendModule):
        def device_count(self) -> int:
            return 2

        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.float16, torch.bfloat16]

    backend_registration._setup_privateuseone_for_python_backend("gpu", backend_module=Module())
    torch.accelerator.synchronize = lambda *_: waits.update(["synchronize"])
    torch.tensor, torch.as_tensor = _made_by(torch.tensor), _made_by(torch.as_tensor)
    new_tensor = Tensor.new_tensor

    def new(self: Tensor, data: Any, **options: Any) -> Tensor:
        if not isinstance(self, FakeTensor):
            return new_tensor(self, data, **options)
        return FakeTensor(self.content.new_tensor(data, **options), self.place)

    Tensor.new_tensor = new  # type: ignore[method-assign, assignment]


def on_gpu(value: T, index: int) -> T:
    """Returns a tensor on a GPU, or moves a module's parameters and buffers there."""
    place = torch.device("gpu", index)
    if isinstance(value, Tensor):
        return FakeTensor(value, place)
    for module in value.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(FakeTensor(parameter.data, place), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = FakeTensor(buffer, place)
    return value


def on_cpu(x: Tensor) -> Tensor:
    """Returns the values of a tensor on any device."""
    return x.content if isinstance(x, FakeTensor) else x


def _made_by(make: Any) -> Any:
    """Returns ``torch.tensor`` or ``torch.as_tensor`` for the GPUs, too."""

    def made(data: Any, *, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        place = None if device is None else torch.device(device)
        if isinstance(data, FakeTensor) or (isinstance(data, Tensor) and place is not None and place.type == "gpu"):
            return data.to(device=place or data.device, dtype=dtype or data.dtype)
        if place is not None and place.type == "gpu":
            return FakeTensor(make(data, dtype=dtype, **options), place)
        tensor: Tensor = make(data, dtype=dtype, device=device, **options)
        return tensor

    return made


def _place(x: Tensor) -> torch.device:
    return x.place if isinstance(x, FakeTensor) else CPU


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the CPU's values, once CUDA would have run it."""
    if func is torch.ops.prim.device.default:
        return args[0].place
    name = func._schema.name.split("::")[1]
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    place = _place_of_result(func, name, args, kwargs.get("device"), tensors)
    generators = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Generator)]
    if generators and generators[0].device.type != place.type:
        raise RuntimeError(f"Expected a '{place.type}' device type for generator but found '{generators[0].device}'")
    if any(isinstance(x, FakeTensor) for x in tensors) and (
        name in WAITING or (name in ("_to_copy", "copy_") and {_place(x) for x in tensors} | {place} > {CPU})
    ):
        waits[name] += 1
    args, kwargs = tree_map(_values, args), tree_map(_values, kwargs)
    if kwargs.get("device") is not None:
        kwargs["device"] = CPU
    wrappers = {id(x.content): x for x in tensors if isinstance(x, FakeTensor)}

    def wrapped(x: Any) -> Any:
        if not isinstance(x, Tensor) or place == CPU:
            return x
        return wrappers[id(x)] if id(x) in wrappers else FakeTensor(x, place)  # in-place operations return their own

    return tree_map(wrapped, func(*args, **kwargs))


def _values(x: Any) -> Any:
    return on_cpu(x) if isinstance(x, Tensor) else x


def _place_of_result(func: Any, name: str, args: Any, asked: Any, tensors: list[Tensor]) -> torch.device:
    """Returns the device of an operation's result.

    Raises:
        RuntimeError: If CUDA has no such operation for tensors of these devices.
    """
    if name in INDEXING:
        own = _place(args[0])
        for indices in args[1]:
            if indices is not None and _place(indices) not in (CPU, own):
                raise RuntimeError(
                    "indices should be either on cpu or on the same device as the indexed tensor "
                    f"({own}), got {_place(indices)}"
                )
        return own
    if asked is not None:
        return torch.device(asked)
    if name == "copy_":
        return _place(args[0])
    # Operations take numbers, tensors without dimensions, from the CPU.
    places = {_place(x) for x in tensors if x.dim() or isinstance(x, FakeTensor)}
    if len(places) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {places} in {func}")
    return next(iter(places), CPU)
