"""
Fast
====

Gradient methods need one pass through the network. Score-CAM needs one for every channel of the layer, hundreds or
thousands of them. What :class:`~captum_scorecam.ScoreCAM` adds to those passes is small, so there are two ways to be
faster: run fewer passes, or make each one cheaper. This page shows all the ways there are, measures them while it is
built, and says what each costs in exactness.

The model is EfficientNet-Lite0, with its ImageNet weights, on images of 160 pixels. All seconds on this page were
measured on the machine that built it. Yours will differ; the ratios tell more, and every section says what they hang
on.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
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

from captum_scorecam import ScoreCAM
from captum_scorecam.models.classifiers import load_classifier

SIZE = 160

classifier = load_classifier("efficientnet_lite0")
model = classifier.model
image = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None, :, :, 75:375].float()  # a cat, 300×300
inputs = F.interpolate((image - 127) / 128, (SIZE, SIZE), mode="bilinear", antialias=True)
with torch.no_grad():
    probabilities = model(inputs).softmax(1)[0]
target = int(probabilities.argmax())
layer = model._avg_pooling
print(f"{classifier.class_names[target]} ({probabilities[target]:.0%}), {torch.get_num_threads()} threads")


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = perf_counter()
    result = call()
    return result, perf_counter() - start


def fastest(call: Callable[[], Tensor]) -> float:
    """The shorter of two times: the first call of anything pays for what later calls find ready."""
    return min(timed(call)[1] for _ in range(2))


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


# %%
# What there is to pay
# --------------------
#
# One map with all channels, one gradient map, and for comparison the bare forwards: the same number of rows through
# the model, without masks, without anything. What lies between is what the method itself costs. (All weightings cost
# the same. This page takes the released code's, because the guarantee below needs it.)

score_cam = ScoreCAM(model, layer)
options = {"attribute_to_layer_input": True, "score": "probability", "channel_weighting": "score"}
score_cam.attribute(inputs, target, **options, max_channels=32)  # warms up, and tunes the chunks
full, full_seconds = timed(lambda: score_cam.attribute(inputs, target, **options))
run = score_cam.last_run


def gradient_map() -> Tensor:
    return LayerGradCam(model, layer).attribute(inputs, target, attribute_to_layer_input=True)


def bare_forwards(rows: int, chunk: int = 4) -> Tensor:
    batch = inputs.expand(chunk, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return torch.cat([model(batch) for _ in range(rows // chunk)])


gradient_seconds = fastest(gradient_map)
row_seconds = fastest(lambda: bare_forwards(32)) / 32
print(f"LayerGradCam             {gradient_seconds:6.2f} s")
print(f"ScoreCAM, {run.rows} rows       {full_seconds:6.2f} s, {1000 * full_seconds / run.rows:.1f} ms a row")
print(f"bare forwards, {run.rows} rows  {row_seconds * run.rows:6.2f} s, {1000 * row_seconds:.1f} ms a row")

# %%
# The layer has 1280 channels, but far fewer rows were run. ``last_run`` tells why:

print(run)

# %%
# A channel whose map is constant (after a ReLU: all zero) can't mask anything. A channel whose map is a scaled copy
# of another's gives the same mask. The first kind is left out, the second shares a forward. Neither changes the map,
# so neither is an option: it is always done.
#
# Fewer passes, an approximation: ``max_channels``
# ------------------------------------------------
#
# Faster-Score-CAM keeps only the channels whose maps vary most. How many are enough? Here is the same map from few of
# them, from more, and from all. This is a choice about quality, so look at the picture, not only at the seconds.

trials = {}
for channels in (8, 32, 128):
    maps, seconds = timed(lambda: score_cam.attribute(inputs, target, **options, max_channels=channels))  # noqa: B023
    trials[f"{channels} channels"] = maps, seconds
    print(f"{channels:4} channels {seconds:6.2f} s, correlation with the full map {correlation(maps, full):.3f}")
trials[f"all, {run.rows} rows"] = full, full_seconds

figure, axes = plt.subplots(1, 4, figsize=(9, 2.8), layout="constrained")
for axis, (name, (maps, seconds)) in zip(axes, trials.items(), strict=True):
    axis.imshow(((inputs[0].permute(1, 2, 0) + 1) / 2).clamp(0, 1))
    heat = F.interpolate(maps, (SIZE, SIZE), mode="bilinear")[0, 0]
    axis.imshow(heat / heat.max(), cmap="jet", alpha=0.5, vmin=0, vmax=1)
    axis.set_title(f"{name}\n{seconds:.2f} s", fontsize=11)
    axis.axis("off")
plt.show()

# %%
# Fewer passes, with a guarantee: ``tolerance``
# ---------------------------------------------
#
# With ``score="probability"`` and ``channel_weighting="score"`` every weight lies in [0, 1]. So after the strongest
# channels have run, the largest change that the others could still make to the map, scaled to [0, 1], is known, and
# the run stops when it falls below ``tolerance``. Here is what was saved, and how far the map really moved from the
# full one.


def scaled(maps: Tensor) -> Tensor:
    return (maps - maps.min()) / (maps.max() - maps.min())


TOLERANCE = 0.2
maps, seconds = timed(lambda: score_cam.attribute(inputs, target, **options, tolerance=TOLERANCE))
change = float((scaled(maps) - scaled(full)).abs().max())
print(f"exact          {full_seconds:6.2f} s, {run.rows} rows")
print(f"tolerance {TOLERANCE}  {seconds:6.2f} s, {score_cam.last_run.rows} rows, largest change {change:.3f}")
if change > TOLERANCE:
    raise RuntimeError(f"The map changed by {change}, more than the tolerance {TOLERANCE}.")

# %%
# The change that happened is no larger than the one that was allowed, and usually far smaller: the bound must hold
# for the worst scores that the remaining channels could have had. So ``tolerance`` gives less speed than
# ``max_channels``, and a promise with it.
#
# More for the same passes: ``attribute_targets``
# -----------------------------------------------
#
# A forward pass scores *all* classes. Five classes explained one after the other cost five times the passes; asked
# for together, they share them, and the maps are the same.

top5 = probabilities.topk(5).indices.tolist()
few = {"attribute_to_layer_input": True, "max_channels": 32}


def one_by_one() -> Tensor:
    return torch.cat([score_cam.attribute(inputs, c, **few) for c in top5], 1)


apart, apart_seconds = timed(one_by_one)
together, together_seconds = timed(lambda: score_cam.attribute_targets(inputs, top5, **few))
torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-4)
print(f"five calls of attribute        {apart_seconds:6.2f} s")
print(f"one call of attribute_targets  {together_seconds:6.2f} s, {apart_seconds / together_seconds:.1f} times as fast")

# %%
# Cheaper passes: half precision
# ------------------------------
#
# Autocast is PyTorch's switch, and ScoreCAM runs under it like any other code (scores and weights stay in float32):
#
# .. code-block:: python
#
#     with torch.autocast("cpu", dtype=torch.bfloat16):  # or "cuda"
#         maps = score_cam.attribute(inputs, target)
#
# Whether it pays is a question to the hardware. GPUs of the last years and CPUs with bfloat16 instructions (AVX-512
# BF16, AMX, recent Arm) gain. A CPU without them emulates bfloat16, and may lose by a large factor. So time one small
# batch before you switch it on for a night's run:


def a_forward() -> Tensor:
    with torch.no_grad():
        return model(inputs.expand(2, -1, -1, -1).contiguous(memory_format=torch.channels_last))


def autocast(call: Callable[[], Tensor]) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return call()


float32_seconds, bfloat16_seconds = fastest(a_forward), fastest(lambda: autocast(a_forward))
gain = float32_seconds / bfloat16_seconds
print(f"2 rows in float32 {float32_seconds:.3f} s, under bfloat16 autocast {bfloat16_seconds:.3f} s")
print(f"here bfloat16 is {gain:.1f} times as fast" if gain > 1 else f"here bfloat16 is {1 / gain:.1f} times slower")

# %%
# The map is not quite the same under autocast: bfloat16 keeps about three digits of a score, and the softmax over the
# channels turns differences of scores into ratios of weights. On eight channels, with the default weighting:

few = {"attribute_to_layer_input": True, "max_channels": 8}
exact = score_cam.attribute(inputs, target, **few)
rounded = autocast(lambda: score_cam.attribute(inputs, target, **few))
print(f"correlation of the bfloat16 map with the float32 map: {correlation(rounded.float(), exact):.3f}")

# %%
# Cheaper passes: ``torch.compile``
# ---------------------------------
#
# Compile the model, and hand ScoreCAM both: the compiled one to run, and the layer of the original one to read.
# Chunks then keep one shape, the last one padded, so that nothing is compiled twice. Compilation itself takes seconds
# to minutes, though, and has to be earned back. We measure that on the first blocks of a MobileNetV2, small enough to
# be compiled on this page, and count from which row on it pays.

network = MobileNetV2(num_classes=10, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 1, 2]]).eval()
batch = F.interpolate(inputs, (64, 64), mode="bilinear").repeat(8, 1, 1, 1)

plain = ScoreCAM(network, network.features[-2])
expected = plain.attribute(batch, target=0)
rows = plain.last_run.rows
plain_seconds = fastest(lambda: plain.attribute(batch, target=0))
print(f"eager:    {plain_seconds:.2f} s for {rows} rows")

if shutil.which(os.environ.get("CXX", "g++")):
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of CUDA tools without a GPU
    compiled = ScoreCAM(torch.compile(network), network.features[-2])
    # With an empty cache, so that what is measured is the first compilation of all.
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": cache}):
        maps, first_seconds = timed(lambda: compiled.attribute(batch, target=0))
        compiled_seconds = fastest(lambda: compiled.attribute(batch, target=0))
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)
    print(f"compiled: {compiled_seconds:.2f} s, and {first_seconds:.1f} s for the first call, which compiles")
    gained = (plain_seconds - compiled_seconds) / rows
    if gained > 0:
        print(f"break-even: after {(first_seconds - compiled_seconds) / gained:,.0f} rows")
    else:
        print("no break-even: the compiled network is not faster here")
else:
    print("compiled: not measured, as there is no C++ compiler here, which torch.compile needs on a CPU")

# %%
# For one map, compiling is a loss. For a data set the break-even decides, and larger models have one of their own.
# Autocast and compilation go together where the hardware likes both: put the call under autocast as above.
#
# Chunks and memory: ``perturbations_per_eval``
# ---------------------------------------------
#
# Masked inputs exist only one chunk at a time. ``perturbations_per_eval`` says how many each example has in a
# forward. By default it is tuned: chunks start small and double while that pays enough, and real work is done
# meanwhile. The result is kept in the ``ScoreCAM`` object, so reuse the object. Set a number where memory is short.
# On a GPU, a chunk that does not fit is halved and run again, whichever was chosen.
#
# The peak below is what PyTorch allocated during the call, as its profiler counts it.


def peak_mebibytes(call: Callable[[], Tensor]) -> float:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    allocated = 0
    peak = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        allocated += event["args"]["Bytes"]
        peak = max(peak, allocated)
    return peak / 2**20


few = {"attribute_to_layer_input": True, "max_channels": 32}
print("rows a chunk  seconds  peak MiB")
for chunk in (1, 4, 16, None):
    call = lambda: score_cam.attribute(inputs, target, **few, perturbations_per_eval=chunk)  # noqa: B023, E731
    _, seconds = timed(call)
    print(f"{'tuned' if chunk is None else chunk:>12} {seconds:8.2f} {peak_mebibytes(call):9.1f}")

# %%
# Memory grows with the chunk. Speed grows with it only as long as the hardware has room: on a CPU that usually ends
# at a few rows, on a GPU far later. The map does not depend on it.
#
# More machines: ``process_group``
# --------------------------------
#
# A data set is best split by images, each process taking its own. For few images and many channels there is another
# way: the passes of one call are independent, so the ranks of a process group can share them. Each of W ranks runs
# every W-th masked input, and all get the whole map. Every rank makes the same call. A complete script, for
# ``torchrun --standalone --nproc-per-node 2 shared.py``:

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
    # What torchrun does:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(path)]
    finished = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
if finished.returncode:
    raise RuntimeError(finished.stderr)
print(finished.stdout)

# %%
# Each rank runs the two unmasked images, to read the activations, and its share of the masked ones. On this page both
# ranks sit on one machine's CPU, so this shows the split and that the maps agree, not a gain. On two GPUs, each would
# have half of the forwards to run.
#
# In short
# --------
#
# ====================================  ===================  ============================================
# what                                  the map              when
# ====================================  ===================  ============================================
# constant and equal masks              the same             always on
# ``attribute_targets``                 the same             several classes of one input
# ``perturbations_per_eval``            the same             memory is short; else leave it tuned
# ``process_group``                     the same             several GPUs, few inputs
# ``torch.compile``                     the same, rounding   enough rows to earn the compilation back
# ``tolerance``                         within the bound     ``score="probability"``, weights as released
# ``torch.autocast``                    close                hardware with half precision
# ``max_channels``                      an approximation     look first, then decide how many
# ====================================  ===================  ============================================
#
# Most of them can be combined, ``tolerance`` and ``process_group`` can't. All that is approximate here can be checked
# against the full map of a few inputs before the large run, as this page did.
