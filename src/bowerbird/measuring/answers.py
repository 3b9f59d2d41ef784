"""Everything that measuring asks of a model: samples, likelihoods, reconstructions, translations.

No other file of this package calls a model, or asks which protocols it implements.
"""

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from bowerbird.data.tokens import Rows
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.metrics.progress_bar import progress_bar
from bowerbird.models.base import (
    Encodes,
    GenerativeModel,
    Scores,
    ScoresByFlow,
    counting_evaluations,
    evaluating,
)
from bowerbird.spec import to_float, to_uint8

BATCH = 256
"""Pictures at a time."""
ROWS = 64
"""Sequences at a time."""

ABILITIES: dict[str, Any] = {"reconstructions": Encodes, "nats": Scores, "flow_nats": ScoresByFlow}
"""What a context can offer of a model that implements a protocol."""


def abilities(model: GenerativeModel) -> set[str]:
    """Those of ``ABILITIES`` that the model has."""
    return {need for need, protocol in ABILITIES.items() if isinstance(model, protocol)}


def check_options(model: GenerativeModel, options: dict[str, Any], method: str = "sample") -> None:
    """Raises for an option that the model's ``sample`` (``complete``, ``translate``) does not have."""
    known = set(inspect.signature(getattr(model, method)).parameters) - {"n", "cond", "generator", "prompts", "source"}
    for name in options:
        if name not in known:
            raise unknown(f"sampling option of {type(model).__name__}", name, known)


def few_steps(model: GenerativeModel, steps: int) -> dict[str, Any]:
    """The sampling options that make a sampler take that many steps, empty where it has none."""
    return {"steps": steps} if "steps" in inspect.signature(model.sample).parameters else {}


# ---------------------------------------------------------------------------------------------------------- samples


@dataclass(frozen=True)
class Drawn:
    """Samples of a model and what drawing them cost."""

    images: UInt8[Tensor, "n c h w"]
    label: Int[Tensor, " n"] | None
    """The classes that were asked for; None when the model has none."""
    evaluations: float
    """Network evaluations per image."""
    seconds: float
    """Wall-clock seconds per image."""


def draw(
    model: GenerativeModel,
    n: int,
    *,
    seed: int = 0,
    class_number: int | None = None,
    options: dict[str, Any] | None = None,
    shown: bool = True,
) -> Drawn:
    """n samples, uint8 on the CPU; of a class-conditional model, with labels as frequent as in the training data.

    ``class_number`` asks for one class instead.  ``options`` are the family's own; one that it does not have is an
    error.  The first batch counts towards the time like every other: it is what a user waits for.
    """
    if n < 1:
        raise BowerbirdError(f"The number of samples must be at least 1, not {n}.")
    check_options(model, options or {})
    generator = torch.Generator().manual_seed(seed)
    label = model.spec.draw_labels(n, generator) if model.n_classes else None
    if class_number is not None:
        label = torch.full((n,), class_number)
    images = []
    with (
        progress_bar("sampling", n, shown) as progress,
        torch.no_grad(),
        evaluating(model),
        counting_evaluations(model) as rows,
    ):
        began = time.perf_counter()
        for start in range(0, n, BATCH):
            count = min(BATCH, n - start)
            cond = None if label is None else label[start : start + count].to(model.device)
            x = model.sample(count, cond=cond, generator=generator, **(options or {}))
            images.append(to_uint8(x).cpu())
            progress(count)
        seconds = time.perf_counter() - began
    return Drawn(torch.cat(images), label, rows[0] / n, seconds / n)


@torch.no_grad()
def draw_tokens(model: GenerativeModel, n: int, seed: int = 0, options: dict[str, Any] | None = None) -> list[Tensor]:
    """n sequences of tokens as the model makes them without a prompt, each int64 (length), padded after its end."""
    check_options(model, options or {})
    generator = torch.Generator().manual_seed(seed)
    drawn: list[Tensor] = []
    with progress_bar("sampling", n) as progress, evaluating(model):
        while len(drawn) < n:
            count = min(ROWS, n - len(drawn))
            drawn += model.sample(count, generator=generator, **(options or {})).cpu().unbind()
            progress(count)
    return drawn


def translated(model: Any, examples: Rows, n: int, options: dict[str, Any]) -> list[Tensor]:
    """The tokens that the first n sources are translated to."""
    check_options(model, options, "translate")
    made: list[Tensor] = []
    with progress_bar("translating", n) as progress, evaluating(model):
        for batch in _batches(examples, n, model.device):
            made += model.translate(batch["source"], **options)
            progress(len(batch["source"]))
    return made


def decoding(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """How translations are searched for."""
    return {"beam": model.config.beam, "length_penalty": model.config.length_penalty} | options


# ---------------------------------------------------------------------------------------- likelihoods and codes


def picture_nats(
    model: Any, images: UInt8[Tensor, "n c h w"], label: Tensor | None, seed: int, *, by_flow: bool = False
) -> tuple[Float[Tensor, " n"], str]:
    """-log p of each picture in nats, float64, and in words how that was estimated."""
    log_prob = model.flow_log_prob if by_flow else model.log_prob
    generator = torch.Generator().manual_seed(seed)
    nats = _in_batches(
        model, images, label, "likelihood",
        lambda x, cond: -log_prob(x, cond, generator=generator).double(),
    )  # fmt: skip
    return nats, model.flow_estimator if by_flow else model.estimator


def reconstructed(model: Any, images: UInt8[Tensor, "n c h w"], label: Tensor | None) -> UInt8[Tensor, "n c h w"]:
    """Pictures that are encoded and decoded again."""
    return _in_batches(
        model, images, label, "reconstructions",
        lambda x, cond: to_uint8(model.decode(model.encode(x, cond), cond)),
    )  # fmt: skip


def _in_batches(
    model: GenerativeModel, images: Tensor, label: Tensor | None, what: str, answer: Callable[..., Tensor]
) -> Tensor:
    """``answer(x, cond)`` of all pictures, on the CPU."""
    found = []
    with progress_bar(what, len(images)) as progress, torch.no_grad(), evaluating(model):
        for start in range(0, len(images), BATCH):
            rows = slice(start, start + BATCH)
            x = to_float(images[rows].to(model.device))
            cond = None if label is None else label[rows].to(model.device)
            found.append(answer(x, cond).cpu())
            progress(len(x))
    return torch.cat(found)


def document_nats(
    model: Any, examples: Rows, n: int
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"], list[np.ndarray], str]:
    """Of the first n examples -log p in nats, the number of tokens that are predicted, the tokens; and the estimator.

    Models of sequences take what is counted, and of pairs the source.
    """
    nll, n_tokens, rows = [], [], []
    with progress_bar("likelihood", n) as progress, torch.no_grad(), evaluating(model):
        for batch in _batches(examples, n, model.device):
            given = {name: batch[name] for name in ("source", "counted") if name in batch}
            nll.append(-model.log_prob(batch["x"], **given).double().cpu())
            n_tokens.append(batch["counted"].sum(1).cpu())
            rows += [row.numpy() for row in batch["x"].cpu()]
            progress(len(nll[-1]))
    return torch.cat(nll).numpy(), torch.cat(n_tokens).numpy(), rows, model.estimator


def _batches(examples: Rows, n: int, device: torch.device) -> Iterator[dict[str, Tensor]]:
    for chosen in torch.arange(n).split(ROWS):
        yield examples.batch(chosen, device)
