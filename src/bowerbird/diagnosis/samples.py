"""A few samples of the averaged weights against a few real images, in the pixels themselves.

Cheap numbers that need no network, all relative to what the data would give:

    diversity        E|a - b|² of two samples (of one class, where there are classes) over that of two real images
    precision        share of samples within the 3-nearest-neighbour ball of some real image (Kynkäänniemi et al. 2019)
    recall           share of real images within that ball of some sample
    nearest          median distance of a sample to the training images over that of a training image to the others
    label_accuracy   how often a ridge classifier, fitted to training images, sees the class that was asked for;
                     real_accuracy is the same for validation images
    motion           of clips: mean squared difference of neighbouring frames over that of real clips
    flicker          the same of what is left of it when blocks may move (``metrics.motion.residual``)
    mean, std, min, max, edge   of all pixels; edge is the share beyond ±0.98 (EDGE)

They tell a collapsed or memorising model from a working one and rank nothing: for that there is `bowerbird measure`.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bowerbird.data.columns import LABEL
from bowerbird.eightbit import to_uint8
from bowerbird.generating import draw
from bowerbird.media.image.imageset import ImageData, ImageSet
from bowerbird.media.speech.soundset import SoundData, SoundSet
from bowerbird.media.video.clipset import ClipData, ClipSet
from bowerbird.metrics.motion import residual
from bowerbird.models.base import GenerativeModel, Streams, with_steps
from bowerbird.spec import Classes, Tensors

N_SAMPLES = 64
N_TRAIN, N_HELD = 1024, 256
N_CLIPS = 256
"""Most clips of either side, which are larger than pictures."""
N_MOVED = 16
"""About as many clips are searched for blocks that move."""
STEPS = 5
"""Of a sampler that takes steps."""
SIDE = 32
CLIP_SIDE = 8
EDGE = 0.98
K = 3
RIDGE = 30.0


class Reference(NamedTuple):
    """Real images to compare with, flattened, and what they give themselves."""

    train: Tensor
    spacing: Tensor
    """Median distance of a training image to its nearest other."""
    spread: Tensor
    """E|a - b|² of two training images of one class."""
    edge: float
    """Share of pixels beyond ±EDGE."""
    classifier: Tensor | None
    """(dims + 1, classes)."""
    held_accuracy: float
    motion: float = 0.0
    """Of clips: mean squared difference of neighbouring frames."""
    flicker: float = 0.0
    """Of clips: what is left of it when blocks may move."""


def chosen(split: ImageSet | ClipSet | SoundSet, n: int, device: torch.device) -> dict[str, Any]:
    """At most n images, evenly spaced over a split, without random changes."""
    indices = torch.linspace(0, len(split) - 1, min(len(split), n)).long()
    return (split if isinstance(split, SoundSet) else replace(split, flip=False)).batch(indices, device)


def compared(data: Any) -> tuple[int, int]:
    """How many training and validation examples samples are compared with."""
    most = (N_CLIPS, N_CLIPS) if isinstance(data, ClipData) else (N_TRAIN, N_HELD)
    return min(len(data.train), most[0]), min(len(data.val), most[1])


def reference(data: ImageData | ClipData | SoundData, device: torch.device, uses_labels: bool) -> Reference:
    """Of the data, on the device on which ``statistics`` computes: CUDA, or a CPU, because MPS has no float64."""
    device = device if device.type == "cuda" else torch.device("cpu")
    n_train, n_held = compared(data)
    train, held = chosen(data.train, n_train, device), chosen(data.val, n_held, device)
    x, y = small(train["x"]), train["given"].get(LABEL) if uses_labels else None
    label = data.spec.given.get(LABEL)
    weights = _ridge(x, y, len(label.names)) if y is not None and isinstance(label, Classes) else None
    accuracy = _accuracy(small(held["x"]), held["given"][LABEL], weights) if weights is not None else 0.0
    edge = float((train["x"].abs() > EDGE).float().mean())
    moving = [float(of(train["x"])) for of in (change, unexplained)] if train["x"].ndim == 5 else []
    return Reference(x, _spacing(x), spread(x, y), edge, weights, accuracy, *moving)


def reference_of(x: Tensor) -> Reference:
    """Of real images, (n, c, h, w) or as rows, of which no labels are known."""
    rows = small(x)
    return Reference(rows, _spacing(rows), spread(rows, None), float((x.abs() > EDGE).float().mean()), None, 0.0)


def change(x: Tensor) -> Tensor:
    """Mean squared difference of neighbouring frames of clips (n, c, f, h, w)."""
    return x.diff(dim=2).square().mean()


def unexplained(x: Tensor) -> Tensor:
    """What is left of it in some of the clips when blocks of pixels may move."""
    return residual(to_uint8(x[:: max(1, len(x) // N_MOVED)])).mean()


def _spacing(rows: Tensor) -> Tensor:
    return torch.cdist(rows, rows).fill_diagonal_(float("inf")).min(1).values.median()


def small(x: Tensor) -> Tensor:
    """Images as rows, averaged down to at most SIDE pixels a side, frames of clips to CLIP_SIDE: memory and time do not
    grow with them."""
    if x.ndim not in (4, 5):
        return x.flatten(1)
    side, x = (SIDE, x) if x.ndim == 4 else (CLIP_SIDE, x.flatten(1, 2))
    height, width = x.shape[2:]
    size = (min(height, side), min(width, side))
    return (x if size == (height, width) else F.adaptive_avg_pool2d(x, size)).flatten(1)


def spread(x: Tensor, label: Tensor | None) -> Tensor:
    """E|a - b|² of two different rows, of one class where there are labels: twice the (within-class) variance."""
    if len(x) < 2:
        return x.new_zeros(())
    if label is None:
        return 2 * x.var(0).sum()
    parts = [x[label == value] for value in label.unique()]
    sums = [(len(part) - 1) * part.var(0).sum() for part in parts if len(part) > 1]
    return 2 * torch.stack(sums).sum() / max(1, len(x) - len(parts)) if sums else x.new_zeros(())


def is_cheap(model: GenerativeModel) -> bool:
    """Whether a few samples of pictures can be drawn in passing: not from models that go number by number."""
    return isinstance(model.spec.target, Tensors) and not isinstance(model, Streams)


def few(model: GenerativeModel, data: ImageData | ClipData | SoundData, n: int) -> tuple[Tensor, Tensor | None, float]:
    """Samples with their labels (each label several times) and the network evaluations per sample.

    Captions, and pictures to start from, are those of the first validation examples.
    """
    given: dict[str, Tensor] = {}
    if others := [name for name, field in model.spec.given.items() if not isinstance(field, Classes)]:
        n = min(n, len(data.val))
        batch = data.val.batch(torch.arange(n))["given"]
        given = {name: batch[name] for name in others}
    field, label = model.spec.given.get(LABEL), None
    if isinstance(field, Classes):
        kinds = min(len(field.names), 16)
        label = torch.linspace(0, len(field.names) - 1, kinds).round().long().repeat(-(-n // kinds))[:n]
        given[LABEL] = label
    drawn = draw(model, n, given=given, options=with_steps(model, STEPS), shown=False)
    return drawn.x.float(), label, drawn.evaluations


def statistics(x: Tensor, label: Tensor | None, real: Reference) -> dict[str, float]:
    """The numbers of this module for samples (n, c, h, w) or clips (n, c, f, h, w)."""
    x = x.to(real.train.device)
    flat = small(x)
    if not torch.isfinite(flat).all():
        return {"finite": 0.0}
    label = None if label is None else label.to(flat.device)
    some = real.train[:: max(1, len(real.train) // len(flat))]
    to_train = torch.cdist(flat, real.train).min(1).values
    numbers: dict[str, Tensor | float] = {
        "mean": x.mean(),
        "std": x.std(),
        "min": x.min(),
        "max": x.max(),
        "edge": (x.abs() > EDGE).float().mean(),
        "data_edge": real.edge,
        "diversity": spread(flat, label) / real.spread.clamp(min=1e-12),
        "precision": _covered(flat, some),
        "recall": _covered(some, flat),
        "nearest": to_train.median() / real.spacing.clamp(min=1e-12),
    }
    if real.motion:
        numbers["motion"] = change(x) / real.motion
    if real.flicker:
        numbers["flicker"] = unexplained(x) / real.flicker
    found = {name: float(f"{float(value):.4g}") for name, value in numbers.items()}
    if label is not None and real.classifier is not None:
        found |= {"label_accuracy": _accuracy(flat, label, real.classifier), "real_accuracy": real.held_accuracy}
    return found


def _covered(x: Tensor, centres: Tensor) -> Tensor:
    """Share of rows of x within the K-nearest-neighbour ball of some centre."""
    if len(centres) <= K:
        return x.new_zeros(())
    radius = torch.cdist(centres, centres).kthvalue(K + 1, dim=1).values
    return (torch.cdist(x, centres) <= radius).any(1).float().mean()


def _ridge(x: Tensor, label: Tensor, n_classes: int) -> Tensor:
    """The linear map of least squared error to one-hot labels, with a bias; RIDGE per example count of 1,000."""
    design = torch.cat([x, x.new_ones(len(x), 1)], 1).double()
    target = F.one_hot(label, n_classes).double()
    n, d = design.shape
    if n < d:  # in the space of examples, which is smaller
        gram = design @ design.T + RIDGE * torch.eye(n, dtype=torch.float64, device=x.device)
        return (design.T @ torch.linalg.solve(gram, target)).float()
    gram = design.T @ design + RIDGE * torch.eye(d, dtype=torch.float64, device=x.device)
    return torch.linalg.solve(gram, design.T @ target).float()


def _accuracy(x: Tensor, label: Tensor, weights: Tensor) -> float:
    scores = torch.cat([x, x.new_ones(len(x), 1)], 1) @ weights
    return round(float((scores.argmax(1) == label).float().mean()), 4)
