"""Measures models of images: every number comes back as a ``Measurement`` with its protocol.

The work is in three steps that can be used alone: ``draw`` samples from a model and counts what that costs,
``measure_images`` compares images with reference images, ``measure_image_model`` does both and adds likelihoods.

Memorisation takes the validation split as held-out images: it is a random part of what training images were taken from,
while official test sets can come from elsewhere (the writers of MNIST's test digits wrote none of its training digits).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from bowerbird import machine
from bowerbird.data.fetch import cache_folder, locate
from bowerbird.data.writing import save_png
from bowerbird.errors import BowerbirdError
from bowerbird.generating import Drawn, draw
from bowerbird.measuring.pairs import nearest_pairs
from bowerbird.media.image.columns import LABEL
from bowerbird.media.image.imageset import ImageData, to_float, to_uint8
from bowerbird.metrics.bits import bits_per_dim
from bowerbird.metrics.cache import FeatureCache
from bowerbird.metrics.chosen import check_names, subset
from bowerbird.metrics.compared import K_DENSITY, MEMORISATION_METRICS, PRDC_METRICS
from bowerbird.metrics.features import Digits, Extractor, Precision, extractor
from bowerbird.metrics.images import IMAGE_METRICS, in_order, measure_images, measure_reconstructions
from bowerbird.metrics.measurement import Measurement, Protocol, measured, settings
from bowerbird.metrics.progress import progress_bar
from bowerbird.models.base import Batch, Encodes, Estimator, GenerativeModel, Scores, evaluating

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
        extractor = find_extractor(extractor, data.classes, model.device, precision)
    digit_of = as_digits(data.classes) if LABEL in model.spec.given else None
    if metrics is None:
        metrics = default_metrics(extractor, data, n_samples, digits=digit_of is not None) + COST_METRICS
        if isinstance(model, Encodes):
            metrics += RECONSTRUCTION_METRICS
    check_names(metrics, (*IMAGE_METRICS, *COST_METRICS, *LIKELIHOOD_METRICS, FLOW_LIKELIHOOD, *RECONSTRUCTION_METRICS))
    reference = subset(data.split(split).images, n_reference)
    results = []
    if pairs or set(metrics) & {*IMAGE_METRICS, *COST_METRICS}:
        drawn = draw(model, n_samples, seed=seed, batch_size=batch_size, options=sample_options)
        images = to_uint8(drawn.x)
        results += measure_images(
            images, reference,
            reference_name=data.name, split=split, fingerprint=data.fingerprint, preprocessing=data.preprocessing,
            extractor=extractor, metrics=[name for name in metrics if name in IMAGE_METRICS],
            training=data.train.images, held_out=data.val.images, cache=FeatureCache(cache_folder()),
            digits=digit_of[drawn.given[LABEL]] if digit_of is not None else None,
        )  # fmt: skip
        results += _cost(drawn, model.device)
        if pairs:
            save_png(pairs, nearest_pairs(images, data.train.images, extractor, FeatureCache(cache_folder())))
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
    n = len(drawn.x)
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
    estimator = model.estimators["nll"]
    nll = _nats(model, estimator, data, split, n_reference, seed, batch_size)
    mean, stderr, dims = float(nll.mean()), float(nll.std() / len(nll) ** 0.5), data.dims
    protocol = _of_reference(data, split, len(nll), {"estimator": estimator.description})
    return [
        measured("nll", mean, protocol, stderr),
        measured("bits_per_dim", bits_per_dim(mean, dims), protocol, bits_per_dim(stderr, dims)),
    ]


def _flow_likelihood(
    model: GenerativeModel, data: ImageData, split: str, n_reference: int | None, seed: int, batch_size: int
) -> list[Measurement]:
    if not isinstance(model, Scores) or "flow" not in model.estimators:
        raise BowerbirdError(f"{type(model).__name__} has no flow_bits_per_dim; see whether bits_per_dim applies.")
    estimator = model.estimators["flow"]
    nll = _nats(model, estimator, data, split, n_reference, seed, batch_size)
    protocol = _of_reference(data, split, len(nll), {"estimator": estimator.description})
    mean, stderr = (bits_per_dim(float(x), data.dims) for x in (nll.mean(), nll.std() / len(nll) ** 0.5))
    return [measured("flow_bits_per_dim", mean, protocol, stderr)]


def _nats(
    model: GenerativeModel, estimator: Estimator, data: ImageData, split: str, n_reference: int | None,
    seed: int, batch_size: int,
) -> Tensor:  # fmt: skip
    """-log p of each reference image, float64."""
    chosen = data.split(split)
    images, given = subset(chosen.images, n_reference), _given(model, chosen, n_reference)
    generator = torch.Generator().manual_seed(seed)
    found = []
    with progress_bar("likelihood", len(images)) as progress, torch.no_grad(), evaluating(model):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            x = to_float(images[rows].to(model.device))
            batch = Batch(x, {name: value[rows].to(model.device) for name, value in given.items()})
            found.append(-estimator.log_prob(batch, generator=generator).double().cpu())
            progress(len(x))
    return torch.cat(found)


def _given(model: GenerativeModel, split: Any, n: int | None) -> dict[str, Tensor]:
    """What the model takes of what is given with the first n images."""
    return {name: subset(value, n) for name, value in split.given.items() if name in model.spec.given}


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
    given = _given(model, chosen, n)
    made = []
    with progress_bar("reconstructions", len(originals)) as progress, torch.no_grad(), evaluating(model):
        for start in range(0, len(originals), batch_size):
            rows = slice(start, start + batch_size)
            x = to_float(originals[rows].to(model.device))
            part = {name: value[rows].to(model.device) for name, value in given.items()}
            made.append(to_uint8(model.decode(model.encode(x, part), part)).cpu())
            progress(len(x))
    protocol = _of_reference(data, split, len(originals))
    return measure_reconstructions(originals, torch.cat(made), protocol)
