"""A small classifier of attributes, learnt from real pictures: does a sample show what it was asked to show?

One convolutional network looks at the picture, and one affine head per attribute names its class.  How far it can be
trusted is its own accuracy on held-out real pictures: a sample cannot be judged better than a real picture is.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird.eightbit import to_float
from bowerbird.errors import BowerbirdError

SIDE = 32
"""Pictures are brought to this size."""
WIDTHS = (32, 64, 128, 128)
STEPS, BATCH, LR = 600, 64, 2e-3
JUDGED_AT_ONCE = 500
VERSION = 1
"""Raised when a change of code changes what is learnt."""


class AttributeNet(nn.Module):
    """Pictures of c channels → logits of every attribute."""

    def __init__(self, channels: int, n_classes: Mapping[str, int]):
        super().__init__()
        widths = (channels, *WIDTHS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(n_in, n_out, 3, stride=1 if i == 0 else 2, padding=1)
            for i, (n_in, n_out) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in WIDTHS)
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTHS[-1] * 16, n) for name, n in n_classes.items()})

    def forward(self, images: UInt8[Tensor, "n c h w"]) -> dict[str, Tensor]:
        x = to_float(images)
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        return {name: head(x.flatten(1)) for name, head in self.heads.items()}

    @torch.no_grad()
    def classify(self, images: UInt8[Tensor, "n c h w"]) -> dict[str, Int[Tensor, " n"]]:
        """The class number of every attribute that each picture shows."""
        parts = [self(part) for part in images.split(JUDGED_AT_ONCE)]
        return {name: torch.cat([part[name].argmax(1) for part in parts]) for name in self.heads}

    @property
    def sha256(self) -> str:
        """Of the weights."""
        digest = hashlib.sha256()
        for weight in self.state_dict().values():
            digest.update(weight.contiguous().numpy().data)
        return digest.hexdigest()


def untrained(channels: int, classes: Mapping[str, Sequence[str]], seed: int = 0) -> AttributeNet:
    """A network whose weights follow from the seed alone."""
    with torch.device("meta"):  # no number of the global generator is drawn
        net = AttributeNet(channels, {name: len(names) for name, names in classes.items()})
    net = net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, weight in net.named_parameters():
        if weight.dim() > 1:
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        else:
            nn.init.constant_(weight, 1.0 if name.startswith("norms") and name.endswith("weight") else 0.0)
    return net


def fit_attributes(
    images: UInt8[Tensor, "n c h w"],
    given: Mapping[str, Int[Tensor, " n"]],
    classes: Mapping[str, Sequence[str]],
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> AttributeNet:
    """The network after ``steps`` steps of Adam on the summed cross-entropies of all attributes, in eval mode."""
    if not len(images) or not classes:
        raise BowerbirdError("A classifier of attributes needs pictures and at least one attribute.")
    net = untrained(images.shape[1], classes, seed)
    optimizer = torch.optim.Adam(net.parameters(), LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(images), (min(BATCH, len(images)),), generator=generator)
        logits = net(images[rows])
        loss = torch.stack([F.cross_entropy(logits[name], given[name][rows]) for name in logits]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def right(
    net: AttributeNet, images: UInt8[Tensor, "n c h w"], asked: Mapping[str, Int[Tensor, " n"]]
) -> dict[str, Float[Tensor, " n"]]:
    """For every attribute that was asked for, 1 where a picture shows it and 0 elsewhere."""
    found = net.classify(images)
    return {name: (found[name] == asked[name].cpu()).double() for name in net.heads if name in asked}
