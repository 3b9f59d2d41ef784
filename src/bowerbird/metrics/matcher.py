"""A matcher of pictures and captions, learnt from real pairs: does a sample fit its own caption best, of 100?

A convolutional network looks at the picture, a caption is the mean of its words' vectors, and the cosine of the two
says how well they fit (Radford et al. 2021, arXiv:2103.00020; here the loss is that of the pictures alone).  How far it
can be trusted is its accuracy on unseen real pictures: a sample cannot be judged better than a real picture is.

    loss = -log softmax_c(cos(picture, caption_c) / τ)[own caption]         over the captions of a batch

Beside it stands what copying would reach: for each caption, the training picture whose caption shares most words with
it, where rare words weigh more (cosine of word counts times ln(n / number of captions with the word)).
"""

import hashlib
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.attributes import JUDGED_AT_ONCE, untrained

WIDTH = 128
STEPS, BATCH, LR, WEIGHT_DECAY = 800, 128, 2e-3, 0.05
TEMPERATURE = 0.07
SHIFT = 4
"""Most pixels by which pictures are moved in training."""
CANDIDATES = 100
"""Captions that a picture is matched with, its own among them."""
VERSION = 1
"""Raised when a change of code changes what is learnt."""


class Captioned(NamedTuple):
    """Real pictures and what is said of each."""

    images: UInt8[Tensor, "n c h w"]
    tokens: Int[Tensor, "n wording length"]
    """Every way to say it, padded at the end."""


class Matcher(nn.Module):
    """Pictures and captions → unit vectors."""

    def __init__(self, channels: int, vocab_size: int, pad: int, seed: int = 0):
        super().__init__()
        self.pad = pad
        self.picture = untrained(channels, {"embedding": [""] * WIDTH}, seed)
        generator = torch.Generator().manual_seed(seed)
        self.word = nn.Parameter(torch.randn(vocab_size, WIDTH, generator=generator) * WIDTH**-0.5)

    def pictures(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n width"]:
        return F.normalize(self.picture(images)["embedding"], dim=1)

    def captions(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n width"]:
        said = (tokens != self.pad)[..., None]
        return F.normalize((F.embedding(tokens, self.word) * said).sum(1), dim=1)

    @property
    def sha256(self) -> str:
        """Of the weights."""
        digest = hashlib.sha256()
        for weight in self.state_dict().values():
            digest.update(weight.contiguous().numpy().data)
        return digest.hexdigest()


def fit_matcher(
    pairs: Captioned, vocab_size: int, pad: int, *, steps: int = STEPS, batch: int = BATCH, seed: int = 0
) -> Matcher:
    """The matcher after ``steps`` steps of AdamW, in eval mode; each picture is shown with one of its wordings."""
    if not len(pairs.images):
        raise BowerbirdError("A matcher of pictures and captions needs pictures with captions.")
    matcher = Matcher(pairs.images.shape[1], vocab_size, pad, seed)
    optimizer = torch.optim.AdamW(matcher.parameters(), LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(pairs.images), (batch,), generator=generator)
        wording = torch.randint(pairs.tokens.shape[1], (batch,), generator=generator)
        shift = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
        captions, own = pairs.tokens[rows, wording].unique(dim=0, return_inverse=True)
        images = pairs.images[rows].roll(shift, (2, 3))
        loss = F.cross_entropy(matcher.pictures(images) @ matcher.captions(captions).T / TEMPERATURE, own)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return matcher.eval().requires_grad_(False)


@torch.no_grad()
def retrieved(
    matcher: Matcher, images: UInt8[Tensor, "n c h w"], tokens: Int[Tensor, "n length"], seed: int = 0
) -> Float[Tensor, " n"]:
    """1 where a picture's own caption fits best among ``CANDIDATES`` different ones of these, drawn by the seed."""
    captions, own = tokens.unique(dim=0, return_inverse=True)
    embedded = matcher.captions(captions)
    generator = torch.Generator().manual_seed(seed)
    right = []
    for part, mine in zip(images.split(JUDGED_AT_ONCE), own.split(JUDGED_AT_ONCE), strict=True):
        fit = matcher.pictures(part) @ embedded.T
        drawn = torch.rand(fit.shape, generator=generator).scatter_(1, mine[:, None], 2.0)
        among = drawn.topk(min(CANDIDATES, len(captions)), 1).indices
        right.append(among.gather(1, fit.gather(1, among).argmax(1, keepdim=True))[:, 0] == mine)
    return torch.cat(right).double()


def nearest_captions(
    asked: Int[Tensor, "n length"], known: Int[Tensor, "m length2"], vocab_size: int, pad: int
) -> Int[Tensor, " n"]:
    """For each caption the row of the known one that shares most words with it; of equals the first."""
    counts, of_known = (_counts(tokens, vocab_size, pad) for tokens in (asked, known))
    rarity = (len(known) / (of_known > 0).sum(0).clamp(min=1)).log()
    mine, theirs = (F.normalize(table * rarity, dim=1) for table in (counts, of_known))
    return torch.cat([(part @ theirs.T).argmax(1) for part in mine.split(JUDGED_AT_ONCE)])


def _counts(tokens: Int[Tensor, "n length"], vocab_size: int, pad: int) -> Float[Tensor, "n vocab"]:
    table = torch.zeros(len(tokens), vocab_size)
    return table.scatter_add_(1, tokens, (tokens != pad).float())
