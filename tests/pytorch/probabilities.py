"""Class probabilities of image files by PyTorch: an exported safetensors file loaded into a grouped module.

    python3 tests/pytorch/probabilities.py --preset paper --weights e.safetensors --stats stats.safetensors
        --images data/val --crop 224 [--views 10] --out p.npy

Needs torch, numpy, safetensors and PIL. Nothing is shared with the program: images are read,
cropped, mirrored and mean-subtracted here, in float64. --torchvision-names FILE also saves the
weights under the names of torchvision's AlexNet, features.0.weight … classifier.6.bias.
"""

import argparse
import pathlib

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
TORCHVISION = [f"features.{i}" for i in (0, 4, 8, 10, 12)] + [f"classifier.{i}" for i in (1, 4, 6)]


class Norm(nn.Module):
    """LRN within each of `groups` halves; PyTorch divides alpha by the size, as Caffe does."""

    def __init__(self, groups, k, alpha_sum):
        super().__init__()
        self.groups, self.k, self.alpha = groups, k, 5 * alpha_sum

    def forward(self, x):
        parts = x.chunk(self.groups, dim=1)
        return torch.cat([F.local_response_norm(p, 5, self.alpha, 0.75, self.k) for p in parts], 1)


class MapNorm(nn.Module):
    """Response normalisation of the 2012 source within a map, over 5 × 5 pixels."""

    def forward(self, x):
        squares = F.avg_pool2d(F.pad(x * x, (2, 2, 2, 2)), 5, 1) * 25
        return x / (1 + 0.001 / 25 * squares) ** 0.75


class Halved(nn.Module):
    def forward(self, x):
        return 0.5 * x


def pool():
    return nn.MaxPool2d(3, 2, ceil_mode=True)


class AlexNet(nn.Module):
    def __init__(self, preset, shapes):
        super().__init__()
        columns = 1 if preset == "source-145-half" else 2
        source = preset.startswith("source")
        dropout = nn.Identity if preset == "caffe" else Halved

        def conv(layer, **how):
            maps, inputs, kernel, _ = shapes[f"{layer}.weight"]
            groups = how.pop("groups", 1)
            return nn.Conv2d(inputs * groups, maps, kernel, groups=groups, **how)

        def linear(layer):
            outputs, inputs = shapes[f"{layer}.weight"]
            return nn.Linear(inputs, outputs)

        def norm():
            if preset == "caffe":
                return Norm(1, 1.0, 1e-4 / 5)
            return Norm(columns, 2.0, 2e-5 if source else 1e-4)

        self.conv1 = conv("conv1", stride=4)
        after = [norm(), pool(), nn.ReLU()] if source else [nn.ReLU(), norm(), pool()]
        self.after1 = nn.Sequential(*after)
        self.conv2 = conv("conv2", padding=2, groups=columns)
        self.after2 = nn.Sequential(nn.ReLU(), norm(), *([MapNorm()] if source else []), pool())
        self.conv3 = conv("conv3", padding=1)
        self.conv4 = conv("conv4", padding=1, groups=columns)
        self.conv5 = conv("conv5", padding=1, groups=columns)
        self.fc6, self.fc7, self.fc8 = linear("fc6"), linear("fc7"), linear("fc8")
        self.dropout = dropout()

    def forward(self, x):
        more = -(x.shape[-1] - 11) % 4
        x = self.after1(self.conv1(F.pad(x, (0, more, 0, more))))
        x = self.after2(self.conv2(x))
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = pool()(F.relu(self.conv5(x))).flatten(1)
        x = self.dropout(F.relu(self.fc6(x)))
        x = self.dropout(F.relu(self.fc7(x)))
        return self.fc8(x).softmax(1)


def crops(image, mean, crop, views, centre_mean):
    """Views [views, 3, crop, crop] of an image [side, side, 3]."""
    room = image.shape[0] - crop
    middle = (room // 2, room // 2)
    places = [middle] if views == 1 else [(0, 0), (0, room), (room, 0), (room, room), middle]
    found = []
    for top, left in places:
        a, b = middle if centre_mean else (top, left)
        view = image[top : top + crop, left : left + crop] - mean[a : a + crop, b : b + crop]
        found += [view] if views == 1 else [view, view[:, ::-1]]
    return np.stack(found).transpose(0, 3, 1, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", required=True)
    parser.add_argument("--weights", type=pathlib.Path, required=True)
    parser.add_argument("--torchvision-names", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--stats", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=pathlib.Path, required=True)
    parser.add_argument("--crop", type=int, required=True)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    weights = safetensors.torch.load_file(options.weights)
    network = AlexNet(options.preset, {name: tuple(v.shape) for name, v in weights.items()})
    network.load_state_dict(weights)
    if options.torchvision_names:
        theirs = dict(zip(LAYERS, TORCHVISION))
        renamed = {}
        for name, value in network.state_dict().items():
            layer, kind = name.split(".")
            renamed[f"{theirs[layer]}.{kind}"] = value.contiguous()
        safetensors.torch.save_file(renamed, options.torchvision_names)
    network = network.double().eval()
    mean = safetensors.torch.load_file(options.stats)["mean"].numpy().transpose(1, 2, 0)
    centre_mean = options.preset.startswith("source")
    rows = []
    for path in sorted(options.images.glob("*/*")):
        image = np.asarray(Image.open(path).convert("RGB"), dtype="f8")
        views = crops(image, mean, options.crop, options.views, centre_mean)
        with torch.no_grad():
            rows.append(network(torch.from_numpy(views.copy())).mean(0).numpy())
    np.save(options.out, np.stack(rows).astype("f4"))


if __name__ == "__main__":
    main()
