"""What a network gets besides its input: the noise level t, and what is given.  The only place that reads ``given``.

Everything given becomes one vector per example, the sum over its fields, or extra channels of the input:

    Classes   a row of an embedding table
    Tokens    a small Transformer, averaged over the tokens
    Tensors   channels beside those of the input; a single number becomes a vector

Any of it may be absent, or hidden in training (``dropped``), so that one network learns both the conditional and the
unconditional output.  A field then holds the value for "nothing": one more class, only padding, or a picture of zeros.
Sampling can extrapolate past the conditional output, away from the unconditional one (``guided``).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.spec import Classes, Field, Tensors, Tokens

Given = Mapping[str, Tensor]
Network = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t of shape (n,)) → output."""

# ------------------------------------------------------------------------------------------------ what is given


def nothing(field: Field, n: int, device: torch.device) -> Tensor:
    """What stands for "not given" in n rows."""
    if isinstance(field, Classes):
        return torch.full((n,), len(field.names), device=device)
    if isinstance(field, Tokens):
        return torch.full((n, 1), field.pad, device=device)
    return torch.zeros(n, *field.shape, device=device)


def dropped(given: Given, fields: Mapping[str, Field], probability: float, each: float = 0.0) -> dict[str, Tensor]:
    """Hides everything that an example is given with this probability, by the values that mean "nothing".

    ``each``: the probability of hiding one field alone, drawn for every field.
    """
    kept = {name: given[name] for name in fields if name in given}
    if not kept:
        return {}
    first = next(iter(kept.values()))
    hidden = torch.rand(len(first), device=first.device) < probability
    alone = {name: torch.rand(len(first), device=first.device) < each for name in kept if each}
    return {name: _where(hidden | alone.get(name, hidden), fields[name], value) for name, value in kept.items()}


def _where(hidden: Tensor, field: Field, value: Tensor) -> Tensor:
    none = nothing(field, len(value), value.device)
    return torch.where(hidden.view(-1, *[1] * (value.dim() - 1)), none, value)


def unsaid(fields: Mapping[str, Field]) -> dict[str, Field]:
    """The fields of a model that has learned to do without any of them: a class that is left out is then "nothing"."""
    return {
        name: replace(field, counts=(*[0] * len(field.names), 1)) if isinstance(field, Classes) else field
        for name, field in fields.items()
    }


def requested(
    n: int, given: Given | None, fields: Mapping[str, Field], draws: Draws, device: torch.device
) -> dict[str, Tensor]:
    """What n samples are made from, on the device: what was asked for, and classes drawn as often as in the data.

    BowerbirdError for an input that the model does not take, and for a picture that it needs but did not get.
    """
    asked = dict(given or {})
    for name, value in asked.items():
        if name not in fields:
            if not fields:
                raise BowerbirdError(f"This model was trained without labels or captions, so '{name}' does not apply.")
            raise unknown("input", name, fields)
        if len(value) != n:
            raise BowerbirdError(f"'{name}' is given for {len(value)} samples, but {n} are asked for.")
    for name, field in fields.items():
        if name not in asked and isinstance(field, Classes):
            weights = torch.tensor(field.counts or [1] * len(field.names), dtype=torch.float64)
            asked[name] = draws.choice(n, weights)
        if name not in asked and isinstance(field, Tensors):
            raise BowerbirdError(
                f"This model makes pictures from pictures, so it needs a {name} picture to start from; give one with "
                "--source FILE."
            )
    return {name: value.to(device) for name, value in asked.items()}


LARGEST_GUIDANCE = 1000
"""Beyond it a sample is nothing but the ends of its range, if it is finite at all."""


def guided(
    network: nn.Module,
    given: Given,
    guidance: float,
    *,
    fields: Mapping[str, Field],
    dropout: float,
    channels: int,
) -> Network:
    """(x_t, t) → output in float32 with classifier-free guidance: y_none + guidance (y_given - y_none).

    Ho & Salimans 2022, eq. 6, with guidance = 1 + their w: 1 is the plain conditional network and costs one row per
    sample, any other value two, in one doubled batch.  Only the first ``channels`` are extrapolated; others
    (a learned variance) are the conditional network's.
    """
    if abs(guidance) > LARGEST_GUIDANCE:
        raise BowerbirdError(f"guidance = {guidance:g} is too far from 1; give at most {LARGEST_GUIDANCE}.")
    if guidance == 1 or (fields and not given):
        return lambda x_t, t: network(x_t, t, given).float()
    if not given:
        raise BowerbirdError(f"guidance = {guidance} needs a model trained with labels; this one has none.")
    if dropout == 0:
        raise BowerbirdError(f"guidance = {guidance} needs a model trained with label_dropout above 0, such as 0.1.")
    n = len(next(iter(given.values())))
    everything_hidden = torch.ones(n, dtype=torch.bool)
    both = {
        name: torch.cat([value, _where(everything_hidden.to(value.device), fields[name], value)])
        for name, value in given.items()
    }

    def output(x_t: Tensor, t: Tensor) -> Tensor:
        y_given, y_none = network(torch.cat([x_t, x_t]), torch.cat([t, t]), both).float().chunk(2)
        y = y_none + guidance * (y_given - y_none)
        return y if y.shape[1] == channels else torch.cat([y[:, :channels], y_given[:, channels:]], 1)

    return output


# ---------------------------------------------------------------------------------------------------- networks


class Table(nn.Module):
    """Class number → vector, with one more row for "nothing"."""

    def __init__(self, field: Classes, n_out: int):
        super().__init__()
        self.table = nn.Embedding(len(field.names) + 1, n_out)

    def forward(self, number: Int64[Tensor, " n"]) -> Float[Tensor, "n n_out"]:
        return self.table(number)


class Number(nn.Module):
    """A real number → vector, all zero before training."""

    def __init__(self, n_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_out, 2 * N_FREQUENCIES))

    def forward(self, value: Float[Tensor, " n"]) -> Float[Tensor, "n n_out"]:
        return F.linear(fourier_features(value), self.weight)


class Conditioner(nn.Module):
    """given → one vector per example, and pictures as extra channels of the input."""

    def __init__(self, fields: Mapping[str, Field], n_out: int):
        super().__init__()
        self.fields = dict(fields)
        self.embed = nn.ModuleDict(
            {name: embedding for name in fields if (embedding := _embedding(fields[name], n_out))}
        )
        self.pictures = [name for name, field in fields.items() if _is_picture(field)]

    def __bool__(self) -> bool:
        """Whether there is a vector."""
        return len(self.embed) > 0

    def forward(self, given: Given | None, n: int) -> Float[Tensor, "n n_out"]:
        """The sum over the fields."""
        device = next(chain(self.parameters(), self.buffers())).device  # of a network that is kept, buffers alone
        parts = [embed(self._value(name, given, n, device)) for name, embed in self.embed.items()]
        return sum(parts[1:], parts[0])

    def over(self, x: Float[Tensor, "n c *frames h w"], given: Given | None) -> Float[Tensor, "n c_all *frames h w"]:
        """The input with the pictures as extra channels, of every frame where the input is a clip."""
        if not self.pictures:
            return x
        pictures = [self._value(name, given, x.shape[0], x.device).to(x) for name in self.pictures]
        if x.dim() == 5:
            pictures = [picture[:, :, None].expand(-1, -1, x.shape[2], -1, -1) for picture in pictures]
        return torch.cat([x, *pictures], dim=1)

    def _value(self, name: str, given: Given | None, n: int, device: torch.device) -> Tensor:
        value = (given or {}).get(name)
        return nothing(self.fields[name], n, device) if value is None else value


def picture_channels(fields: Mapping[str, Field]) -> int:
    """Channels that ``Conditioner.over`` adds to an input."""
    return sum(field.shape[0] for field in fields.values() if isinstance(field, Tensors) and field.shape)


def _embedding(field: Field, n_out: int) -> nn.Module | None:
    if isinstance(field, Classes):
        return Table(field, n_out)
    if isinstance(field, Tokens):
        from bowerbird.nets.captions import CaptionEncoder  # and a Transformer's layers, only where there are captions

        return CaptionEncoder(field, n_out)
    return None if _is_picture(field) else Number(n_out)


def _is_picture(field: Field) -> bool:
    return isinstance(field, Tensors) and len(field.shape) > 0


N_FREQUENCIES = 32
HIGHEST_FREQUENCY = 100.0
"""In radians per unit of t: two of 1000 steps in [0, 1] still differ by 0.1 rad, and the network stays smooth in t."""


def fourier_features(t: Float[Tensor, " n"]) -> Float[Tensor, "n features"]:
    """(cos ω_k t, sin ω_k t) for ω_k = 100^(k/31), k = 0…31 (Vaswani et al. 2017, section 3.5, with other ω)."""
    exponent = torch.linspace(0, math.log(HIGHEST_FREQUENCY), N_FREQUENCIES, device=t.device)
    angle = t.float()[:, None] * exponent.exp()
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class Conditioning(nn.Module):
    """(t, given) → vector of ``n_embd`` numbers, after a non-linearity, from which layers take scales and shifts.

    ``t`` is a real number per example, whatever the family passes (a time in [0, 1], or EDM's ln σ / 4), expanded into
    sines and cosines, so that a linear layer can see both coarse and fine differences of t.
    """

    def __init__(self, fields: Mapping[str, Field], n_embd: int):
        super().__init__()
        self.time = nn.Linear(2 * N_FREQUENCIES, n_embd)
        self.given = Conditioner(fields, n_embd)
        self.mix = nn.Linear(n_embd, n_embd)

    def forward(self, t: Float[Tensor, " n"], given: Given | None) -> Float[Tensor, "n n_embd"]:
        return self.mixed(t, self.given(given, t.shape[0]) if self.given else None)

    def mixed(self, t: Float[Tensor, " n"], told: Float[Tensor, "n n_embd"] | None) -> Float[Tensor, "n n_embd"]:
        """The vector where what is given has been read already."""
        h = self.time(fourier_features(t))
        return F.silu(self.mix(F.silu(h if told is None else h + told)))


class Head(nn.Module):
    """Features of an image, and what is given, → ``n_out`` numbers: the end of every encoder.

    With one output it is the projection discriminator of Miyato & Koyama (2018), eq. 3, φ being the hidden layer:

        logit = w·φ + b + ⟨embedding(given), φ⟩ / √n_hidden        (the root, not in the paper, balances the terms)

    With several, the embedding is added to the hidden layer before its non-linearity.
    """

    def __init__(self, n_in: int, n_hidden: int, n_out: int, fields: Mapping[str, Field]):
        super().__init__()
        self.hidden = nn.Linear(n_in, n_hidden)
        self.given = Conditioner(fields, n_hidden)
        self.out = nn.Linear(n_hidden, n_out)

    def forward(self, h: Float[Tensor, "n n_in"], given: Given | None) -> Float[Tensor, "n n_out"]:
        h = self.hidden(h)
        if not self.given:
            return self.out(F.leaky_relu(h, 0.2))
        embedding = self.given(given, h.shape[0])
        if self.out.out_features > 1:
            return self.out(F.leaky_relu(h + embedding, 0.2))
        phi = F.leaky_relu(h, 0.2)
        return self.out(phi) + (embedding * phi).sum(1, keepdim=True) * phi.shape[1] ** -0.5


def for_decoder(fields: Mapping[str, Field], n_out: int, net: Any) -> Conditioner:
    """The conditioner of a decoder, which has no input to which a picture could be added as channels."""
    if any(map(_is_picture, fields.values())):
        name = type(net).__name__.removesuffix("Config").lower()
        raise BowerbirdError(f"A decoder ({name}) cannot be given a picture; use flow, diffusion or translation.")
    return Conditioner(fields, n_out)
