"""Speed of PyTorch on a CUDA GPU with the exact network, beside `alexnet-mp bench --gpus 0`.

    python3 benches/pytorch_gpu.py [--batch 128] [--steps 50] [--inference] [--variant NAME ...]

Prints one JSON object a variant: median images a second over laps of steps on data that stays on the GPU. Installs
nothing. Variants are words joined by "+":
  f32 | tf32 | bf16     matrix units off, on for f32, autocast to bf16
  last                  channels-last layout
  compile               torch.compile, mode max-autotune-no-cudagraphs
  graph                 the whole step in one CUDA graph
"""

import argparse
import json
import statistics
import time

import torch
from torch.nn import functional as F

from pytorch_net import AlexNet, LrnNaive, LrnSlices, sgd

VARIANTS = ["f32", "f32+graph", "f32+compile+graph", "tf32", "tf32+last+graph", "tf32+last+compile+graph",
            "bf16", "bf16+last+graph", "bf16+last+compile+graph"]


def build(words, batch, inference):
    """One step, as a function."""
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
        optimizer.zero_grad(set_to_none="graph" not in words)
        F.cross_entropy(forward().float(), labels).backward()
        optimizer.step()

    def infer():
        with torch.no_grad():
            forward()

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
        step()
    return graph.replay


def measure(variant, args):
    step = build(variant.split("+"), args.batch, args.inference)
    for _ in range(10):
        step()
    torch.cuda.synchronize()
    laps, lap_steps = [], 5
    while len(laps) * lap_steps < args.steps:
        start = time.perf_counter()
        for _ in range(lap_steps):
            step()
        torch.cuda.synchronize()
        laps.append((time.perf_counter() - start) / lap_steps)
    median = statistics.median(laps)
    return {
        "variant": variant,
        "mode": "inference" if args.inference else "training",
        "images_per_second": args.batch / median,
        "milliseconds_per_step": median * 1e3,
        "fastest_ms": min(laps) * 1e3,
        "slowest_ms": max(laps) * 1e3,
        "batch": args.batch,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated(),
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--inference", action="store_true")
    parser.add_argument("--variant", action="append", choices=VARIANTS)
    args = parser.parse_args()
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
