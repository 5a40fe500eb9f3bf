"""Speed of PyTorch on the CPU with the exact network, beside `alexnet-mp bench --cpu`.

    python3 benches/pytorch_cpu.py [--batch 128] [--steps 5] [--threads N] [--inference] [--variant naive|tuned|all]

Prints one JSON object a variant: median images a second, milliseconds a step, peak memory. Every variant runs in a
process of its own, so that its peak memory is its own. Installs nothing.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time

VARIANTS = {
    "naive": "nn.LocalResponseNorm per half, SGD as it comes",
    "tuned": "LRN by slices, fused SGD, memory kept by the allocator",
    "compiled": "tuned, through torch.compile, channels last",
}


def keep_memory():
    """Lets glibc keep what is freed: PyTorch allocates and frees every activation in every step."""
    trim, mmap = -1, -3
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(mmap, 1 << 30)
        libc.mallopt(trim, -1)


def peak_rss_bytes():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def measure(args):
    tuned, compiled = args.variant != "naive", args.variant == "compiled"
    if tuned:
        keep_memory()
    # Read when torch is imported: constant weights may be laid out anew for inference.
    os.environ["TORCHINDUCTOR_FREEZING"] = "1" if args.inference else "0"
    import torch
    from torch.nn import functional as F

    from pytorch_net import AlexNet, LrnNaive, LrnSlices, sgd

    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    net = AlexNet(LrnSlices if tuned else LrnNaive)
    images = torch.rand(args.batch, 3, 224, 224) * 256 - 128
    labels = torch.randint(0, 1000, (args.batch,))
    optimizer = sgd(net, fused=tuned)
    forward = net
    if compiled:
        net.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
        forward = torch.compile(net)

    def train():
        optimizer.zero_grad(set_to_none=not tuned)
        F.cross_entropy(forward(images), labels).backward()
        optimizer.step()

    def infer():
        with torch.inference_mode():
            forward(images)

    net.train(not args.inference)
    step = infer if args.inference else train
    for _ in range(2):
        step()
    laps = []
    for _ in range(args.steps):
        start = time.perf_counter()
        step()
        laps.append(time.perf_counter() - start)
    median = statistics.median(laps)
    print(json.dumps({
        "variant": args.variant,
        "what": VARIANTS[args.variant],
        "mode": "inference" if args.inference else "training",
        "images_per_second": args.batch / median,
        "milliseconds_per_step": median * 1e3,
        "fastest_ms": min(laps) * 1e3,
        "slowest_ms": max(laps) * 1e3,
        "batch": args.batch,
        "threads": torch.get_num_threads(),
        "precision": "f32",
        "peak_rss_bytes": peak_rss_bytes(),
        "torch": torch.__version__,
    }), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--inference", action="store_true")
    parser.add_argument("--variant", choices=[*VARIANTS, "all"], default="all")
    args = parser.parse_args()
    if args.variant != "all":
        return measure(args)
    here = os.path.abspath(__file__)
    for variant in VARIANTS:
        command = [sys.executable, here, "--variant", variant, "--batch", str(args.batch), "--steps", str(args.steps),
                   "--threads", str(args.threads)]
        if args.inference:
            command.append("--inference")
        if subprocess.run(command).returncode != 0:
            sys.exit(1)


if __name__ == "__main__":
    main()
