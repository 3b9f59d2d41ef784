"""A watermark in words: half of the vocabulary is green at every place, and green tokens are made more probable.

Which half depends on the key and the ``WIDTH`` tokens before (Kirchenbauer et al. 2023, arXiv:2301.10226, algorithm 2,
with gamma = 1/2, and a wider context, see arXiv:2306.04634, section 4):

    logits_v  <-  logits_v + delta · green(key, x_{i-4} … x_{i-1}, v)

Whoever knows the key and the tokenizer counts.  In a text that was not made so, each *different* (context, token) is
green with probability 1/2 whatever the text is, if the key's hash is random; repetitions count once, or a text that
repeats itself would raise false alarms.  So of T different ones G are green by chance with

    p = P(Binomial(T, 1/2) >= G),        z = (2 G - T) / sqrt(T).

A text has room for a mark where the model hesitates: what has one likely continuation cannot carry one.
"""

import hashlib
import math
import os
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PUBLIC_KEY = "bowerbird"
"""Anybody can look for marks with this key, and write them."""
WIDTH = 4
"""Tokens before."""
FEWEST = 200
"""Tokens below which no text is said to be marked."""
FALSE_ALARMS = 1e-6
"""Of one text."""
_MASKS = {30: (1 << 34) - 1, 27: (1 << 37) - 1, 31: (1 << 33) - 1}
_FACTORS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""Of splitmix64, as signed numbers."""


class Score(NamedTuple):
    """What was counted in a text."""

    tokens: int
    """Different (context, token)."""
    green: int

    @property
    def z(self) -> float:
        return (2 * self.green - self.tokens) / math.sqrt(max(1, self.tokens))

    @property
    def p(self) -> float:
        """Probability of so many green ones by chance."""
        from scipy.stats import binom

        return float(binom.sf(self.green - 1, self.tokens, 0.5))

    @property
    def found(self) -> bool:
        return self.tokens >= FEWEST and self.p <= FALSE_ALARMS


def own_key() -> str:
    """$BOWERBIRD_WATERMARK_KEY, else the public key."""
    return os.environ.get("BOWERBIRD_WATERMARK_KEY") or PUBLIC_KEY


def _mixed(x: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """splitmix64's finaliser: every bit of the result depends on every bit of x."""
    x = (x ^ ((x >> 30) & _MASKS[30])) * _FACTORS[0]
    x = (x ^ ((x >> 27) & _MASKS[27])) * _FACTORS[1]
    return x ^ ((x >> 31) & _MASKS[31])


def _seeds(context: Int[Tensor, "n width"], key: str) -> Int[Tensor, " n"]:
    """A number for each context."""
    start = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little", signed=True)
    seed = context.new_full((len(context),), start)
    for column in context.unbind(1):
        seed = _mixed(seed + column + 1)
    return seed


def green(context: Int[Tensor, "n width"], vocab: int, key: str) -> Bool[Tensor, "n vocab"]:
    """Which tokens are green after each context."""
    tokens = _mixed(torch.arange(1, vocab + 1, device=context.device))
    return _mixed(_seeds(context, key)[:, None] ^ tokens) >= 0


def favoured(
    logits: Float[Tensor, "n vocab"], past: Int[Tensor, "n length"], delta: float, key: str
) -> Float[Tensor, "n vocab"]:
    """The logits with delta added to green tokens; as they are where fewer than ``WIDTH`` tokens came before."""
    if past.shape[1] < WIDTH:
        return logits
    return logits + delta * green(past[:, -WIDTH:], logits.shape[-1], key)


def score(tokens: Int[Tensor, " length"], key: str) -> Score:
    """Counts the green tokens of a text, each different (context, token) once."""
    if len(tokens) <= WIDTH:
        return Score(0, 0)
    grams = tokens.unfold(0, WIDTH + 1, 1).unique(dim=0)
    said = _mixed(grams[:, -1] + 1)
    is_green = _mixed(_seeds(grams[:, :-1], key) ^ said) >= 0
    return Score(len(grams), int(is_green.sum()))
