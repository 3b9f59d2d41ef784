"""Where a picture comes from, and the way back: the code of an autoencoder, or the noise of a model that denoises."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.editing.action import Inputs, Request
from bowerbird.eightbit import to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Denoises, Encodes, HasCodes, Inverts, evaluating
from bowerbird.nets.conditioning import Given
from bowerbird.samplers.integrate import FORGETFUL, Denoised, Denoiser, Denoising, integrate
from bowerbird.samplers.known import Known

BEGIN = 0.002
"""sigma/alpha from which a picture is followed back: its own noise is that of rounding to 8 bits, 1/255/√3."""


class Space(NamedTuple):
    """Where a model denoises: among pictures, or among their codes."""

    shape: tuple[int, int, int]
    codes: Callable[[Tensor], Tensor]
    pictures: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, request: Request) -> "Space":
        model = request.model
        if isinstance(model, HasCodes):
            return cls(model.code_shape, model.codes, model.pictures)
        return cls(request.shape, _itself, _itself)

    def agreeing(self, known: Known) -> Known:
        """What is known of pictures, said of codes: a code moves by as much as the code of its picture does."""
        if self.codes is _itself:
            return known

        def moved(z: Tensor) -> Tensor:
            x = self.pictures(z)
            return z + self.codes(known(x)) - self.codes(x)

        return moved


def _itself(x: Tensor) -> Tensor:
    return x


class Latents(NamedTuple):
    """How the pictures of a request are turned into latents, and back."""

    request: Request
    steps: int | None
    guidance: float | None

    def of(self, x: Float[Tensor, "n c h w"], given: Given) -> Float[Tensor, "n *shape"]:
        """The latent of each picture; BowerbirdError for a model that cannot find it."""
        model: Any = self.request.model
        with torch.no_grad(), evaluating(model):
            if isinstance(model, Encodes):
                return model.encode(x, given)
            if isinstance(model, Inverts):
                return model.noise_of(x, given, steps=self.steps or len(self.way(given).points.t) - 1, begin=BEGIN)
        raise BowerbirdError("This run cannot find the latent code of a picture; leave --source out.")

    def pictures(self, latents: Float[Tensor, "n *shape"], given: Given) -> Float[Tensor, "n c h w"]:
        """The picture of each latent."""
        return self.between(latents, given, given, latents.new_zeros(len(latents)))

    def between(
        self, latents: Float[Tensor, "n *shape"], given: Given, other: Given, share: Float[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The same, made to a share from something else; BowerbirdError if the model cannot make one from two."""
        model: Any = self.request.model
        same = all(torch.equal(given[name], other[name]) for name in given)
        with torch.no_grad(), evaluating(model):
            if isinstance(model, Denoises):
                way = self.way(given)
                denoise = way.denoise if same else mixed(way.denoise, self.way(other).denoise, share)
                x = integrate(denoise, way.points.sigma[0] * latents, way.rows(), clip=way.clip, generator=Draws(0))
                return Space.of(self.request).pictures(x if way.clip is None else x.clamp(*way.clip))
            if not same:
                raise BowerbirdError(
                    "Only diffusion and flow models can go from one label or caption to another; give one for all."
                )
            return model.decode(latents, given)

    def way(self, given: Given) -> Denoising:
        """Without fresh noise, which would make each picture of a latent another one."""
        way = self.request.denoising(given, self.steps, self.guidance)
        return way._replace(sampler="ddim") if way.sampler in FORGETFUL else way


def mixed(first: Denoiser, second: Denoiser, share: Float[Tensor, " n"]) -> Denoiser:
    """(1 - share) D_first + share D_second: the denoiser of the densities' geometric mean at each noise level."""

    def denoise(x_t: Tensor, t: float | Tensor) -> Denoised:
        w = share.view(-1, *[1] * (x_t.dim() - 1)).to(x_t)
        return Denoised(torch.lerp(first(x_t, t).x0, second(x_t, t).x0, w))

    return denoise


def slerp(
    a: Float[Tensor, "n *shape"], b: Float[Tensor, "n *shape"], share: Float[Tensor, " n"]
) -> Float[Tensor, "n *shape"]:
    """Along the great circle from a to b (Shoemake 1985), the length changing evenly from that of a to that of b.

    Normal noise of many dimensions lies near a sphere: straight lines leave it, and what a model makes there is grey.
    """
    u, v = a.flatten(1).double(), b.flatten(1).double()
    w = share.double().to(u)[:, None]
    of_u, of_v = (one.norm(dim=1, keepdim=True).clamp(min=1e-12) for one in (u, v))
    angle = ((u / of_u) * (v / of_v)).sum(1, keepdim=True).clamp(-1, 1).arccos()
    from_u, from_v = ((1 - w) * angle).sin() / angle.sin(), (w * angle).sin() / angle.sin()
    apart = angle.sin() > 1e-6  # of parallel ones the circle is a straight line
    direction = torch.where(apart, from_u, 1 - w) * u / of_u + torch.where(apart, from_v, w) * v / of_v
    return (direction * torch.lerp(of_u, of_v, w)).view_as(a).to(a)


def noise_of_seed(request: Request, inputs: Inputs) -> Float[Tensor, "n c h w"]:
    """What the samples of the request's seed begin as, for a model that denoises."""
    return Draws(request.seed).randn(inputs.n, *Space.of(request).shape).to(request.model.device)


def psnr_db(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """10 log10(255² / mean square difference) of each pair of pictures in 8 bits; 99 for equal ones."""
    difference = to_uint8(x).double() - to_uint8(y).double()
    return (255**2 / difference.square().flatten(1).mean(1).clamp(min=1e-30)).log10().mul(10).clamp(max=99).float()
