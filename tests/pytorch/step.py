"""Compares `alexnet-mp step` with the same steps in PyTorch, in float64, as a grouped network.

    python3 tests/pytorch/step.py --program target/release/alexnet-mp [--width 0.25 --image 64
        --classes 10] [--batch 8] [--steps 3] [--test-time] [--flags "--threads 2"]

Needs torch and numpy and installs nothing; exits with 77 where they are missing. Prints the
relative L2 error of every tensor; exits with 1 where one is above 1e-5.

A gradient jumps where the largest of a pooling window changes, or the sign before a ReLU, and of
the 300,000 windows of a few images one is often closer to that than f32 can tell (PyTorch's own f32
then differs from its float64 by 1e-3). So images are drawn until none is that close.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    import torch.nn.functional as F
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

TOLERANCE = 1e-5
# How close to a jump a value may be, relative to the root mean square of its layer's.
MARGIN = 5e-6
DRAWS = 200
LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
RATE, MOMENTUM, DECAY = 1e-4, 0.9, 0.0005


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values, dtype="<f4").tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def read_safetensors(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header.pop("__metadata__", None)

    def values(entry):
        begin, end = entry["data_offsets"]
        return np.frombuffer(data[begin:end], dtype="<f4").reshape(entry["shape"])

    return {name: values(entry) for name, entry in header.items()}


def sizes(options):
    """Output maps of every layer at this width: max(2, 2·round(size·width / 2))."""
    full = [96, 256, 384, 384, 256, 4096, 4096]
    hidden = [max(2, 2 * int(n * options.width / 2 + 0.5)) for n in full]
    return hidden + [options.classes]


def last_side(image):
    """Side of conv5's maps after pooling, by the ceiling rule."""
    ceil = lambda n, stride: 1 + -(-n // stride)
    side = ceil(image - 11, 4)
    for _ in range(3):
        side = ceil(side - 3, 2)
    return side


def draw_weights(options, random):
    maps = sizes(options)
    inputs = [3, maps[0] // 2, maps[1], maps[2] // 2, maps[3] // 2]
    kernels = [11, 5, 3, 3, 3]
    shapes = [(maps[i], inputs[i], kernels[i], kernels[i]) for i in range(5)]
    shapes.append((maps[5], maps[4] * last_side(options.image) ** 2))
    shapes += [(maps[6], maps[5]), (maps[7], maps[6])]
    weights = {}
    for name, shape in zip(LAYERS, shapes):
        fan_in = int(np.prod(shape[1:]))
        deviation = 0.05 / fan_in**0.5 if name == "fc8" else (2 / fan_in) ** 0.5
        weights[f"{name}.weight"] = random.normal(0, deviation, shape).astype("f4")
        weights[f"{name}.bias"] = random.normal(0, 0.1, shape[0]).astype("f4")
    return weights


class Margins:
    """Watches how far a batch's values are from a jump of their gradients, per image."""

    def __init__(self, images):
        self.least = torch.full((images,), float("inf"), dtype=torch.float64)

    def see(self, distances, values):
        scale = values.square().mean().sqrt()
        self.least = torch.minimum(self.least, distances.flatten(1).amin(1) / scale)

    def see_relu(self, x):
        self.see(x.abs(), x)

    def see_pool(self, x):
        """Only maxima above zero: between zeros no gradient passes."""
        padded = F.pad(x, (0, 2, 0, 2), value=float("-inf"))
        side = -(-(x.shape[-1] - 3) // 2) + 1
        windows = padded.unfold(2, 3, 2).unfold(3, 3, 2)[:, :, :side, :side].flatten(4)
        first, second = windows.topk(2, dim=-1).values.unbind(-1)
        self.see(torch.where(first > 0, first - second, float("inf")), x)


def normalise(x):
    """Over the maps of each half. PyTorch divides alpha by the size, the paper does not."""
    halves = x.chunk(2, dim=1)
    return torch.cat([F.local_response_norm(h, 5, 5 * 1e-4, 0.75, 2.0) for h in halves], dim=1)


def network(w, x, masks, margins=None):
    def largest(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def relu(x, pooled=False):
        if margins:  # behind a pool only its maxima pass gradients
            margins.see_relu(largest(x) if pooled else x)
        return F.relu(x)

    def pool(x):
        if margins:
            margins.see_pool(x)
        return largest(x)

    def convolve(name, x, **how):
        pooled = name in ("conv1", "conv2", "conv5")
        return relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **how), pooled)

    side = x.shape[-1]
    more = (-(-(side - 11) // 4)) * 4 + 11 - side
    x = pool(normalise(convolve("conv1", F.pad(x, (0, more, 0, more)), stride=4)))
    x = pool(normalise(convolve("conv2", x, padding=2, groups=2)))
    x = convolve("conv3", x, padding=1)
    x = convolve("conv4", x, padding=1, groups=2)
    x = pool(convolve("conv5", x, padding=1, groups=2)).flatten(1)
    for i, name in enumerate(["fc6", "fc7"]):
        x = relu(F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"]))
        x = x * (0.5 if masks is None else masks[i])
    return F.linear(x, w["fc8.weight"], w["fc8.bias"])


def draw_images(options, random, w, masks):
    """A batch of which every image is further than MARGIN from every jump."""
    chosen = []
    for image in range(options.batch):
        drop = None if masks is None else [m[image : image + 1] for m in masks]
        for _ in range(DRAWS):
            x = random.normal(0, 50, (1, 3, options.image, options.image)).astype("f4")
            margins = Margins(1)
            with torch.no_grad():
                network(w, torch.tensor(x, dtype=torch.float64), drop, margins)
            if margins.least[0] > MARGIN:
                chosen.append(x)
                break
        else:
            sys.exit(f"no image of {DRAWS} is further than {MARGIN} from all jumps")
    return np.concatenate(chosen)


def expected_tensors(options, weights, random, labels, masks):
    """The tensors, and the images drawn for them, `[steps, batch, 3, side, side]`."""
    w = {name: torch.tensor(v, dtype=torch.float64, requires_grad=True) for name, v in weights.items()}
    momentum = {name: torch.zeros_like(v) for name, v in w.items()}
    out, losses, images = {}, [], []
    for step in range(options.steps):
        drop = None if masks is None else [torch.tensor(m[step], dtype=torch.float64) for m in masks]
        images.append(draw_images(options, random, w, drop))
        x = torch.tensor(images[step], dtype=torch.float64)
        logits = network(w, x, drop)
        loss = F.cross_entropy(logits, torch.tensor(labels[step]))
        gradients = dict(zip(w, torch.autograd.grad(loss, list(w.values()))))
        losses.append(float(loss))
        if step == 0:
            out["logits"] = logits.detach().numpy()
            out |= {f"grad.{name}": g.numpy() for name, g in gradients.items()}
        with torch.no_grad():
            for name, v in w.items():
                momentum[name] = MOMENTUM * momentum[name] - DECAY * RATE * v - RATE * gradients[name]
                v += momentum[name]
    out["loss"] = np.array(losses)
    out |= {f"param.{name}": v.detach().numpy() for name, v in w.items()}
    out |= {f"momentum.{name}": v.numpy() for name, v in momentum.items()}
    return out, np.stack(images)


def found_tensors(options, folder, weights, images, labels, masks):
    write_safetensors(folder / "w.safetensors", weights)
    np.save(folder / "x.npy", images)
    np.save(folder / "y.npy", labels)
    command = [options.program, "step", "--config", "paper", "--set", f"network.width={options.width}"]
    command += ["--set", f"network.image={options.image}", "--set", f"network.classes={options.classes}"]
    command += ["--set", f"data.side={max(256, options.image)}"]
    command += ["--weights", folder / "w.safetensors", "--images", folder / "x.npy", "--labels", folder / "y.npy"]
    command += ["--steps", str(options.steps), "--lr", str(RATE), "--out", folder / "out.safetensors"]
    if masks is not None:
        write_safetensors(folder / "m.safetensors", {"mask6": masks[0], "mask7": masks[1]})
        command += ["--masks", folder / "m.safetensors"]
    subprocess.run([str(word) for word in command] + options.flags.split(), check=True)
    return read_safetensors(folder / "out.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--test-time", action="store_true")
    parser.add_argument("--flags", default="--cpu")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    weights = draw_weights(options, random)
    shape = (options.steps, options.batch)
    labels = random.integers(0, options.classes, shape)
    masks = None
    if not options.test_time:
        masks = [random.integers(0, 2, (*shape, n)).astype("f4") for n in sizes(options)[5:7]]
    expected, images = expected_tensors(options, weights, random, labels, masks)
    with tempfile.TemporaryDirectory() as folder:
        found = found_tensors(options, pathlib.Path(folder), weights, images, labels, masks)
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
    worst = 0.0
    for name, value in expected.items():
        assert found[name].shape == value.shape, (name, found[name].shape, value.shape)
        error = np.linalg.norm(found[name] - value) / max(np.linalg.norm(value), 1e-300)
        print(f"{error:.1e}  {name}")
        worst = max(worst, error)
    print(f"worst: {worst:.1e} (at most {TOLERANCE:.0e} is right)")
    sys.exit(0 if worst <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
