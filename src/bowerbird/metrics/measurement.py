"""A number together with how it was obtained, and the refusal to compare numbers that were obtained differently.

A ``Measurement`` is a value, its unit, its standard error where one is known, and its ``Protocol``.  Two measurements
can be compared (<, >, -) when they have the same name and equal protocols; otherwise the comparison raises an error
that names the fields that differ.  ``METRICS`` lists every name, its unit, the better direction and how to read it.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from bowerbird.errors import BowerbirdError, unknown

Settings = tuple[tuple[str, int | float | str], ...]
"""Names and values, sorted by name."""

CODE_VERSION = 1
"""Raised whenever a change of code changes the value of any metric."""


class Metric(NamedTuple):
    """What a name stands for."""

    unit: str
    better: Literal["lower", "higher", "none"]
    title: str
    reading: str


METRICS: dict[str, Metric] = {
    "frechet_distance": Metric(
        "1", "lower", "Fréchet distance",
        "squared distance between two Gaussians fitted to the features of samples and of real images; 0 is identical; "
        "it falls with the number of images, so only equal numbers compare",
    ),
    "frechet_distance_infinity": Metric(
        "1", "lower", "Fréchet distance, n → ∞",
        "extrapolated to endlessly many samples, so that its bias no longer depends on the model; the reference keeps "
        "its size",
    ),
    "kid": Metric(
        "1", "lower", "kernel distance (KID)",
        "squared kernel distance between features, without bias: 0 within its error for equal distributions, and "
        "comparable across numbers of samples as far as its error allows",
    ),
    "kid_subset_mean": Metric(
        "1", "lower", "KID, mean over subsets", "the same as papers print it: the mean over random subsets"
    ),
    "kid_subset_std": Metric(
        "1", "none", "KID, spread over subsets", "standard deviation over the subsets, which is no error of their mean"
    ),
    "precision": Metric(
        "1", "higher", "precision", "share of samples that lie among the real images (do they look real?)"
    ),
    "recall": Metric(
        "1", "higher", "recall", "share of real images that lie among the samples (is all of the variety there?)"
    ),
    "density": Metric(
        "1", "higher", "density",
        "like precision but robust to outliers: real neighbourhoods around each sample, 1 for real data",
    ),
    "coverage": Metric(
        "1", "higher", "coverage", "share of real images with a sample in their neighbourhood; about 0.97 for real data"
    ),
    "inception_score": Metric(
        "1", "higher", "inception score",
        "how sure a classifier is of each sample and how many classes occur; sees no real images, at most the number "
        "of classes",
    ),
    "diversity": Metric(
        "1", "none", "diversity",
        "mean distance between two samples over that between two real images: below 1 too uniform, above 1 too wild",
    ),
    "sliced_wasserstein": Metric(
        "grey levels", "lower", "sliced Wasserstein",
        "distance of pixels along random directions; sees brightness, colour and layout, and hardly any detail",
    ),
    "psnr": Metric(
        "dB", "higher", "PSNR", "of reconstructions of the reference images: their mean squared error in decibels"
    ),
    "ssim": Metric("1", "higher", "SSIM", "of reconstructions: likeness of local structure, 1 for equal images"),
    "copied_fraction": Metric(
        "1", "none", "copied fraction",
        "share of samples that are less than a third as far from one training image as from any other; 'data' in the "
        "protocol is that of unseen real images",
    ),
    "memorisation_ratio": Metric(
        "1", "none", "memorisation ratio",
        "distance to the nearest training image over distance to the nearest held-out image, divided by what unseen "
        "real images give: near 1 is clean, near 0 means copies",
    ),
    "closer_to_training": Metric(
        "1", "none", "closer to training",
        "share of samples whose nearest real image is a training image; without memorisation the protocol's 'chance'",
    ),
    "class_accuracy": Metric(
        "1", "higher", "class accuracy", "share of samples that the digit classifier gives the class that was asked for"
    ),
    "network_evaluations": Metric(
        "evaluations/image", "lower", "network evaluations", "forward passes of the sampling network per image, counted"
    ),
    "seconds_per_image": Metric(
        "s/image", "lower", "seconds per image", "wall-clock time of sampling on the machine named in the protocol"
    ),
    "nll": Metric(
        "nats/image", "lower", "negative log-likelihood",
        "of the reference images, or the bound that the family computes"
    ),
    "bits_per_dim": Metric(
        "bits/dim", "lower", "bits per dimension", "the negative log-likelihood per number of the image, in bits"
    ),
    "flow_bits_per_dim": Metric(
        "bits/dim", "lower", "bits per dimension by the flow",
        "the same under the probability flow instead of the family's own bound; the protocol states the solver's "
        "tolerance",
    ),
    "nll_per_token": Metric(
        "nats/token", "lower", "loss per token", "negative log-likelihood; compares only between runs of one tokeniser"
    ),
    "perplexity": Metric(
        "1", "lower", "perplexity", "e to the loss per token: as unsure as among that many equally likely tokens"
    ),
    "bits_per_byte": Metric(
        "bits/byte", "lower", "bits per byte", "of UTF-8 text: comparable across tokenisers and with compressors"
    ),
    "bits_per_character": Metric(
        "bits/character", "lower", "bits per character", "comparable across tokenisers of one language"
    ),
    "nll_per_frame": Metric("nats/frame", "lower", "loss per frame", "all voices of one time step together"),
    "nll_per_note": Metric("nats/note", "lower", "loss per note", "the same nats over the number of notes"),
    "bigram_nll_per_token": Metric(
        "nats/token", "none", "bigram's loss per token", "what one previous token tells: a model must be well below"
    ),
    "bigram_nll_per_frame": Metric("nats/frame", "none", "bigram's loss per frame", "the same baseline per frame"),
    "bigram_nll_per_note": Metric("nats/note", "none", "bigram's loss per note", "the same baseline per note"),
    "bleu": Metric(
        "%", "higher", "BLEU", "n-grams shared with the references, n ≤ 4; only equal signatures compare"
    ),
    "chrf": Metric("%", "higher", "chrF", "character n-grams shared with the references, n ≤ 6"),
    "rouge1": Metric("%", "higher", "ROUGE-1", "F1 of the words shared with the reference"),
    "rouge2": Metric("%", "higher", "ROUGE-2", "F1 of the pairs of words shared with the reference"),
    "rougeL": Metric("%", "higher", "ROUGE-L", "F1 of the longest common subsequence of words"),
    "rougeLsum": Metric("%", "higher", "ROUGE-Lsum", "the same line by line, united"),
    "distinct_1": Metric(
        "1", "higher", "distinct-1", "share of different words among 1,000: variety; 'data' has that of real text"
    ),
    "distinct_2": Metric("1", "higher", "distinct-2", "the same of pairs of words"),
    "distinct_3": Metric("1", "higher", "distinct-3", "the same of triples of words"),
    "self_bleu": Metric(
        "%", "lower", "self-BLEU", "of each sample against all others: sameness; 'data' has that of real texts"
    ),
    "text_form": Metric("1", "higher", "texts in form", "share of samples with the lines and characters asked for"),
    "longest_copied_span": Metric(
        "characters", "none", "longest copied span",
        "in any sample, letter for letter in the training text; memorised where far above 'data', that of unseen text",
    ),
    "copied_share": Metric(
        "1", "none", "copied share",
        "of the samples, in spans of at least 'span' that are in the training data; beside 'data', that of unseen ones",
    ),
    "pitch_class_overlap": Metric(
        "1", "higher", "pitch-class overlap", "shared area of the histograms of notes; 'data' has that of training"
    ),
    "duration_overlap": Metric(
        "1", "higher", "duration overlap", "shared area of the histograms of note lengths; 'data' has that of training"
    ),
    "scale_consistency": Metric(
        "1", "none", "scale consistency", "share of a piece's notes in the major or minor scale that fits it best"
    ),
    "parallel_fifths": Metric(
        "1/100 changes", "lower", "parallel fifths", "per 100 changes of chord, over all pairs of voices"
    ),
    "parallel_octaves": Metric(
        "1/100 changes", "lower", "parallel octaves", "per 100 changes of chord, over all pairs of voices; with unisons"
    ),
    "longest_copied_run": Metric(
        "steps", "none", "longest copied run",
        "of frames or notes that a training piece has; memorised where far above 'data', that of unseen pieces",
    ),
    "longest_transposed_run": Metric("steps", "none", "longest copied run in any key", "the same up to transposition"),
}  # fmt: skip


@dataclass(frozen=True)
class Protocol:
    """How a number was obtained.  Fields that do not bear on a metric keep their default."""

    n_generated: int = 0
    """Samples that entered."""
    n_reference: int = 0
    """Reference examples that entered."""
    reference: str = ""
    """Name of the reference data."""
    split: str = ""
    """Which of its splits."""
    fingerprint: str = ""
    """Content hash of the reference data."""
    preprocessing: Settings = ()
    """What was done to the reference data before they were measured."""
    extractor: str = ""
    extractor_sha256: str = ""
    """Hash of the extractor's weights."""
    resizer: str = ""
    """How the extractor brings images to its size."""
    dtype: str = ""
    """Precision of the extractor's arithmetic."""
    parameters: Settings = ()
    """The metric's own settings, such as its number of neighbours."""
    machine: str = ""
    """Where, for metrics of time."""
    code_version: int = CODE_VERSION

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that are equal exactly for equal protocols."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        tables = {"preprocessing": dict(self.preprocessing), "parameters": dict(self.parameters)}
        return {**dataclasses.asdict(self), **tables}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Protocol":
        for key in table:
            if key not in cls.__dataclass_fields__:
                raise unknown("protocol field", key, cls.__dataclass_fields__)
        tables = {key: settings(table.get(key, {})) for key in ("preprocessing", "parameters")}
        return cls(**{**table, **tables})

    def differences(self, other: "Protocol") -> list[str]:
        """One phrase for each field that differs."""
        mine, theirs = self.to_json(), other.to_json()
        return [f"{key} ({mine[key]!r} and {theirs[key]!r})" for key in mine if mine[key] != theirs[key]]


def settings(table: Mapping[str, int | float | str]) -> Settings:
    """A table in the form that a ``Protocol`` holds."""
    return tuple(sorted(table.items()))


def with_data(protocol: Protocol, data: float, **parameters: int | float | str) -> Protocol:
    """The protocol with a metric's own settings and, as 'data', its value for real data (none if not a number)."""
    known = {"data": round(data, 6)} if math.isfinite(data) else {}
    return dataclasses.replace(protocol, parameters=settings({**dict(protocol.parameters), **known, **parameters}))


@dataclass(frozen=True)
class Measurement:
    """A named value with its unit, standard error and protocol."""

    name: str
    value: float
    unit: str
    stderr: float | None
    protocol: Protocol
    interval: tuple[float, float] | None = None
    """A 95 % confidence interval, where it is not simply two standard errors to either side."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; a value that is not finite becomes null, which JSON can write."""
        finite = {"value": self.value, "stderr": self.stderr}
        numbers = {key: x if x is not None and math.isfinite(x) else None for key, x in finite.items()}
        interval = {} if self.interval is None else {"interval": list(self.interval)}
        return {"name": self.name, "unit": self.unit, **numbers, **interval, "protocol": self.protocol.to_json()}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Measurement":
        value = math.nan if table["value"] is None else float(table["value"])
        low_high = tuple(table["interval"]) if "interval" in table else None
        return cls(
            table["name"], value, table["unit"], table["stderr"], Protocol.from_json(table["protocol"]), low_high
        )  # fmt: skip

    def __lt__(self, other: "Measurement") -> bool:
        require_comparable(self, other)
        return self.value < other.value

    def __gt__(self, other: "Measurement") -> bool:
        require_comparable(self, other)
        return self.value > other.value

    def __sub__(self, other: "Measurement") -> "Measurement":
        """The difference, with the standard error of independent measurements: sqrt(stderr² + other.stderr²)."""
        require_comparable(self, other)
        known = self.stderr is not None and other.stderr is not None
        stderr = math.hypot(self.stderr or 0.0, other.stderr or 0.0) if known else None
        return dataclasses.replace(
            self, name=f"{self.name}_difference", value=self.value - other.value, stderr=stderr, interval=None
        )  # fmt: skip


def require_comparable(a: Measurement, b: Measurement) -> None:
    """Raises BowerbirdError, naming what differs, unless both measure the same thing under one protocol."""
    if (a.name, a.unit) != (b.name, b.unit):
        raise BowerbirdError(f"{a.name} in {a.unit} and {b.name} in {b.unit} are different quantities.")
    if differing := a.protocol.differences(b.protocol):
        raise BowerbirdError(
            f"These two values of {a.name} were measured differently and cannot be compared: "
            f"{', '.join(differing)} differ; measure both again under one protocol."
        )


def measured(
    name: str,
    value: float,
    protocol: Protocol,
    stderr: float | None = None,
    interval: tuple[float, float] | None = None,
) -> Measurement:
    """The measurement of a metric listed in ``METRICS``, with its unit."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return Measurement(name, float(value), METRICS[name].unit, stderr, protocol, interval)
