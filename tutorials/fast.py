"""
Fast
====

Gradient methods need one pass through the network. Score-CAM needs one for every channel of the layer, hundreds or
thousands of them. What :class:`~captum_scorecam.ScoreCAM` adds to those passes is small, so there are two ways to be
faster: run fewer passes, or make each one cheaper. This page shows all the ways there are, measures them while it is
built, and says what each costs in exactness.

The model is EfficientNet-Lite0, with its ImageNet weights, on images of 160 pixels. All seconds on this page were
measured on the machine that built it. Yours will differ; the ratios tell more, and every section says what they hang on.
"""

import json
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
from torch import Tensor, nn
from torch.nn import functional as F

from captum_scorecam import ScoreCAM
from captum_scorecam.classification.classifiers import load_classifier

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


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


# %%
# What there is to pay
# --------------------
#
# One map with all channels, one gradient map, and for comparison the bare forwards: as many rows through the model as
# there are, without masks, without anything. The difference is what the method itself costs.

score_cam = ScoreCAM(model, layer)
full, full_seconds = timed(lambda: score_cam.attribute(inputs, target, attribute_to_layer_input=True))
run = score_cam.last_run
_, gradient_seconds = timed(lambda: LayerGradCam(model, layer).attribute(inputs, target, attribute_to_layer_input=True))


def bare_forwards(rows: int, chunk: int = 8) -> Tensor:
    batch = inputs.expand(chunk, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return torch.cat([model(batch) for _ in range(rows // chunk)])


bare_forwards(8)
_, bare_seconds = timed(lambda: bare_forwards(64))
row_seconds = bare_seconds / 64

print(f"LayerGradCam            {gradient_seconds:6.2f} s")
print(f"ScoreCAM, {run.rows} rows      {full_seconds:6.2f} s, {1000 * full_seconds / run.rows:.1f} ms a row")
print(f"the bare forwards       {row_seconds * run.rows:6.2f} s, {1000 * row_seconds:.1f} ms a row")

# %%
# The layer has 1280 channels, but far fewer rows were run. ``last_run`` tells why:

print(run)

# %%
# A channel whose map is constant (after a ReLU: all zero) can't mask anything. A channel whose map is a scaled copy of
# another's gives the same mask. The first kind is left out, the second shares a forward. Neither changes the map, so
# neither is an option: it is always done. If you count on a figure for your model, count ``last_run.rows``.
#
# Fewer passes, an approximation: ``max_channels``
# ------------------------------------------------
#
# Faster-Score-CAM keeps only the channels whose maps vary most. How many are enough? Here is the same map from fewer and
# fewer of them. This one is a choice about quality, so look at the picture, not only at the seconds.

trials = {}
for channels in (8, 32, 128):
    maps, seconds = timed(
        lambda: score_cam.attribute(inputs, target, attribute_to_layer_input=True, max_channels=channels)  # noqa: B023
    )
    trials[f"{channels} channels"] = maps, seconds
    print(f"{channels:4} channels {seconds:6.2f} s, correlation with the full map {correlation(maps, full):.3f}")
trials[f"all ({run.rows} rows)"] = full, full_seconds

figure, axes = plt.subplots(1, 4, figsize=(9, 2.8), layout="constrained")
for axis, (name, (maps, seconds)) in zip(axes, trials.items(), strict=True):
    axis.imshow(((inputs[0].permute(1, 2, 0) + 1) / 2).clamp(0, 1))
    heat = F.interpolate(maps, (SIZE, SIZE), mode="bilinear")[0, 0]
    axis.imshow(heat / heat.max(), cmap="jet", alpha=0.5, vmin=0, vmax=1)
    axis.set_title(f"{name}\n{seconds:.2f} s", fontsize=10)
    axis.axis("off")
plt.show()

# %%
# Fewer passes, with a guarantee: ``tolerance``
# ---------------------------------------------
#
# With the weights of the released code (``score="probability"``, ``channel_weighting="score"``), every weight lies in
# [0, 1]. So after the strongest channels have run, the largest change that the others could still make to the map
# (scaled to [0, 1]) is known, and the run stops when it falls below ``tolerance``. We check the promise on 128 channels
# for which we also run everything.

released = {
    "attribute_to_layer_input": True,
    "score": "probability",
    "channel_weighting": "score",
    "max_channels": 128,
}


def scaled(maps: Tensor) -> Tensor:
    return (maps - maps.min()) / (maps.max() - maps.min())


exact, exact_seconds = timed(lambda: score_cam.attribute(inputs, target, **released))
print(f"exact            {exact_seconds:6.2f} s, {score_cam.last_run.rows} rows")
for tolerance in (0.05, 0.2):
    maps, seconds = timed(lambda: score_cam.attribute(inputs, target, **released, tolerance=tolerance))  # noqa: B023
    change = float((scaled(maps) - scaled(exact)).abs().max())
    print(f"tolerance {tolerance:4.2f}   {seconds:6.2f} s, {score_cam.last_run.rows} rows, largest change {change:.4f}")
    if change > tolerance:
        raise RuntimeError(f"The map changed by {change}, more than the tolerance {tolerance}.")

# %%
# The largest change that really happened is far smaller than the one that was allowed: the bound has to hold for the worst
# scores that the remaining channels could get. What the tolerance saves depends on how unequal the channels are.
#
# More for the same passes: ``attribute_targets``
# -----------------------------------------------
#
# A forward pass scores *all* classes. Five classes explained one after the other cost five times the passes; asked for
# together, they share them, and the maps are the same.

top5 = probabilities.topk(5).indices.tolist()
options = {"attribute_to_layer_input": True, "max_channels": 32}


def one_by_one() -> Tensor:
    return torch.cat([score_cam.attribute(inputs, c, **options) for c in top5], 1)


apart, apart_seconds = timed(one_by_one)
together, together_seconds = timed(lambda: score_cam.attribute_targets(inputs, top5, **options))
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
        return model(inputs.expand(4, -1, -1, -1).contiguous(memory_format=torch.channels_last))


def autocast(call: Callable[[], Tensor]) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return call()


def fastest(call: Callable[[], Tensor]) -> float:
    return min(timed(call)[1] for _ in range(2))


float32_seconds, bfloat16_seconds = fastest(a_forward), fastest(lambda: autocast(a_forward))
gain = float32_seconds / bfloat16_seconds
print(f"4 rows in float32 {float32_seconds:.3f} s, under bfloat16 autocast {bfloat16_seconds:.3f} s")
print(f"here bfloat16 is {gain:.1f} times as fast" if gain > 1 else f"here bfloat16 is {1 / gain:.1f} times slower")

# %%
# The map is not quite the same under autocast: bfloat16 keeps about three digits of a score, and the softmax over the
# channels turns differences of scores into ratios of weights. On eight channels:

options = {"attribute_to_layer_input": True, "max_channels": 8}
exact = score_cam.attribute(inputs, target, **options)
rounded = autocast(lambda: score_cam.attribute(inputs, target, **options))
print(f"correlation of the bfloat16 map with the float32 map: {correlation(rounded.float(), exact):.4f}")

# %%
# Cheaper passes: ``torch.compile``
# ---------------------------------
#
# Compile the model, and hand ScoreCAM both: the compiled one to run, and the layer of the original one to read.
# Chunks then keep one shape, the last one padded, so that nothing is compiled twice. Compilation itself takes seconds to
# minutes, though, and has to be earned back. We measure that on a small network and count from which row on it pays.

network = nn.Sequential(
    *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.SiLU()),
    *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.SiLU()),
    *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.SiLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
).eval()
batch = F.interpolate(inputs, (64, 64), mode="bilinear").repeat(4, 1, 1, 1)

plain = ScoreCAM(network, network[8])
expected = plain.attribute(batch, target=0)
rows, plain_seconds = plain.last_run.rows, fastest(lambda: plain.attribute(batch, target=0))

if shutil.which(os.environ.get("CXX", "g++")):
    compiled = ScoreCAM(torch.compile(network), network[8])
    # An empty cache, so that what is measured is the first compilation of all.
    with (
        tempfile.TemporaryDirectory() as cache,
        mock.patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": cache}),
    ):
        maps, first_seconds = timed(lambda: compiled.attribute(batch, target=0))
        compiled_seconds = fastest(lambda: compiled.attribute(batch, target=0))
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4)
    print(f"{rows} rows: eager {plain_seconds:.2f} s, compiled {compiled_seconds:.2f} s, first call {first_seconds:.1f} s")
    saved = (plain_seconds - compiled_seconds) / rows
    if saved > 0:
        even = (first_seconds - compiled_seconds) / saved
        print(f"compiling pays after {even:,.0f} rows, {even / network[8](torch.zeros(1, 64)).shape[1]:,.0f} images of 64 channels")
    else:
        print("compiling does not pay for this network on this machine")
else:
    print("no C++ compiler here, which torch.compile needs on a CPU: not measured")

# %%
# For one map, then, compiling is a loss. For a data set it is a gain if the last line says so, and autocast and
# compilation multiply where the hardware likes both: put the call under autocast as above.
#
# Chunks and memory: ``perturbations_per_eval``
# ---------------------------------------------
#
# Masked inputs exist only one chunk at a time. ``perturbations_per_eval`` says how many each example has in a forward. By
# default it is tuned: chunks start small and double while rows per second rise, and real work is done meanwhile. The
# result is kept in the ``ScoreCAM`` object, so reuse the object. Set a number where memory is short. On a GPU, a chunk
# that does not fit is halved and run again, whichever was chosen.
#
# The peak below is what PyTorch allocated during the call, as its profiler counts it.


def peak_mebibytes(call: Callable[[], Tensor]) -> float:
    with torch.profiler.profile(profile_memory=True) as profiler:
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


options = {"attribute_to_layer_input": True, "max_channels": 32}
print("rows a chunk  seconds  peak MiB")
for chunk in (1, 4, 16, None):
    call = lambda: score_cam.attribute(inputs, target, **options, perturbations_per_eval=chunk)  # noqa: B023, E731
    _, seconds = timed(call)
    print(f"{'tuned' if chunk is None else chunk:>12} {seconds:8.2f} {peak_mebibytes(call):9.1f}")

# %%
# Memory grows with the chunk, speed soon does not: that is why the tuned size on a CPU stays small. (The map does not
# depend on it.)
#
# More machines: ``process_group``
# --------------------------------
#
# The passes of one call are independent, so the ranks of a process group can share them: each runs every W-th masked
# input, and all get the whole map. Every rank makes the same call. A complete script:

SCRIPT = '''
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
print(f"rank {dist.get_rank()}: {n_shared} rows in the shared call, {sum(rows) - n_shared} alone, the same map")
dist.destroy_process_group()
'''

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "shared.py"
    path.write_text(SCRIPT)
    # In a shell: torchrun --standalone --nproc-per-node 2 shared.py
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(path)]
    finished = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
if finished.returncode:
    raise RuntimeError(finished.stderr)
print("\n".join(sorted(finished.stdout.split("\n"))).strip())
