"""
Make Score-CAM faster
=====================

Gradient methods need one pass through the network. Score-CAM needs one for each channel of the layer, hundreds or
thousands of them. :class:`~captum_scorecam.ScoreCAM` adds little to those passes, so there are two ways to go faster:
run fewer passes, or make each pass cheaper. This tutorial shows both, times every option while it is built, and states
what each costs in accuracy.

The model is EfficientNet-Lite0 with its ImageNet weights, on images of 160 pixels. All times were measured on the
machine that built this page. Yours will differ; the ratios are more informative, and each section explains what they
depend on.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from unittest import mock

import matplotlib.pyplot as plt
import torch
from captum.attr import LayerGradCam
from skimage import data
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import MobileNetV2

from captum_scorecam import ScoreCAM, overlay
from captum_scorecam.models import imagenet_class_names, load_classifier

SIZE = 160

model = load_classifier("efficientnet_lite0").model
image = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None, :, :, 75:375].float()  # a cat, 300×300
inputs = F.interpolate((image - 127) / 128, (SIZE, SIZE), mode="bilinear", antialias=True)
with torch.no_grad():
    probabilities = model(inputs).softmax(1)[0]
target = int(probabilities.argmax())
layer = model.get_submodule("_avg_pooling")
print(f"{imagenet_class_names()[target]} ({probabilities[target]:.0%}), {torch.get_num_threads()} threads")


def explain(score_cam: ScoreCAM, perturbations_per_eval: int | None = None) -> Tensor:
    """Computes the map of the target at the layer's input."""
    return score_cam.attribute(
        inputs, target, attribute_to_layer_input=True, perturbations_per_eval=perturbations_per_eval
    )


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Returns the result of a call and its seconds."""
    start = perf_counter()
    result = call()
    return result, perf_counter() - start


def fastest(call: Callable[[], Tensor]) -> float:
    """Returns the shorter time of two calls, as the first may include one-time costs."""
    return min(timed(call)[1] for _ in range(2))


def correlation(first: Tensor, second: Tensor) -> float:
    """Computes the correlation of two maps."""
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


# %%
# What a map costs
# ----------------
#
# We compare a map that uses all channels, a gradient map, and bare forwards: the same number of rows through the model,
# without masks. The difference between the first and the last is the overhead of the method itself. (All weightings
# cost the same, but ``"increase"`` runs one more row per image. This tutorial uses that of the released code, because
# ``tolerance`` requires it.)

released = partial(ScoreCAM, model, layer, score="probability", channel_weighting="score")

score_cam = released()
full = explain(score_cam)  # warms up, and tunes the rows per forward
full_seconds = fastest(partial(explain, score_cam))
run = score_cam.last_run


def gradient_map() -> Tensor:
    return LayerGradCam(model, layer).attribute(inputs, target, attribute_to_layer_input=True)


def bare_forwards() -> Tensor:
    batch = inputs.expand(run.rows_per_forward, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return torch.cat([model(batch[: run.rows - done]) for done in range(0, run.rows, run.rows_per_forward)])


gradient_seconds, bare_seconds = fastest(gradient_map), fastest(bare_forwards)
print(f"LayerGradCam             {gradient_seconds:6.2f} s")
print(f"ScoreCAM, {run.rows} rows       {full_seconds:6.2f} s, {1000 * full_seconds / run.rows:.1f} ms per row")
print(f"bare forwards, {run.rows} rows  {bare_seconds:6.2f} s, {1000 * bare_seconds / run.rows:.1f} ms per row")

# %%
# The layer has 1280 channels, but the model ran far fewer rows. ``last_run`` explains why:

print(run)

# %%
# A channel whose map is constant (after a ReLU: all zero) cannot mask anything. A channel whose map is a scaled copy of
# another yields the same mask. The former are skipped, the latter share a forward. Neither changes the map, so neither
# is an option: both are always on.
#
# Fewer passes, approximately: ``max_channels``
# ---------------------------------------------
#
# Faster-Score-CAM uses only the channels whose maps vary most. How many are enough? Here is the same map from few
# channels, from more, and from all. This trades quality for time, so look at the maps, not only at the seconds.

trials = {}
for channels in (8, 32, 128):
    maps, seconds = timed(partial(explain, released(max_channels=channels)))
    trials[f"{channels} channels"] = maps
    print(f"{channels:4} channels {seconds:6.2f} s, correlation with the full map {correlation(maps, full):.3f}")
trials["all channels"] = full

figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
for axis, (name, maps) in zip(axes, trials.items(), strict=True):
    axis.imshow(overlay(((inputs[0].permute(1, 2, 0) + 1) / 2).clamp(0, 1), maps))
    axis.set_title(name, fontsize=11)
    axis.axis("off")
plt.show()

# %%
# Fewer passes, with a guarantee: ``tolerance``
# ---------------------------------------------
#
# With ``score="probability"`` and ``channel_weighting="score"`` every weight lies in [0, 1]. So after the strongest
# channels have run, there is a bound on how much the others can still change the map, scaled to [0, 1]; the run stops
# when the bound falls below ``tolerance``. Here is what that saves, and how much the map actually changed.


def scaled(maps: Tensor) -> Tensor:
    return (maps - maps.min()) / (maps.max() - maps.min())


TOLERANCE = 0.2
within_tolerance = released(tolerance=TOLERANCE)
maps, seconds = timed(partial(explain, within_tolerance))
change = float((scaled(maps) - scaled(full)).abs().max())
print(f"exact          {full_seconds:6.2f} s, {run.rows} rows")
print(f"tolerance {TOLERANCE}  {seconds:6.2f} s, {within_tolerance.last_run.rows} rows, largest change {change:.3f}")
if change > TOLERANCE:
    raise RuntimeError(f"The map changed by {change}, more than the tolerance {TOLERANCE}.")

# %%
# The actual change is below the tolerance, usually far below, because the bound has to hold for the worst possible
# scores of the remaining channels. So ``tolerance`` saves less than ``max_channels``, but it comes with a guarantee.
#
# More from the same passes: ``attribute_targets``
# ------------------------------------------------
#
# A forward pass scores *all* classes. Explaining five classes one after the other costs five times the passes;
# explained together, they share them, and the maps are the same.

top5 = probabilities.topk(5).indices.tolist()
few_channels = ScoreCAM(model, layer, max_channels=32)


def one_by_one() -> Tensor:
    return torch.cat([few_channels.attribute(inputs, c, attribute_to_layer_input=True) for c in top5], 1)


def all_at_once() -> Tensor:
    return few_channels.attribute_targets(inputs, top5, attribute_to_layer_input=True)


separate, separate_seconds = timed(one_by_one)
together, together_seconds = timed(all_at_once)
torch.testing.assert_close(together, separate, rtol=1e-3, atol=1e-4)
print(f"five calls of attribute        {separate_seconds:6.2f} s")
print(
    f"one call of attribute_targets  {together_seconds:6.2f} s, a speed-up of {separate_seconds / together_seconds:.1f}"
)

# %%
# Cheaper passes: half precision
# ------------------------------
#
# ScoreCAM runs under autocast like any other code; scores and weights stay in float32:
#
# .. code-block:: python
#
#     with torch.autocast("cpu", dtype=torch.bfloat16):  # or "cuda"
#         maps = score_cam.attribute(inputs, target)
#
# Whether this is faster depends on the hardware. Recent GPUs benefit, as do CPUs with bfloat16 instructions (AVX-512
# BF16, AMX, recent Arm). A CPU without them emulates bfloat16 and may be many times slower. Time a small batch before
# you start a long run:


def two_rows() -> Tensor:
    with torch.no_grad():
        return model(inputs.expand(2, -1, -1, -1).contiguous(memory_format=torch.channels_last))


def autocast(call: Callable[[], Tensor]) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return call()


float32_seconds, bfloat16_seconds = fastest(two_rows), fastest(partial(autocast, two_rows))
print(f"2 rows: {float32_seconds:.3f} s in float32, {bfloat16_seconds:.3f} s in bfloat16")
print(f"float32 / bfloat16: {float32_seconds / bfloat16_seconds:.2f}")

# %%
# Under autocast the map changes slightly: bfloat16 keeps two to three significant digits of a score, and the softmax
# over the channels turns differences of scores into ratios of weights. With eight channels and the default weighting:

eight_channels = ScoreCAM(model, layer, max_channels=8)
exact = explain(eight_channels)
rounded = autocast(partial(explain, eight_channels))
print(f"correlation of the bfloat16 map with the float32 map: {correlation(rounded.float(), exact):.3f}")

# %%
# Cheaper passes: ``torch.compile``
# ---------------------------------
#
# Compile the model and pass ScoreCAM both: the compiled model to run, and the layer of the original model to read.
# Chunks then have few shapes (the last one is padded), and each is compiled once. Compilation itself takes seconds to
# minutes, so it must pay off. We measure this on the first blocks of a MobileNetV2, small enough to compile on this
# page, and compute the break-even point.

network = MobileNetV2(num_classes=10, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 1, 2]]).eval()
batch = F.interpolate(inputs, (64, 64), mode="bilinear").repeat(8, 1, 1, 1)

eager = ScoreCAM(network, network.features[-2])
expected = eager.attribute(batch, target=0)
rows = eager.last_run.rows
eager_seconds = fastest(lambda: eager.attribute(batch, target=0))
print(f"eager:    {eager_seconds:.2f} s for {rows} rows")

if shutil.which(os.environ.get("CXX", "g++")):
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns about CUDA tools without a GPU
    compiled = ScoreCAM(torch.compile(network), network.features[-2])
    # An empty cache, so that the first call really compiles.
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": cache}):
        maps, first_seconds = timed(lambda: compiled.attribute(batch, target=0))
        compiled_seconds = fastest(lambda: compiled.attribute(batch, target=0))
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)
    print(f"compiled: {compiled_seconds:.2f} s, and {first_seconds:.1f} s for the first call, which compiles")
    saved_per_row = (eager_seconds - compiled_seconds) / rows
    if saved_per_row > 0:
        print(f"break-even: after {(first_seconds - compiled_seconds) / saved_per_row:,.0f} rows")
    else:
        print("no break-even: the compiled network is not faster on this machine")
else:
    print("compiled: not measured; torch.compile needs a C++ compiler on a CPU, and there is none here")

# %%
# For a single map, compilation does not pay off. For a data set, check the break-even point of your own model. Autocast
# and compilation can be combined: run the call above under autocast.
#
# Chunks and memory: ``perturbations_per_eval``
# ---------------------------------------------
#
# Masked inputs exist one chunk at a time. ``perturbations_per_eval`` limits how many of them each example has in a
# forward. By default the size is tuned on the actual work: chunks start small and double as long as that is worthwhile.
# The ``ScoreCAM`` object keeps the result, so reuse the object. Set a number if memory is short. On a GPU, a chunk that
# does not fit into memory is halved and retried in either case; on a CPU, Linux usually ends the process instead.
#
# The peak below is what PyTorch allocated during the call, according to its profiler.


def peak_mebibytes(call: Callable[[], Tensor]) -> float:
    """Profiles a call and returns the peak of its allocations."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    allocated = 0
    peak = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        allocated += event["args"]["Bytes"]
        peak = max(peak, allocated)
    return peak / 2**20


print("rows per forward  seconds  peak MiB")
for limit in (1, 4, 16, None):
    call = partial(explain, few_channels, perturbations_per_eval=limit)
    _, seconds = timed(call)
    size = few_channels.last_run.rows_per_forward
    print(f"{size if limit else f'{size} (tuned)':>16} {seconds:8.2f} {peak_mebibytes(call):9.1f}")

# %%
# Memory grows with the chunk. Speed grows only while the hardware has capacity left: on a CPU that usually ends at a
# few rows, on a GPU much later. The map does not depend on the chunk size.
#
# More machines: ``process_group``
# --------------------------------
#
# A data set is best split by images, with a share for each process. For few images with many channels there is another
# way: the passes of one call are independent, so the ranks of a process group can share them. Each of W ranks runs
# every W-th masked input, and all of them return the complete map. Every rank makes the same call. Here is a complete
# script, for ``torchrun --standalone --nproc-per-node 2 shared.py``:

SCRIPT = """
import torch
import torch.distributed as dist
from captum_scorecam import ScoreCAM

dist.init_process_group("gloo")  # "nccl" for GPUs
torch.manual_seed(0)
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 48, 5, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(),
    torch.nn.Linear(768, 10),
).eval()
inputs = torch.rand(2, 3, 64, 64)
rows = []
hook = network.register_forward_pre_hook(lambda module, arguments: rows.append(len(arguments[0])))
shared = ScoreCAM(network, network[1]).attribute(inputs, target=3, process_group=dist.group.WORLD)
n_shared = sum(rows)
alone = ScoreCAM(network, network[1]).attribute(inputs, target=3)
torch.testing.assert_close(shared, alone)
counts = [None] * dist.get_world_size()
dist.all_gather_object(counts, (n_shared, sum(rows) - n_shared))
if dist.get_rank() == 0:
    for rank, (n_shared, n_alone) in enumerate(counts):
        print(f"rank {rank}: {n_shared} rows in the shared call, {n_alone} alone, the same map")
dist.destroy_process_group()
"""

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "shared.py"
    path.write_text(SCRIPT)
    # The same as torchrun:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(path)]
    finished = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
if finished.returncode:
    raise RuntimeError(finished.stderr)
print(finished.stdout)

# %%
# Each rank runs the two unmasked images, to read the activations, and its share of the masked ones. Here both ranks run
# on the same CPU, so this demonstrates the split and the equal maps, not a speed-up. On two GPUs, each would run half
# of the forwards.
#
# Summary
# -------
#
# ====================================  ===================  ============================================
# option                                map                  use it for
# ====================================  ===================  ============================================
# constant and equal masks              the same             always on
# ``attribute_targets``                 the same             several classes of one input
# ``perturbations_per_eval``            the same             limited memory; otherwise leave it tuned
# ``process_group``                     the same             several GPUs, few inputs
# ``torch.compile``                     the same, rounding   enough rows to pay for the compilation
# ``tolerance``                         within the bound     the weighting of the released code
# ``torch.autocast``                    close                hardware with half precision
# ``max_channels``                      an approximation     exploring; check the number of channels
# ``max_forwards``, ``error``           predicted, ± error   a few per cent of the passes
# ``masked_forward_func``               the same, rounding   ONNX Runtime or OpenVINO on a CPU
# ``freed_memory_kept()``               the same             Linux, CPU, outputs beyond 32 MiB
# ====================================  ===================  ============================================
#
# The last three are not timed here: :ref:`sphx_glr_tutorials_in_a_second.py` shows ``max_forwards`` and ``error``,
# :doc:`/guide/speed_and_memory` the other two. Options can be combined, but ``tolerance`` excludes ``process_group``,
# ``max_forwards`` and ``error``. Before a large run, check approximations
# against the full map of a few inputs, as this tutorial did.
