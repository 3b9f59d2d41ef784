"""Trains the digit classifier that ships as bowerbird/metrics/weights/digits.safetensors; writes its recipe beside it.

    python tools/train_digit_classifier.py FOLDER_WITH_THE_FOUR_MNIST_IDX_GZ_FILES [OUTPUT_FOLDER]

Fixed seed, one thread, a few minutes on a CPU core.  Only the 60,000 training digits are used; the 10,000 test digits
are read once, at the end, for the accuracy that the recipe states, measured on the half-precision weights as stored.
"""

import argparse
import gzip
import hashlib
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird.metrics.digits import CONVOLUTIONS, FEATURES, WEIGHTS, DigitNet

EPOCHS = 9
BATCH_SIZE = 200
PEAK_LR = 3e-3
WEIGHT_DECAY = 0.05
DROPOUT = 0.2
ROTATION_DEGREES = 12.0
SHIFT_PIXELS = 2.0
LOG_SCALE = 0.1
SEED = 2015


def read_idx(path: Path) -> tuple[Tensor, str]:
    """The uint8 array of an IDX file, and the sha256 of the uncompressed bytes."""
    raw = gzip.decompress(path.read_bytes())
    n_axes = raw[3]
    shape = np.frombuffer(raw, ">u4", n_axes, offset=4).astype(int).tolist()
    array = np.frombuffer(raw, np.uint8, offset=4 + 4 * n_axes).reshape(shape)
    return torch.from_numpy(array.copy()), hashlib.sha256(raw).hexdigest()


class Training(nn.Module):
    """``DigitNet`` as it is trained: batch normalisation after every convolution and, without gain, on the features."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)
            for n_in, n_out, kernel, stride in CONVOLUTIONS
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(n_out) for _, n_out, _, _ in CONVOLUTIONS)
        self.project = nn.Linear(64 * 4 * 4, FEATURES, bias=False)
        self.standardise = nn.BatchNorm1d(FEATURES, affine=False)
        self.classify = nn.Linear(FEATURES, 10)

    def projected(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        return self.project(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(F.dropout(F.relu(self.standardise(self.projected(x))), DROPOUT, self.training))


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each digit rotated, scaled and shifted at random about its centre, with bilinear interpolation."""
    n = len(x)
    uniform = torch.rand(4, n, generator=generator) * 2 - 1
    angle = uniform[0] * math.radians(ROTATION_DEGREES)
    scale = (uniform[1] * LOG_SCALE).exp()
    shift = uniform[2:] * (SHIFT_PIXELS * 2 / 28)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack([torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)], 1)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def train(x: Tensor, label: Tensor) -> Training:
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = Training().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=WEIGHT_DECAY)
    n_steps = EPOCHS * (len(x) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=n_steps, pct_start=0.2)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        total, began = 0.0, time.perf_counter()
        for rows in order[: len(x) // BATCH_SIZE * BATCH_SIZE].split(BATCH_SIZE):
            batch = augment(x[rows].float() / 255, generator).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(batch), label[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        mean = total / (len(x) // BATCH_SIZE)
        print(f"epoch {epoch + 1}/{EPOCHS}  loss {mean:.4f}  {time.perf_counter() - began:.0f} s", flush=True)
    return model.eval()


@torch.no_grad()
def fold(model: Training, x: Tensor) -> DigitNet:
    """The inference network: convolutions absorb their norms, features are standardised on clean digits ``x``."""
    network = DigitNet()
    for plain, convolution, norm in zip(network.convolutions, model.convolutions, model.norms, strict=True):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        plain.weight.copy_(convolution.weight * scale[:, None, None, None])
        plain.bias.copy_(norm.bias - norm.running_mean * scale)
    projected = torch.cat([model.projected(part.float() / 255) for part in x.split(1000)]).double()
    std, mean = torch.std_mean(projected, 0)
    network.project.weight.copy_(model.project.weight / std[:, None])
    network.project.bias.copy_(-mean / std)
    network.classify.load_state_dict(model.classify.state_dict())
    return network.eval()


@torch.no_grad()
def accuracy(network: DigitNet, x: Tensor, label: Tensor) -> float:
    predicted = torch.cat([network(part.float() / 255).argmax(1) for part in x.split(1000)])
    return float((predicted == label).double().mean())


RECIPE = """\
# How digits.safetensors was made: tools/train_digit_classifier.py, which wrote this file.
# The digits are MNIST (Y. LeCun, C. Cortes, C. Burges).  The weights are part of Bowerbird, Apache-2.0.
title = "MNIST digit classifier: 128 standardised features and 10 classes"
sha256 = "{sha256}"
dtype = "float16"
parameters = {parameters}

[train]
split = "the 60,000 training digits"
epochs = {epochs}
batch_size = {batch_size}
optimizer = "adamw"
lr = {lr}
schedule = "one cycle, 20 % rise"
weight_decay = {weight_decay}
dropout = {dropout}
augmentation = "rotation ±{rotation}°, shift ±{shift} pixels, scale e^±{scale}"
seed = {seed}
threads = 1
torch = "{torch}"
cpu_seconds = {cpu_seconds:.0f}

[data]
# sha256 of the uncompressed IDX files
{data}
[measured]
test_accuracy = {test_accuracy}
train_accuracy = {train_accuracy:.4f}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("output", type=Path, nargs="?", default=WEIGHTS.parent)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = {name: read_idx(arguments.mnist / f"{name}-ubyte.gz") for name in names}
    x, label = files[names[0]][0][:, None], files[names[1]][0].long()
    began = time.process_time()
    network = fold(train(x, label), x)
    cpu_seconds = time.process_time() - began
    path = arguments.output / "digits.safetensors"
    save_file({name: weight.half().contiguous() for name, weight in network.state_dict().items()}, path)
    path.chmod(0o644)  # safetensors writes files that only their owner can read
    stored = DigitNet.load(path)
    recipe = RECIPE.format(
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        parameters=sum(weight.numel() for weight in stored.parameters()),
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        lr=PEAK_LR,
        weight_decay=WEIGHT_DECAY,
        dropout=DROPOUT,
        rotation=ROTATION_DEGREES,
        shift=SHIFT_PIXELS,
        scale=LOG_SCALE,
        seed=SEED,
        torch=torch.__version__,
        cpu_seconds=cpu_seconds,
        data="".join(f'{name} = "{digest}"\n' for name, (_, digest) in files.items()),
        test_accuracy=accuracy(stored, files[names[2]][0][:, None], files[names[3]][0].long()),
        train_accuracy=accuracy(stored, x, label),
    )
    path.with_suffix(".toml").write_text(recipe, encoding="utf-8")
    print(recipe)


if __name__ == "__main__":
    main()
