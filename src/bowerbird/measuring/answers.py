"""Everything that measuring asks of a model besides samples: likelihoods, reconstructions, counterparts of the truth.

No other file of this package calls a model, or asks which protocols it implements; samples come from ``generating``.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from bowerbird.data.tokens import Rows
from bowerbird.draws import Draws
from bowerbird.eightbit import to_uint8
from bowerbird.media.image.imageset import ImageSet
from bowerbird.metrics.progress_bar import progress_bar
from bowerbird.models.base import Batch, Classifies, Encodes, GenerativeModel, Scores, evaluating, options_from

BATCH = 256
"""Pictures at a time."""
ROWS = 64
"""Sequences at a time."""


def abilities(model: GenerativeModel) -> set[str]:
    """What a context can offer of a model that implements a protocol."""
    found = {"reconstructions"} if isinstance(model, Encodes) else set()
    found |= {"named"} if isinstance(model, Classifies) else set()
    if isinstance(model, Scores):
        found |= {"nats"} | ({"flow_nats"} if "flow" in model.estimators else set())
    return found


def translated(model: Any, examples: Rows, n: int, options: dict[str, Any], seed: int = 0) -> list[Tensor]:
    """The tokens that the first n sources are translated to."""
    made: list[Tensor] = []
    chosen = options_from(model, options)
    with progress_bar("translating", n) as progress, torch.no_grad(), evaluating(model):
        for batch in _batches(examples, n, model.device):
            rows = model.sample(len(batch.x), batch.given, chosen, Draws(seed, len(made)))
            made += rows.cpu()
            progress(len(rows))
    return made


def decoding(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """How translations are searched for."""
    return {"beam": model.config.beam, "length_penalty": model.config.length_penalty} | options


def nats(model: Any, examples: Any, n: int, seed: int, estimator: str) -> tuple[Float[Tensor, " n"], str]:
    """-log p of the first n examples of a split in nats, float64, and in words how that was estimated."""
    chosen, generator = model.estimators[estimator], torch.Generator().manual_seed(seed)
    answer = _in_batches(
        model, examples, n, "likelihood", lambda batch: -chosen.log_prob(batch, generator=generator).cpu().double()
    )
    return answer, chosen.description


def named(model: Any, examples: ImageSet, n: int) -> Int[Tensor, " n"]:
    """The likeliest label of the first n examples."""
    return _in_batches(model, examples, n, "classifying", lambda batch: model.classify(batch.x).argmax(1))


def reconstructed(model: Any, examples: ImageSet, n: int) -> UInt8[Tensor, "n c h w"]:
    """Pictures that are encoded and decoded again."""
    return _in_batches(
        model, examples, n, "reconstructions",
        lambda batch: to_uint8(model.decode(model.encode(batch.x, batch.given), batch.given)),
    )  # fmt: skip


def remade(model: Any, examples: ImageSet, n: int, options: dict[str, Any], seed: int) -> UInt8[Tensor, "n c h w"]:
    """Pictures made from the same things as the first n of a split."""
    chosen, done = options_from(model, options), [0]

    def answer(batch: Batch) -> Tensor:
        given = {name: value for name, value in batch.given.items() if name in model.spec.given}
        made = to_uint8(model.sample(len(batch.x), given, chosen, Draws(seed, done[0])))
        done[0] += len(batch.x)
        return made

    return _in_batches(model, examples, n, "sampling", answer)


def _in_batches(model: GenerativeModel, examples: Any, n: int, what: str, answer: Callable[[Batch], Tensor]) -> Tensor:
    """``answer(batch)`` of the first n examples, on the CPU."""
    found = []
    with progress_bar(what, n) as progress, torch.no_grad(), evaluating(model):
        for rows in torch.arange(n).split(BATCH):
            found.append(answer(Batch(**examples.batch(rows, model.device))).cpu())
            progress(len(rows))
    return torch.cat(found)


def document_nats(
    model: Any, examples: Rows, n: int
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"], list[np.ndarray], str]:
    """Of the first n examples -log p in nats, the number of tokens predicted, the tokens; and the estimator."""
    estimator = model.estimators["nll"]
    nll, n_tokens, rows = [], [], []
    with progress_bar("likelihood", n) as progress, torch.no_grad(), evaluating(model):
        for batch in _batches(examples, n, model.device):
            nll.append(-estimator.log_prob(batch).cpu().double())
            assert batch.weight is not None
            n_tokens.append(batch.weight.sum(1).cpu())
            rows += [row.numpy() for row in batch.x.cpu()]
            progress(len(batch.x))
    return torch.cat(nll).numpy(), torch.cat(n_tokens).numpy(), rows, estimator.description


def _batches(examples: Rows, n: int, device: torch.device) -> Iterator[Batch]:
    for chosen in torch.arange(n).split(ROWS):
        yield Batch(**examples.batch(chosen, device))
