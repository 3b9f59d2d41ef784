"""Examples as rows of tokens, and rows as examples: what a model of sequences sees of text, music and pictures.

A picture is read row by row, of a pixel all channels in turn, each value as one token in 0 … levels-1, after one token
for each class that is given: [class tokens, v_1, v_2 … v_D].
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bowerbird.errors import BowerbirdError
from bowerbird.nets.conditioning import Given, nothing
from bowerbird.spec import NO_TOKEN, Classes, Spec, Tensors, Tokens

Rows = Int[Tensor, "n length"]
Images = Float[Tensor, "n c h w"]


class TokenRows:
    """Examples that are rows of tokens already."""

    estimator = "exact"

    def __init__(self, spec: Spec):
        self.field = spec.needs(Tokens, "autoregressive")
        self.spec = replace(spec, given={"prompt": self.field})
        self.vocab_size, self.context, self.eos, self.pad = (
            self.field.vocab_size, self.field.context, self.field.eos, self.field.pad,
        )  # fmt: skip
        self.n_values = self.vocab_size

    def of(self, batch: Any) -> tuple[Rows, Bool[Tensor, "n length"]]:
        """Rows, and which of their tokens are counted."""
        return batch.x, batch.x != self.pad if batch.weight is None else batch.weight

    def beginnings(self, n: int, given: Given) -> list[Tensor]:
        """What each row begins with: its prompt, or ``start``."""
        start = torch.tensor(self.field.start)
        prompts = given.get("prompt")
        if prompts is None:
            return [start] * n
        return [row[row != NO_TOKEN] if (row != NO_TOKEN).any() else start for row in prompts]

    def most(self, asked: int | None, lengths: list[int]) -> tuple[int, int | None]:
        """How many tokens are added at most to beginnings of these lengths, and how long a row becomes at most."""
        full = max(self.context, *lengths) + 1
        return (full - min(lengths), full) if asked is None else (asked, None)

    def examples(self, beginnings: list[Tensor], added: list[Tensor]) -> Rows:
        """Beginnings and what follows each, padded at the end."""
        new = torch.stack(added, 1) if added else torch.empty(len(beginnings), 0, dtype=torch.long)
        rows = [torch.cat([begin.to(new.device), more]) for begin, more in zip(beginnings, new, strict=True)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad)


class PixelRows:
    """Pictures as rows of tokens: their values, after a token for every class that is given, or one for none."""

    eos, pad = -1, 0  # all pictures have one length

    def __init__(self, spec: Spec, levels: int):
        self.spec, self.n_values = spec, levels
        self.shape, self.dims = spec.needs(Tensors, "autoregressive").shape, spec.needs(Tensors, "autoregressive").dims
        self.counts = [len(_classes(name, field).names) + 1 for name, field in spec.given.items()] or [1]
        self.vocab_size = levels + sum(self.counts)
        self.context = self.dims + len(self.counts) - 1
        self.estimator = "exact" if levels == 256 else f"exact, of images quantised to {levels} levels"

    def of(self, batch: Any) -> tuple[Rows, Bool[Tensor, "n length"]]:
        """Rows, and which of their tokens are counted: the values."""
        first = self.first_tokens(len(batch.x), batch.given, batch.x.device)
        rows = torch.cat([first, to_values(batch.x, self.n_values)], dim=1)
        counted = torch.ones_like(rows, dtype=torch.bool)
        counted[:, : first.shape[1]] = False
        return rows, counted

    def first_tokens(self, n: int, given: Given, device: torch.device) -> Int[Tensor, "n classes"]:
        """Behind the values the vocabulary has a number for every class of each field, and one for "nothing"."""
        numbers = [given.get(name, nothing(field, n, device)) for name, field in self.spec.given.items()]
        numbers = numbers or [torch.zeros(n, dtype=torch.long, device=device)]
        offsets = [self.n_values + sum(self.counts[:i]) for i in range(len(self.counts))]
        return torch.stack([number + offset for number, offset in zip(numbers, offsets, strict=True)], dim=1)

    def beginnings(self, n: int, given: Given) -> list[Tensor]:
        return list(self.first_tokens(n, given, next((v.device for v in given.values()), torch.device("cpu"))))

    def most(self, asked: int | None, lengths: list[int]) -> tuple[int, int | None]:
        return self.dims, None

    def examples(self, beginnings: list[Tensor], added: list[Tensor]) -> Images:
        return to_images(torch.stack(added, dim=1), self.n_values, self.shape)


def to_values(x: Images, levels: int) -> Int[Tensor, "n dims"]:
    """[-1, 1] to the nearest of 0 … levels-1, in raster order."""
    return ((x + 1) / 2 * (levels - 1)).round().clamp(0, levels - 1).long().permute(0, 2, 3, 1).flatten(1)


def to_images(values: Int[Tensor, "n dims"], levels: int, shape: tuple[int, ...]) -> Images:
    """The inverse of ``to_values`` for images whose values are levels."""
    channels, height, width = shape
    x = values.float() * (2 / (levels - 1)) - 1
    return x.view(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()


def _classes(name: str, field: Any) -> Classes:
    if not isinstance(field, Classes):
        raise BowerbirdError(f"An autoregressive model of images can be given classes, but no {name}; use flow.")
    return field
