"""Speed of PyTorch on a CUDA GPU with the exact network, beside `alexnet-mp bench --gpus 0`.

    python3 benches/pytorch_gpu.py [--batch 128] [--steps N] [--inference] [--variant NAME ...]

Prints one JSON object a variant: median images a second over laps of steps on data that stays on the GPU, timed as
`bench` times its own (src/bench/steps.rs): for 12 seconds, or as many steps as --steps says. Installs nothing. Variants
are words joined by "+":
  f32 | tf32 | bf16     matrix units off, on for f32, autocast to bf16
  last                  channels-last layout
  compile               torch.compile, mode max-autotune-no-cudagraphs
  graph                 the whole step in one CUDA graph
Contiguous and channels-last layouts both: which of them grouped convolutions like better depends on who computes them.
"""

import argparse
import json
import math
import statistics
import time

import torch
from torch.nn import functional as F

from pytorch_net import AlexNet, LrnNaive, LrnSlices, sgd

VARIANTS = ["f32", "f32+graph", "f32+compile+graph",
            "tf32", "tf32+graph", "tf32+compile+graph", "tf32+last+graph", "tf32+last+compile+graph",
            "bf16", "bf16+graph", "bf16+compile+graph", "bf16+last+graph", "bf16+last+compile+graph"]

# As in src/bench/steps.rs: seconds in all, seconds of a lap at least, laps at least and at most.
TIME, LAP, LEAST_LAPS, MOST_LAPS = 12.0, 0.05, 3, 200
WARM_UP = 10


def build(words, batch, inference):
    """One step, as a function that gives its loss (the logits, in inference)."""
    fast = "f32" not in words
    torch.backends.cuda.matmul.allow_tf32 = fast
    torch.backends.cudnn.allow_tf32 = fast
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    layout = torch.channels_last if "last" in words else torch.contiguous_format
    # Plain eager runs the library's module, as a user writes it; the others the faster form.
    lrn = LrnNaive if len(words) == 1 else LrnSlices
    net = AlexNet(lrn).cuda().to(memory_format=layout).train(not inference)
    images = (torch.rand(batch, 3, 224, 224, device="cuda") * 256 - 128).to(memory_format=layout)
    labels = torch.randint(0, 1000, (batch,), device="cuda")
    optimizer = sgd(net, fused=True)
    model = torch.compile(net, mode="max-autotune-no-cudagraphs") if "compile" in words else net

    def forward():
        with torch.autocast("cuda", torch.bfloat16, enabled="bf16" in words):
            return model(images)

    def train():
        # In a graph as well: the backward pass then writes gradients instead of adding to zeros.
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(forward().float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def infer():
        with torch.no_grad():
            return forward()

    step = infer if inference else train
    if "graph" not in words:
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay():
        graph.replay()
        return result

    # The graph holds addresses alone: what it reads and writes must not be freed while it is in use.
    replay.held = (net, model, optimizer, images, labels)
    return replay


def lap(step, steps):
    """Seconds of each of so many steps, waited for at their end alone; what the last one gave."""
    start = time.perf_counter()
    for _ in range(steps):
        result = step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps, result


def run_laps(step, steps):
    """Seconds of a step, lap by lap, by the rules of src/bench/steps.rs; and the steps of a lap."""
    for _ in range(WARM_UP):
        warm, result = lap(step, 1)
    lap_steps = max(1, math.ceil(LAP / max(warm, 1e-9)))
    laps, start = [], time.perf_counter()

    def more():
        if steps is not None:
            return len(laps) * lap_steps < steps
        return len(laps) < LEAST_LAPS or (time.perf_counter() - start < TIME and len(laps) < MOST_LAPS)

    while more():
        seconds, result = lap(step, lap_steps)
        laps.append(seconds)
    if not torch.isfinite(result).all():
        raise ArithmeticError("the loss is not finite: the network diverged, and the measurement means nothing")
    return laps, lap_steps


def measure(variant, args):
    step = build(variant.split("+"), args.batch, args.inference)
    laps, lap_steps = run_laps(step, args.steps)
    median = statistics.median(laps)
    return {
        "variant": variant,
        "mode": "inference" if args.inference else "training",
        "images_per_second": args.batch / median,
        "milliseconds_per_step": median * 1e3,
        "fastest_ms": min(laps) * 1e3,
        "slowest_ms": max(laps) * 1e3,
        "laps": len(laps),
        "steps_per_lap": lap_steps,
        "batch": args.batch,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated(),
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, help=f"steps to time [as many as fit in {TIME:.0f} seconds]")
    parser.add_argument("--inference", action="store_true")
    parser.add_argument("--variant", action="append", choices=VARIANTS)
    args = parser.parse_args()
    if args.steps is not None and args.steps < 1:
        parser.error("--steps: at least one step is needed")
    if not torch.cuda.is_available():
        parser.exit(5, "pytorch_gpu.py: PyTorch sees no CUDA GPU\n")
    for variant in args.variant or VARIANTS:
        torch.cuda.reset_peak_memory_stats()
        try:
            found = measure(variant, args)
        except Exception as error:  # A variant that does not run here is a result too.
            found = {"variant": variant, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(found), flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
