"""What a function computes, by its numbers: the same as a reference of PyTorch on every input that is tried.

Each reference is asked with the tensors that the program gave, in every order, and with others of the same kind; its
values may also be summed or averaged.  No name takes part, but a function that calls the reference itself is left out.
"""

import itertools
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe
from bowerbird.reading.running.probes.subjects import Given, Subject, answer, exchanged, same, subjects

LONGEST = 1.0
CLOSE = 1e-4


def _standard(m: Tensor, s: Tensor) -> Tensor:
    return kl_divergence(Normal(m, s), Normal(torch.zeros_like(m), torch.ones_like(s)))


PAIRWISE: dict[str, Callable[..., Tensor]] = {
    "torch.nn.functional.mse_loss": lambda a, b: F.mse_loss(a, b, reduction="none"),
    "torch.nn.functional.l1_loss": lambda a, b: F.l1_loss(a, b, reduction="none"),
    "torch.nn.functional.smooth_l1_loss": lambda a, b: F.smooth_l1_loss(a, b, reduction="none"),
    "torch.nn.functional.binary_cross_entropy": lambda a, b: F.binary_cross_entropy(a, b, reduction="none"),
    "torch.nn.functional.binary_cross_entropy_with_logits": (
        lambda a, b: F.binary_cross_entropy_with_logits(a, b, reduction="none")
    ),
    "torch.nn.functional.cross_entropy": lambda a, b: F.cross_entropy(a, b, reduction="none"),
    "torch.nn.functional.cosine_similarity": lambda a, b: F.cosine_similarity(a, b, dim=-1),
    "the KL divergence of N(m, exp v) from N(0, 1)": lambda m, v: _standard(m, (v / 2).exp()),
    "the KL divergence of N(m, s²) from N(0, 1)": _standard,
    "-log N(x; m, exp v)": lambda x, m, v: -Normal(m, (v / 2).exp()).log_prob(x),
    "-log N(x; m, s²)": lambda x, m, s: -Normal(m, s).log_prob(x),
}
"""One value per element or example: what a program makes of them is one of ``REDUCTIONS``."""
WHOLE: dict[str, Callable[..., Tensor]] = {
    "torch.softmax(x, -1)": lambda x: x.softmax(-1),
    "torch.nn.functional.gelu": F.gelu,
    "torch.nn.functional.gelu(approximate='tanh')": lambda x: F.gelu(x, approximate="tanh"),
    "torch.nn.functional.silu": F.silu,
    "torch.nn.functional.softplus": F.softplus,
    "torch.nn.functional.normalize(x, dim=-1)": lambda x: F.normalize(x, dim=-1),
    "torch.logsumexp(x, -1)": lambda x: x.logsumexp(-1),
    "torch.nn.functional.layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "torch.nn.functional.scaled_dot_product_attention": F.scaled_dot_product_attention,
    "torch.nn.functional.scaled_dot_product_attention(is_causal=True)": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    ),
}
REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "the mean of ": torch.mean,
    "the sum of ": torch.sum,
    "for each example, the sum of ": lambda x: x.flatten(1).sum(1),
    "the mean over the batch of the sum of ": lambda x: x.flatten(1).sum(1).mean(),
}


@probe("equivalence", late=True)
def equivalence(live: Live) -> None:
    """Records ``probe.equivalent`` for each function of the program's that computes what a reference computes."""
    until = time.process_time() + LONGEST
    for subject in subjects(live):
        bare = subject.module is None or not any(True for _ in subject.module.parameters())
        if time.process_time() > until or not bare or not live.asked_by_program(subject.body):
            continue
        found = next(_references(live, subject), None)
        if found is not None:
            live.record("probe.equivalent", subject.name, {"reference": found}, line=subject.line, file=subject.file)


def _references(live: Live, subject: Subject) -> Iterator[str]:
    changes = list(_changes(subject))
    answers = [answer(live, subject, change) for change in changes]
    told = [a for a in answers if a is not None and len(a) == 1]
    if len(told) < 2 or len(told) < len(answers) or same(told[0], told[1], CLOSE) is not False:
        return
    for name, reference, reduce in _known(subject):
        for order in itertools.permutations(subject.tensors) if len(subject.tensors) <= 3 else ():
            given = [[(subject.given | change)[n] for n in order] for change in changes]
            if all(same([t], _asked(reference, reduce, g), CLOSE) is True for (t,), g in zip(told, given, strict=True)):
                yield name
                break


def _known(subject: Subject) -> Iterator[tuple[str, Callable[..., Tensor], Callable[[Tensor], Tensor]]]:
    """References with each of their reductions, but what the function itself calls."""
    for name, reference in (WHOLE | PAIRWISE).items():
        if name.partition("(")[0].rpartition(".")[2] in subject.read:
            continue
        if name in WHOLE:
            yield name, reference, REDUCTIONS[""]
        else:
            yield from ((f"{said}{name}", reference, reduce) for said, reduce in REDUCTIONS.items())


def _changes(subject: Subject) -> Iterator[Given]:
    """What the program gave, and twice something else for every tensor: of the same kind and range, and smaller."""
    yield {}
    others = {name: exchanged(value) for name, value in subject.tensors.items()}
    yield {name: value for name, value in others.items() if value is not None}
    yield {name: value * 0.7 for name, value in subject.tensors.items() if value.is_floating_point()}


def _asked(
    reference: Callable[..., Tensor], reduce: Callable[[Tensor], Tensor], given: list[Tensor]
) -> list[Tensor] | None:
    try:
        with torch.no_grad():
            return [reduce(reference(*given))]
    except Exception:  # what the program has does not fit this reference
        return None
