"""Measures models of images: every number comes back as a ``Measurement`` with its protocol.

The work is in three steps that can be used alone: ``draw`` samples from a model and counts what that costs,
``measure_images`` compares images with reference images, ``measure_image_model`` does both and adds likelihoods.

Memorisation takes the validation split as held-out images: it is a random part of what training images were taken from,
while official test sets can come from elsewhere (the writers of MNIST's test digits wrote none of its training digits).
"""

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from bowerbird import machine
from bowerbird.data.fetch import cache_folder, locate
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.measuring.pairs import nearest_pairs
from bowerbird.media.image.imageset import ImageData
from bowerbird.media.image.pictures import save_png
from bowerbird.metrics.bits import bits_per_dim
from bowerbird.metrics.cache import FeatureCache
from bowerbird.metrics.chosen import check_names, subset
from bowerbird.metrics.compared import K_DENSITY, MEMORISATION_METRICS, PRDC_METRICS
from bowerbird.metrics.features import Digits, Extractor, Precision, extractor
from bowerbird.metrics.images import IMAGE_METRICS, in_order, measure_images, measure_reconstructions
from bowerbird.metrics.measurement import Measurement, Protocol, measured, settings
from bowerbird.metrics.progress import progress_bar
from bowerbird.models.base import Encodes, GenerativeModel, Scores, ScoresByFlow, counting_evaluations, evaluating
from bowerbird.spec import to_float, to_uint8

COST_METRICS = ("network_evaluations", "seconds_per_image")
LIKELIHOOD_METRICS = ("nll", "bits_per_dim")
FLOW_LIKELIHOOD = "flow_bits_per_dim"
RECONSTRUCTION_METRICS = ("psnr", "ssim")
N_RECONSTRUCTIONS = 2000
"""Most images that are encoded and decoded again."""
FETCHED = ("inception-2015", "efficientnet-lite0")
"""Extractors whose weights `data get` fetches, the preferred one first."""


# ------------------------------------------------------------------------------------------------------- extractors


def find_extractor(
    name: str, classes: Sequence[str] = (), device: str | torch.device = "cpu", precision: Precision = "fp32"
) -> Extractor:
    """The extractor of that name, or ``name:FILE`` with the file of its weights.

    ``auto`` is the shipped one for digits (recognised by ``classes``), else the first of ``inception-2015`` and
    ``efficientnet-lite0`` whose weights are present, else the shipped one.
    """
    name, _, file = name.partition(":")
    if name == "auto":
        present = [weighted for weighted in FETCHED if locate(weighted) is not None]
        name = "digits" if as_digits(classes) is not None or not present else present[0]
    weights = Path(file).expanduser() if file else locate(name) if name in FETCHED else None
    return extractor(name, weights=weights, device=device, precision=precision)


def as_digits(classes: Sequence[str]) -> Int[Tensor, " k"] | None:
    """The digit that each class stands for, or None when the classes are not digits."""
    if not classes or any(name not in "0123456789" or len(name) != 1 for name in classes):
        return None
    return torch.tensor([int(name) for name in classes])


# ----------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Drawn:
    """Samples of a model and what drawing them cost."""

    images: UInt8[Tensor, "n c h w"]
    label: Int[Tensor, " n"] | None
    """The classes that were asked for; None when the model has none."""
    evaluations: float
    """Network evaluations per image."""
    seconds: float
    """Wall-clock seconds per image."""


def draw(
    model: GenerativeModel,
    n: int,
    *,
    seed: int = 0,
    class_number: int | None = None,
    batch_size: int = 256,
    options: dict[str, Any] | None = None,
    shown: bool = True,
) -> Drawn:
    """n samples, uint8 on the CPU; of a class-conditional model, with labels as frequent as in the training data.

    ``class_number`` asks for one class instead.  ``options`` are the family's own; one that it does not have is an
    error.  The first batch counts towards the time like every other: it is what a user waits for.
    """
    if n < 1:
        raise BowerbirdError(f"The number of samples must be at least 1, not {n}.")
    check_options(model, options or {})
    generator = torch.Generator().manual_seed(seed)
    label = model.spec.draw_labels(n, generator) if model.n_classes else None
    if class_number is not None:
        label = torch.full((n,), class_number)
    images = []
    with (
        progress_bar("sampling", n, shown) as progress,
        torch.no_grad(),
        evaluating(model),
        counting_evaluations(model) as rows,
    ):
        began = time.perf_counter()
        for start in range(0, n, batch_size):
            count = min(batch_size, n - start)
            cond = None if label is None else label[start : start + count].to(model.device)
            x = model.sample(count, cond=cond, generator=generator, **(options or {}))
            images.append(to_uint8(x).cpu())
            progress(count)
        seconds = time.perf_counter() - began
    return Drawn(torch.cat(images), label, rows[0] / n, seconds / n)


def check_options(model: GenerativeModel, options: dict[str, Any], method: str = "sample") -> None:
    """Raises for an option that the model's ``sample`` (``complete``, ``translate``) does not have."""
    known = set(inspect.signature(getattr(model, method)).parameters) - {"n", "cond", "generator", "prompts", "source"}
    for name in options:
        if name not in known:
            raise unknown(f"sampling option of {type(model).__name__}", name, known)


def measure_image_model(
    model: GenerativeModel,
    data: ImageData,
    *,
    n_samples: int,
    n_reference: int | None = None,
    split: str = "test",
    extractor: str | Extractor = "auto",
    precision: Precision = "fp32",
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 256,
    sample_options: dict[str, Any] | None = None,
    pairs: Path | None = None,
) -> list[Measurement]:
    """Draws ``n_samples`` from the model and measures them against ``n_reference`` (None: all) images of a split.

    ``metrics`` None takes all that apply and do not need an hour: not likelihoods, and memorisation only with the
    shipped extractor.  A metric that was named but does not apply is an error.  ``pairs`` is a PNG to write: the
    samples that look most like copies, each beside its nearest training image.
    """
    if isinstance(extractor, str):
        extractor = find_extractor(extractor, data.spec.classes, model.device, precision)
    digit_of = as_digits(model.spec.classes) if model.n_classes else None
    if metrics is None:
        metrics = default_metrics(extractor, data, n_samples, digits=digit_of is not None) + COST_METRICS
        if isinstance(model, Encodes):
            metrics += RECONSTRUCTION_METRICS
    check_names(metrics, (*IMAGE_METRICS, *COST_METRICS, *LIKELIHOOD_METRICS, FLOW_LIKELIHOOD, *RECONSTRUCTION_METRICS))
    reference = subset(data.split(split).images, n_reference)
    results = []
    if pairs or set(metrics) & {*IMAGE_METRICS, *COST_METRICS}:
        drawn = draw(model, n_samples, seed=seed, batch_size=batch_size, options=sample_options)
        results += measure_images(
            drawn.images, reference,
            reference_name=data.name, split=split, fingerprint=data.fingerprint, preprocessing=data.preprocessing,
            extractor=extractor, metrics=[name for name in metrics if name in IMAGE_METRICS],
            training=data.train.images, held_out=data.val.images, cache=FeatureCache(cache_folder()),
            digits=digit_of[drawn.label] if digit_of is not None and drawn.label is not None else None,
        )  # fmt: skip
        results += _cost(drawn, model.device)
        if pairs:
            save_png(pairs, nearest_pairs(drawn.images, data.train.images, extractor, FeatureCache(cache_folder())))
    if set(metrics) & set(LIKELIHOOD_METRICS):
        results += _likelihood(model, data, split, n_reference, seed, batch_size)
    if FLOW_LIKELIHOOD in metrics:
        results += _flow_likelihood(model, data, split, n_reference, seed, batch_size)
    if set(metrics) & set(RECONSTRUCTION_METRICS):
        results += _reconstructions(model, data, split, n_reference, batch_size)
    return in_order([m for m in results if m.name in metrics])


def default_metrics(extractor: Extractor, data: ImageData, n: int, *, digits: bool) -> tuple[str, ...]:
    """Image metrics that apply to n samples and these data; without memorisation where it would take an hour."""
    shipped = isinstance(extractor, Digits)
    enough = min(n, len(data.train), len(data.val), len(data.test)) > K_DENSITY
    return (
        "frechet_distance",
        "kid",
        *(PRDC_METRICS if enough else ()),
        *(MEMORISATION_METRICS if enough and shipped else ()),
        *(("class_accuracy",) if digits else ()),
    )


def _cost(drawn: Drawn, device: torch.device) -> list[Measurement]:
    n = len(drawn.images)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(machine.describe()["processor"])
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    return [
        measured("network_evaluations", drawn.evaluations, Protocol()),
        measured("seconds_per_image", drawn.seconds, Protocol(n_generated=n, machine=where + threads)),
    ]


def _likelihood(
    model: GenerativeModel, data: ImageData, split: str, n_reference: int | None, seed: int, batch_size: int
) -> list[Measurement]:
    if not isinstance(model, Scores):
        raise BowerbirdError(f"{type(model).__name__} has no likelihood; nll and bits_per_dim do not apply.")
    nll = _nats(model, model.log_prob, data, split, n_reference, seed, batch_size)
    mean, stderr, dims = float(nll.mean()), float(nll.std() / len(nll) ** 0.5), data.spec.dims
    protocol = _of_reference(data, split, len(nll), {"estimator": model.estimator})
    return [
        measured("nll", mean, protocol, stderr),
        measured("bits_per_dim", bits_per_dim(mean, dims), protocol, bits_per_dim(stderr, dims)),
    ]


def _flow_likelihood(
    model: GenerativeModel, data: ImageData, split: str, n_reference: int | None, seed: int, batch_size: int
) -> list[Measurement]:
    if not isinstance(model, ScoresByFlow):
        raise BowerbirdError(f"{type(model).__name__} has no flow_bits_per_dim; see whether bits_per_dim applies.")
    nll = _nats(model, model.flow_log_prob, data, split, n_reference, seed, batch_size)
    protocol = _of_reference(data, split, len(nll), {"estimator": model.flow_estimator})
    mean, stderr = (bits_per_dim(float(x), data.spec.dims) for x in (nll.mean(), nll.std() / len(nll) ** 0.5))
    return [measured("flow_bits_per_dim", mean, protocol, stderr)]


def _nats(
    model: GenerativeModel, log_prob: Callable[..., Tensor], data: ImageData, split: str, n_reference: int | None,
    seed: int, batch_size: int,
) -> Tensor:  # fmt: skip
    """-log p of each reference image, float64."""
    images = subset(data.split(split).images, n_reference)
    labels = data.split(split).labels
    label = subset(labels, n_reference) if labels is not None and model.n_classes else None
    generator = torch.Generator().manual_seed(seed)
    found = []
    with progress_bar("likelihood", len(images)) as progress, torch.no_grad(), evaluating(model):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            x = to_float(images[rows].to(model.device))
            cond = None if label is None else label[rows].to(model.device)
            found.append(-log_prob(x, cond, generator=generator).double().cpu())
            progress(len(x))
    return torch.cat(found)


def _of_reference(data: ImageData, split: str, n: int, parameters: dict[str, str] | None = None) -> Protocol:
    """Of what is measured on reference images without samples."""
    return Protocol(
        n_reference=n, reference=data.name, split=split, fingerprint=data.fingerprint,
        preprocessing=settings(data.preprocessing), parameters=settings(parameters or {}),
    )  # fmt: skip


def _reconstructions(
    model: GenerativeModel, data: ImageData, split: str, n_reference: int | None, batch_size: int
) -> list[Measurement]:
    """Of images of the split that are encoded and decoded again."""
    if not isinstance(model, Encodes):
        raise BowerbirdError(f"{type(model).__name__} does not encode images; psnr and ssim do not apply.")
    chosen = data.split(split)
    n = min(n_reference or N_RECONSTRUCTIONS, N_RECONSTRUCTIONS)
    originals = subset(chosen.images, n)
    label = subset(chosen.labels, n) if chosen.labels is not None and model.n_classes else None
    made = []
    with progress_bar("reconstructions", len(originals)) as progress, torch.no_grad(), evaluating(model):
        for start in range(0, len(originals), batch_size):
            rows = slice(start, start + batch_size)
            x = to_float(originals[rows].to(model.device))
            cond = None if label is None else label[rows].to(model.device)
            made.append(to_uint8(model.decode(model.encode(x, cond), cond)).cpu())
            progress(len(x))
    protocol = _of_reference(data, split, len(originals))
    return measure_reconstructions(originals, torch.cat(made), protocol)
