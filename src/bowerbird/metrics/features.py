"""Extractors: fixed networks that turn images into the features that metrics compare.

An extractor is known by its name and the sha256 of its weights; together with how it resizes and computes, they decide
what a feature is, so they go into every protocol.  Two exist:

    digits          128 features of the classifier that ships with the package; also names the digit
    inception-2015  2,048 pooled features of the network behind FID; its weights are fetched on request

Features are computed in full float32: neither TF32 nor bf16 products, whatever the process has allowed elsewhere.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from bowerbird.errors import BowerbirdError, unknown
from bowerbird.metrics import digits, inception

FEATURES_VERSION = 1
"""Part of every key; raised when a change of code changes features."""

Progress = Callable[[int], None]
"""Called with the number of images done since the last call."""


def silent(_n: int) -> None:
    """Reports no progress."""


@contextmanager
def _full_precision() -> Iterator[None]:
    """float32 arithmetic without shortcuts: TF32 or bf16 products would change features in the third digit."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class Extractor(ABC):
    """Images in, features out."""

    name: str
    dimension: int
    resizer: str
    """How images are brought to the network's size and colours."""
    dtype = "float32"
    batch_size: int
    """Images at once unless the caller says otherwise."""

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
        with _full_precision():
            for start in range(0, len(images), size):
                batch = images[start : start + size]
                out[start : start + len(batch)] = self._forward(batch.to(self.device)).cpu()
                progress(len(batch))
        return out

    def key(self, images: UInt8[Tensor, "n c h w"]) -> str:
        """Forty hexadecimal digits that name the features of exactly these images in this order."""
        digest = hashlib.sha256(f"{FEATURES_VERSION}\n{self.sha256}\n{self.resizer}\n{self.dtype}\n".encode())
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

    def __init__(self, device: torch.device):
        super().__init__(_sha256(digits.WEIGHTS), device)
        self.network = digits.DigitNet.load().to(device)

    def _forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.network.features(digits.to_digits(images))

    @torch.no_grad()
    def classify(self, images: UInt8[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
        """The digit 0…9 that each image shows, on the CPU."""
        return self.network.logits(self.features(images).to(self.device)).argmax(1).cpu()


class Inception(Extractor):
    """The network that defines FID."""

    name = "inception-2015"
    dimension = inception.FEATURES
    resizer = "TensorFlow 1 bilinear to 299x299, grey repeated"
    batch_size = 50

    def __init__(self, weights: Path, device: torch.device):
        super().__init__(_sha256(weights), device)
        self.network = inception.Inception2015.load(weights).to(device)

    def _forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.network(images)


EXTRACTORS = ("digits", "inception-2015")


def extractor(name: str, *, weights: Path | None = None, device: str | torch.device = "cpu") -> Extractor:
    """The extractor of that name, loaded; ``weights`` is the file of those that do not ship with the package."""
    device = torch.device(device)
    if name == "digits":
        return Digits(device)
    if name != "inception-2015":
        raise unknown("extractor", name, EXTRACTORS)
    if weights is None:
        raise BowerbirdError(
            "The weights of the extractor inception-2015 are not on this machine; "
            "get them with: bowerbird data get inception-2015"
        )
    return Inception(weights, device)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
