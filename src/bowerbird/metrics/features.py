"""Extractors: fixed networks that turn images into the features that metrics compare.

An extractor is known by its name and the sha256 of its weights; together with how it resizes and computes, they decide
what a feature is, so they go into every protocol.  There are four:

    digits              128 features of the classifier that ships with the package; also names the digit
    inception-2015      2,048 pooled features of the network behind FID; its weights are fetched on request
    efficientnet-lite0  1,280 pooled features of a small classifier of photographs; fetched on request
    dinov2              features of a self-supervised transformer; from a file of weights that the user has

Features are computed in full float32: neither TF32 nor bf16 products, whatever the process has allowed elsewhere.
Inception can be asked for bf16, which its protocol then states; see ``docs/metrics.md`` for what that changes.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from bowerbird.errors import BowerbirdError, unknown
from bowerbird.metrics import digits, dinov2, efficientnet, inception
from bowerbird.metrics.arithmetic import full_precision

FEATURES_VERSION = 1
"""Part of every key; raised when a change of code changes features."""

Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Progress = Callable[[int], None]
"""Called with the number of images done since the last call."""


def silent(_n: int) -> None:
    """Reports no progress."""


class Extractor(ABC):
    """Images in, features out."""

    name: str
    dimension: int
    resizer: str
    """How images are brought to the network's size and colours."""
    dtype = "float32"
    batch_size: int
    """Images at once unless the caller says otherwise."""
    classifies = False
    """The network ends in a classifier, so that an Inception Score exists."""
    instant = False
    """It sees all training images of a data set in seconds, so that what needs them is measured without being asked."""

    def __init__(self, sha256: str, device: torch.device):
        self.sha256 = sha256
        self.device = device

    @abstractmethod
    def _forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of images that are on the network's device."""

    @torch.no_grad()
    def features(
        self, images: UInt8[Tensor, "n c h w"], *, batch_size: int | None = None, progress: Progress = silent
    ) -> Float[Tensor, "n d"]:
        """Features of each image, float32, on the CPU; the same whatever the batch size, up to rounding."""
        if images.shape[1] not in (1, 3):
            raise BowerbirdError(f"The extractor {self.name} takes grey or RGB images, not {images.shape[1]} channels.")
        out = torch.empty(len(images), self.dimension)
        size = batch_size or self.batch_size
        with full_precision():
            for start in range(0, len(images), size):
                batch = images[start : start + size]
                out[start : start + len(batch)] = self._forward(batch.to(self.device)).cpu()
                progress(len(batch))
        return out

    def log_probabilities(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Logarithms of the class probabilities that follow from features; an error where there is no classifier."""
        raise BowerbirdError(
            f"The extractor {self.name} has no classifier, so it has no Inception Score; use digits or "
            "efficientnet-lite0."
        )

    @property
    def signature(self) -> str:
        """Everything but the images that decides features: part of every key."""
        return f"{FEATURES_VERSION}\n{self.sha256}\n{self.resizer}\n{self.dtype}\n"

    def key(self, images: UInt8[Tensor, "n c h w"]) -> str:
        """Forty hexadecimal digits that name the features of exactly these images in this order."""
        digest = hashlib.sha256(self.signature.encode())
        digest.update(f"{tuple(images.shape)}\n".encode())
        for part in images.split(4096):
            digest.update(part.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:40]


class Digits(Extractor):
    """The shipped classifier of digits."""

    name = "digits"
    dimension = digits.FEATURES
    resizer = "BT.601 grey, antialiased bilinear to 28x28"
    batch_size = 500
    classifies = True
    instant = True

    def __init__(self, device: torch.device):
        super().__init__(_sha256(digits.WEIGHTS), device)
        self.network = digits.DigitNet.load().to(device)

    def _forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.network.features(digits.to_digits(images))

    @torch.no_grad()
    def log_probabilities(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        return self.network.logits(features.to(self.device)).log_softmax(1).cpu()

    def classify(self, images: UInt8[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
        """The digit 0…9 that each image shows, on the CPU."""
        return self.log_probabilities(self.features(images)).argmax(1)


class Inception(Extractor):
    """The network that defines FID."""

    name = "inception-2015"
    dimension = inception.FEATURES
    resizer = "TensorFlow 1 bilinear to 299x299, grey repeated"
    batch_size = 50

    def __init__(self, weights: Path, device: torch.device, precision: Precision = "fp32"):
        super().__init__(_sha256(weights), device)
        dtype = DTYPES[precision]
        self.dtype = str(dtype).removeprefix("torch.")
        self.network = inception.Inception2015.load(weights, dtype).to(device)

    def _forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.network(images)


class EfficientNet(Extractor):
    """A small classifier of photographs, several times as fast as Inception."""

    name = "efficientnet-lite0"
    dimension = efficientnet.FEATURES
    resizer = "antialiased bicubic to 224x224, grey repeated"
    batch_size = 50
    classifies = True

    def __init__(self, weights: Path, device: torch.device):
        super().__init__(_sha256(weights), device)
        self.network = efficientnet.EfficientNetLite0.load(weights).to(device)

    def _forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.network(images)

    @torch.no_grad()
    def log_probabilities(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        return self.network.classify(features.to(self.device)).log_softmax(1).cpu()


class DINOv2(Extractor):
    """A self-supervised vision transformer, whose distances people agree with more often (arXiv:2306.04675)."""

    name = "dinov2"
    resizer = "antialiased bicubic to 224x224, grey repeated"
    batch_size = 50

    def __init__(self, weights: Path, device: torch.device):
        super().__init__(_sha256(weights), device)
        self.network = dinov2.PatchTransformer.load(weights).to(device)
        self.dimension = self.network.width

    def _forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.network(images)


EXTRACTORS = ("digits", "inception-2015", "efficientnet-lite0", "dinov2")


def extractor(
    name: str, *, weights: Path | None = None, device: str | torch.device = "cpu", precision: Precision = "fp32"
) -> Extractor:
    """The extractor of that name, loaded; ``weights`` is the file of those that do not ship with the package."""
    if name not in EXTRACTORS:
        raise unknown("extractor", name, EXTRACTORS)
    if precision not in DTYPES:
        raise unknown("precision", precision, DTYPES)
    if precision != "fp32" and name != "inception-2015":
        raise BowerbirdError(f"The extractor {name} computes in fp32 only; leave out --precision {precision}.")
    device = torch.device(device)
    if name == "digits":
        return Digits(device)
    if weights is None and name == "dinov2":
        raise BowerbirdError(
            "The extractor dinov2 needs its published weights (.pth or .safetensors), which cannot be fetched from "
            "here; name the file: --extractor dinov2:FILE"
        )
    if weights is None:
        raise BowerbirdError(
            f"The weights of the extractor {name} are not on this machine; get them with: bowerbird data get {name}"
        )
    if not weights.is_file():
        raise BowerbirdError(f"There is no file {weights} with the weights of the extractor {name}.")
    if name == "inception-2015":
        return Inception(weights, device, precision)
    return DINOv2(weights, device) if name == "dinov2" else EfficientNet(weights, device)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
