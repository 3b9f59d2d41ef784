r"""Latent models (Vahdat et al. 2021, arXiv:2106.05931; Rombach et al. 2022, arXiv:2112.10752): any family over codes.

An autoencoder turns a picture x into a code z = E(x) of far fewer numbers, and back, D(z) ≈ x.  Another family, the
prior, learns the distribution of the codes from what is given, and a sample is

    x = D(z),    z ~ p(z | given).

The prior spends nothing on what all pictures share, edges and smooth surfaces, and the decoder nothing on what things
there are.  Here they are trained one after the other (Rombach et al., section 3): the autoencoder by a run of its own,
whose weights ``--train.start`` brings here, where they stay as they are.

The codes are posterior means, in units of what the decoder can bear: q(z|x) = N(mu, sigma²) was trained with as much
noise as does no harm, little in a feature that the picture hangs on and much in one of detail, so

    z_c = mu_c / (sigma_c s),    sigma_c the geometric mean of feature c, and s such that E z² = 1 over all features.

An error of the same size then costs about the same wherever it is, and noise hides details before it hides what the
picture is, as it does in pixels.  In a VAE's own units, where every feature has a variance near 1, a flow learns all
of them alike.  Where an autoencoder has no posterior, sigma_c is the feature's own standard deviation.  The scales are
those of the first batch, as in Rombach et al. (appendix G), whose single one is s.

Any family that ``Encodes`` is an autoencoder, and any that makes arrays of numbers a prior: a flow, a diffusion, a GAN.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import (
    Batch,
    Denoises,
    EncodesGrid,
    GenerativeModel,
    Infers,
    Inverts,
    Loss,
    Piece,
    Portable,
    Positional,
    evaluating,
    keep,
)  # fmt: skip
from bowerbird.nets.conditioning import Given
from bowerbird.registry import families
from bowerbird.samplers.integrate import Denoising
from bowerbird.spec import Field, Spec, Tensors

TOLERANCE = 1e-4
"""The smallest unit of a feature, for one that is the same in all pictures."""


def _by_default(table: dict[str, Any]) -> Any:
    return field(default_factory=partial(config.model_from, table, "latent"))


@families.register("latent")
@dataclass(frozen=True)
class LatentConfig(config.ModelConfig):
    """A family over the codes of an autoencoder."""

    autoencoder: config.ModelConfig = _by_default(
        {"family": "vae", "net": {"name": "grid"}, "n_latent": 1024, "conditional": False}
    )
    """The family that makes codes, as the run was trained that ``train.start`` names."""
    prior: config.ModelConfig = _by_default({"family": "flow", "net": {"name": "dit", "patch": 2}})
    """The family that learns the codes."""

    def build(self, spec: Spec) -> "Latent":
        autoencoder = self.autoencoder.build(spec.alone())
        if not (isinstance(autoencoder, EncodesGrid) and isinstance(autoencoder, GenerativeModel)):
            raise BowerbirdError(
                f"model.autoencoder = {type(autoencoder).__name__.lower()} has no codes; use a family that has, "
                "such as vae."
            )
        keep(autoencoder)
        prior: GenerativeModel = self.prior.build(spec_of_codes(spec, autoencoder.code_shape))
        return (DenoisedLatent if isinstance(prior, Denoises) else Latent)(self, spec, autoencoder, prior)


def spec_of_codes(spec: Spec, shape: tuple[int, int, int]) -> Spec:
    """What the prior learns: codes, from what is given, where pictures become codes too."""
    target = spec.needs(Tensors, "latent")
    pictures = {name: one for name, one in spec.given.items() if isinstance(one, Tensors) and one.shape}
    for name, one in pictures.items():
        if one.shape != target.shape:
            raise BowerbirdError(
                f"A latent model makes codes of the given {name} too, which has another shape ({one.shape}) than "
                f"its pictures ({target.shape}); use its prior by itself."
            )
    codes = Tensors(shape, None)
    return replace(spec, target=codes, given={**spec.given, **dict.fromkeys(pictures, codes)})


class Latent(GenerativeModel):
    """An autoencoder that stays as it is, and a prior over its codes."""

    borrowed = "autoencoder"

    def __init__(self, config: LatentConfig, spec: Spec, autoencoder: Any, prior: GenerativeModel):
        super().__init__()
        self.config = config
        self.target = spec.needs(Tensors, "latent")
        self.autoencoder = autoencoder
        self.unit: Tensor
        self.register_buffer("unit", torch.ones(self.code_shape[0], 1, 1))
        self.prior = prior
        self.spec = replace(spec, given=self._shown(spec, prior.spec.given))
        self.Options = prior.Options  # type: ignore[misc]
        self.differentiates_twice = prior.differentiates_twice

    def _shown(self, spec: Spec, of_prior: Mapping[str, Field]) -> dict[str, Field]:
        """What the prior is given, with the pictures that its codes are made of."""
        return {name: spec.given[name] if isinstance(one, Tensors) else one for name, one in of_prior.items()}

    @property
    def players(self) -> dict[str, nn.Module]:
        return self.prior.players

    def losses(self, batch: Batch) -> Iterator[Loss]:
        if batch.step == 0:
            self.unit.copy_(self._measured(batch.x))
        yield from self.prior.losses(batch._replace(x=self.codes(batch.x), given=self._coded(batch.given)))

    @torch.no_grad()
    def _measured(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "depth 1 1"]:
        """sigma_c s of these pictures."""
        self.unit.fill_(1.0)
        mu = self.codes(x)
        sigma = mu.std((0, 2, 3))
        if isinstance(self.autoencoder, Infers):
            logvar = self.autoencoder.posterior(x)[1].float().view_as(mu)
            sigma = (logvar.mean((0, 2, 3)) / 2).exp()
        sigma = sigma.clamp(min=TOLERANCE).view(-1, 1, 1)
        return sigma * (mu / sigma).square().mean().sqrt().clamp(min=TOLERANCE)

    def _coded(self, given: Given) -> dict[str, Tensor]:
        """What is given, with pictures as codes."""
        return {name: self.codes(one) if one.dim() == 4 else one for name, one in given.items()}

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Of one code: (numbers per position, rows, columns)."""
        shape: tuple[int, int, int] = self.autoencoder.code_shape
        return shape

    @torch.no_grad()
    def codes(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n depth rows columns"]:
        """z, with its positions."""
        with evaluating(self.autoencoder):
            return self.autoencoder.encode(x).float().view(x.shape[0], *self.code_shape) / self.unit

    @torch.no_grad()
    def pictures(self, z: Float[Tensor, "n depth rows columns"]) -> Float[Tensor, "n c h w"]:
        """D(z), within the bounds of the data."""
        with evaluating(self.autoencoder):
            x = self.autoencoder.decode((z * self.unit).flatten(1)).float()
        return x.clamp(*self.target.bounds) if self.target.bounds else x

    @torch.no_grad()
    def sample(
        self, n: int, given: Given | None = None, options: Any = None, generator: Draws | None = None
    ) -> Float[Tensor, "n c h w"]:
        """The pictures of n codes from the prior; ``options`` are the prior's."""
        return self.pictures(self.prior.sample(n, self._coded(given or {}), options, generator))

    @property
    def pieces(self) -> dict[str, Piece]:
        """Those of the prior, with the autoencoder's halves as ``pictures`` and, if pictures are given, ``codes``."""
        made = {"pictures": Piece(Positional(self, self.pictures), {"z": self.prior.spec.target}, "x")}
        if self._pictures_given():
            made["codes"] = Piece(Positional(self, self.codes), {"x": self.target}, "z")
        return {**self._portable().pieces, **made}

    def procedure(self) -> dict[str, Any]:
        """The prior's, on codes."""
        codes = {"shape": list(self.prior.spec.needs(Tensors, "latent").shape), "bounds": None}
        around = {"target": codes, "before": dict.fromkeys(self._pictures_given(), "codes"), "after": "pictures"}
        return self._portable().procedure() | around

    def _pictures_given(self) -> list[str]:
        return [name for name, one in self.spec.given.items() if isinstance(one, Tensors) and one.shape]

    def _portable(self) -> Portable:
        if not isinstance(self.prior, Portable):
            raise BowerbirdError(f"The prior {type(self.prior).__name__} does not declare its pieces.")
        return self.prior

    @property
    def sampling_network(self) -> nn.Module:
        return self.prior.sampling_network


class DenoisedLatent(Latent):
    """One whose prior makes codes of noise step by step."""

    prior: Any

    def denoising(self, given: Given, options: Any) -> Denoising:
        """How the prior makes codes."""
        way: Denoising = self.prior.denoising(self._coded(given), options)
        return way

    def noise_of(
        self, x: Float[Tensor, "n c h w"], given: Given | None = None, **how: Any
    ) -> Float[Tensor, "n depth rows columns"]:
        """The noise that the prior would make each picture's code of; BowerbirdError for a prior that cannot tell."""
        if not isinstance(self.prior, Inverts):
            raise BowerbirdError("The prior of this run cannot be followed back to noise; use one that is a flow.")
        return self.prior.noise_of(self.codes(x), self._coded(given or {}), **how)
