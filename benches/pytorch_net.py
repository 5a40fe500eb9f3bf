"""The network of configs/paper.toml in PyTorch, for comparison of speed.

Two columns are two groups; conv3 and the fully connected layers see all maps. LRN sees the maps of its own half.
"""

import torch
from torch import nn
from torch.nn import functional as F


class LrnNaive(nn.Module):
    """As a user writes it: the module of the library on each half."""

    def __init__(self):
        super().__init__()
        # torch divides alpha by the size; the paper does not.
        self.lrn = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    def forward(self, x):
        return torch.cat([self.lrn(half) for half in x.chunk(2, dim=1)], dim=1)


class LrnSlices(nn.Module):
    """The sum of squares by shifted slices, which is several times as fast on a CPU."""

    def forward(self, x):
        n, c, h, w = x.shape
        halves = x.reshape(n, 2, c // 2, h, w)
        squares = F.pad(halves * halves, (0, 0, 0, 0, 2, 2))
        total = sum(squares[:, :, i : i + c // 2] for i in range(5))
        scale = torch.add(torch.full((), 2.0, device=x.device, dtype=x.dtype), total, alpha=1e-4)
        root = scale.rsqrt()
        # Autocast computes rsqrt in f32: without the conversion all maps from here to the next convolution would be f32.
        return (halves * (root * root.sqrt()).to(x.dtype)).reshape(n, c, h, w)


class AlexNet(nn.Module):
    def __init__(self, lrn, classes=1000):
        super().__init__()
        pool = lambda: nn.MaxPool2d(3, 2)
        relu = lambda: nn.ReLU(inplace=True)
        self.features = nn.Sequential(
            # The 2012 source lets the last window overhang: 55 positions of 224 pixels.
            nn.ZeroPad2d((0, 3, 0, 3)),
            nn.Conv2d(3, 96, 11, 4), relu(), lrn(), pool(),
            nn.Conv2d(96, 256, 5, 1, 2, groups=2), relu(), lrn(), pool(),
            nn.Conv2d(256, 384, 3, 1, 1), relu(),
            nn.Conv2d(384, 384, 3, 1, 1, groups=2), relu(),
            nn.Conv2d(384, 256, 3, 1, 1, groups=2), relu(), pool(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * 6 * 6, 4096), relu(), nn.Dropout(0.5),
            nn.Linear(4096, 4096), relu(), nn.Dropout(0.5),
            nn.Linear(4096, classes),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.ones_(module.bias)

    def forward(self, x):
        return self.classifier(self.features(x))


def sgd(net, fused):
    """The paper's update."""
    return torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=fused)
