"""From logits to tokens: drawing the next one, continuing rows of tokens, searching for the most probable row.

Logits have the shape (n, vocab), in nats up to a constant per row; a token that must not come has logit -inf.  All
randomness is one uniform number per row and token (``draws``), so that a seed gives the same tokens on every device.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.nets.roles import SequenceState
from bowerbird.ranges import NonNegative, Positive, Range, Share, Whole, check
from bowerbird.samplers import greenlist

Logits = Float[Tensor, "n vocab"]
Read = Callable[[Tensor, SequenceState], tuple[Tensor, SequenceState | None]]
"""(tokens (n, length), state) → (logits (n, length, vocab), state after them)."""
Nucleus = Annotated[float, Range(0, 1, open_low=True)]
"""The probability that the tokens to draw among add up to."""
LEAST, LARGEST = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
"""Options that float32 cannot hold count as the nearest that it can; logits that it cannot hold likewise."""
NO_TOKEN = -1
"""Stands for the token of a row from whose logits none can be chosen."""

# ------------------------------------------------------------------------------------------------------ one token


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, applied in this order; the defaults draw from the model's own distribution."""

    repetition_penalty: Positive = 1.0
    """Above 1, tokens that the row holds already become less probable."""
    temperature: NonNegative = 1.0
    """Divides the logits; 0 takes the most probable token (greedy)."""
    top_k: Whole = 0
    """Draw among the k most probable tokens only (0: all)."""
    top_p: Nucleus = 1.0
    """Draw among the fewest tokens whose probabilities add up to this (1: all)."""
    min_p: Share = 0.0
    """Draw among tokens of at least this fraction of the largest probability (0: all)."""
    watermark: NonNegative = 0.0
    """Added to the logits of green tokens, so that ``bowerbird verify`` recognises the text (0: none)."""
    also_eos: tuple[Whole, ...] = ()
    """Further tokens that end a text, as imported chat models have them."""

    def __post_init__(self) -> None:
        check(self, "")


def choose(
    logits: Logits,
    sampling: Sampling,
    generator: Draws | None = None,
    past: Int[Tensor, "n length"] | None = None,
) -> Int[Tensor, " n"]:
    """The next token of each row.

    ``past`` holds the tokens before it, for the repetition penalty; the random number of a row is then that of its
    place, so that it does not depend on how early the rows beside it begin.  BowerbirdError where logits are NaN, or
    become it by the options.
    """
    tokens = chosen(logits, sampling, generator, past)
    if failed := (tokens == NO_TOKEN).nonzero().flatten().tolist():
        raise unusable(logits[failed[0]])
    return tokens


def unusable(logits: Float[Tensor, " vocab"]) -> BowerbirdError:
    """Why no token could be chosen from these logits of the model: they are damaged, or the options are to blame."""
    if bool(logits.isnan().any() | (logits == torch.inf).any() | (logits == -torch.inf).all()):
        return BowerbirdError(
            "The model's logits are not finite: its weights are damaged, or its training diverged. Train it again."
        )
    return BowerbirdError(
        "With these options no token can be chosen: the model's logits are finite, but what the options make of them "
        "is not. Bring temperature, repetition_penalty and watermark nearer to their defaults."
    )


def chosen(
    logits: Logits,
    sampling: Sampling,
    generator: Draws | None = None,
    past: Int[Tensor, "n length"] | None = None,
) -> Int[Tensor, " n"]:
    """As ``choose``, with ``NO_TOKEN`` for a row where that would raise: those beside it get theirs."""
    if sampling.repetition_penalty != 1 and past is not None:
        logits = repetition_penalty(logits, past, sampling.repetition_penalty)
    if sampling.watermark and past is not None:
        logits = greenlist.favoured(logits, past, sampling.watermark, greenlist.own_key())
    if sampling.temperature == 0:
        best = logits.max(-1)
        return best.indices.masked_fill(~best.values.isfinite(), NO_TOKEN)
    if sampling.temperature != 1:
        logits = (logits - logits.amax(-1, keepdim=True)) / max(sampling.temperature, LEAST)
    tokens = None
    if sampling.top_k:
        logits, tokens = top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = top_p(logits, sampling.top_p)
    if sampling.min_p > 0:
        logits = min_p(logits, sampling.min_p)
    choice = draw(logits, generator, None if past is None else past.shape[1])
    if tokens is None:
        return choice
    return torch.where(choice == NO_TOKEN, choice, tokens.gather(-1, choice[:, None].clamp(min=0))[:, 0])


def draw(logits: Logits, generator: Draws | None = None, place: int | None = None) -> Int[Tensor, " n"]:
    """A token from softmax(logits) of each row: the first whose cumulative probability exceeds u ~ U[0, 1).

    One uniform number per row, where torch.multinomial needs one per token (30 times slower on a CPU at 4,096 tokens).
    ``NO_TOKEN`` where logits are NaN.
    """
    cumulative = logits.softmax(-1).cumsum(-1)
    n = len(logits)
    u = (torch.rand(n) if generator is None else generator.uniform(n, place)).to(logits.device)[:, None]
    # The last sum may differ from 1 by rounding.  u < 1 keeps the product below it, and a token of probability 0
    # does not raise the sum, so that it can never be the first to exceed anything.
    token = torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True)[:, 0]
    return torch.where(token == logits.shape[-1], NO_TOKEN, token)


def top_k(logits: Logits, k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k largest logits of each row, largest first, and their tokens; all where there are fewer."""
    largest = logits.topk(min(k, logits.shape[-1]))
    return largest.values, largest.indices


def top_p(logits: Logits, p: float) -> Logits:
    """-inf outside the fewest tokens whose probabilities add up to p (Holtzman et al. 2020, arXiv:1904.09751, eq. 2).

    Tokens as probable as the least probable of these stay too, and the most probable one always does.
    """
    p = max(p, LEAST)
    probability = logits.softmax(-1)
    vocab = logits.shape[-1]
    largest = probability.topk(min(FEW, vocab)).values
    if largest.shape[-1] < vocab and bool((largest.sum(-1) < p).any()):
        largest = probability.sort(descending=True).values
    before = largest.cumsum(-1) - largest
    least = largest.masked_fill(before >= p, 1.0).amin(-1, keepdim=True)
    return logits.masked_fill(probability < least, -torch.inf)


FEW = 256
"""Tokens that ``top_p`` sorts before it sorts them all: mostly enough, and 20 times faster at 49,152 tokens."""


def min_p(logits: Logits, p: float) -> Logits:
    """-inf for tokens less probable than p times the most probable (Nguyen et al. 2024, arXiv:2407.01082, eq. 2)."""
    least = logits.amax(-1, keepdim=True) + torch.tensor(p).log().to(logits)
    return logits.masked_fill(logits < least, -torch.inf)


def repetition_penalty(logits: Logits, past: Int[Tensor, "n length"], penalty: float) -> Logits:
    """Logits of the tokens in ``past`` moved down: l / penalty if l > 0, else l · penalty.

    Keskar et al. 2019 (arXiv:1909.05858, section 4.1) divide always, which would raise negative logits.
    """
    old, penalty = logits.gather(-1, past), min(max(penalty, LEAST), LARGEST)
    new = torch.where(old > 0, old / penalty, old * penalty).clamp(-LARGEST, LARGEST)
    return logits.scatter(-1, past, torch.where(old.isfinite(), new, old))


# ----------------------------------------------------------------------------------------------------- many tokens


class Reader:
    """Reads growing rows of tokens, each token once, and says what may come next.

    ``context`` is the most tokens that the network reads at once (None: any number).  When they are used up, the last
    half of them is read again as a new beginning, so a row can become longer than the context.
    """

    def __init__(self, read: Read, initial_state: Callable[[int, int], SequenceState], context: int | None):
        self.read = read
        self.initial_state = initial_state
        self.context = context
        self.state: SequenceState | None = None
        self.first = 0
        """Where in the rows the state begins …"""
        self.end = 0
        """… and where it ends."""

    def logits(self, tokens: Int[Tensor, "n length"], room: int) -> Float[Tensor, "n vocab"]:
        """Logits of the token after these, which begin with those of the last call; at most ``room`` will come."""
        n, length = tokens.shape
        if self.context is not None:
            room = min(room, self.context)
            if length - self.first > self.context:
                self.first = self.end = length - max(1, self.context // 2)
                self.state = None
        if self.state is None:
            self.state = self.initial_state(n, room)
        logits, self.state = self.read(tokens[:, self.end :], self.state)
        self.end = length
        return logits[:, -1].float()


@torch.inference_mode()
def continuations(
    reader: Reader,
    prompts: list[Tensor],
    *,
    n_tokens: int,
    choice: Callable[[Tensor, Tensor], Tensor],
    eos: int,
    pad: int,
    longest_row: int | None = None,
) -> Iterator[Int[Tensor, " n"]]:
    """Yields the k-th new token of every row, k = 0, 1 …, until all have ended or ``n_tokens`` were yielded.

    ``choice`` maps (logits (n, vocab), tokens so far (n, length)) to the next token of each row.  After ``eos``, and
    when it is ``longest_row`` tokens long with its prompt, a row yields ``pad``.

    Rows are aligned at their first token: all are read up to the shortest prompt's end; from there on a row takes its
    prompt's tokens as long as it has any, while shorter ones go ahead of what is yielded.
    """
    device = prompts[0].device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    shortest, longest = int(lengths.min()), int(lengths.max())
    room = longest + n_tokens
    tokens = torch.full((len(prompts), room), pad, dtype=torch.long, device=device)
    room = room if longest_row is None else min(room, longest_row)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    ends = torch.full_like(lengths, room)  # one past each row's last token
    ended = torch.zeros_like(lengths, dtype=torch.bool)
    all_ended = False
    rows = torch.arange(len(prompts), device=device)
    for t in range(shortest, room):
        past = tokens[:, :t]
        token = choice(reader.logits(past, room), past)
        if t < longest:
            token = torch.where(t < lengths, tokens[:, t], token)
        token = token.masked_fill(ended, pad)
        tokens[:, t] = token
        if eos in token.tolist():  # rarely: a step has few operations to spare
            ending = (token == eos) & (t >= lengths) & ~ended
            ends = ends.masked_fill(ending, t + 1)
            ended = ended | ending
            all_ended = bool(ended.all())
        if t >= longest:
            yield token if shortest == longest else tokens[rows, lengths + (t - longest)]
        if all_ended:
            break
    yielded, most = max(0, t + 1 - longest) if n_tokens else 0, int((ends - lengths).max())
    for k in range(yielded, min(most, n_tokens)):
        yield tokens[rows, lengths + k]


# ----------------------------------------------------------------------------------------------------- beam search


def length_normalised(log_prob: Tensor, length: int, length_penalty: float) -> Tensor:
    """log_prob / ((5 + length) / 6)^length_penalty (Wu et al. 2016, arXiv:1609.08144, eq. 14, without coverage)."""
    return log_prob / ((5 + length) / 6) ** length_penalty


@torch.inference_mode()
def beam_search(
    read: Read,
    state: SequenceState,
    bos: Int[Tensor, " n"],
    *,
    eos: int,
    pad: int,
    beam: int,
    length_penalty: float,
    n_tokens: int,
) -> tuple[Int[Tensor, "n length"], Float[Tensor, " n"]]:
    """The best row found for each of n inputs, padded after its eos, and its score: log p, length-normalised, in nats.

    ``state`` and ``read`` have n · beam rows, those of one input side by side.  At every step the ``beam`` most
    probable rows without eos go on.  A row that ends counts if it is among the ``beam`` most probable; its length
    includes eos.  An input is finished when ``beam`` rows have ended or none that goes on can still win.  If none ends
    within ``n_tokens``, the best unfinished row is taken.
    """
    n, new = len(bos), bos.new_full
    first = torch.arange(n, device=bos.device)[:, None] * beam
    same = torch.arange(n * beam, device=bos.device)
    tokens, last = new((n * beam, n_tokens), pad), bos.repeat_interleave(beam)[:, None]
    log_prob = torch.full((n, beam), -torch.inf, device=bos.device)
    log_prob[:, 0] = 0  # all rows of an input are alike at first: only one may count
    best, best_score = new((n, n_tokens), pad), log_prob.new_full((n,), -torch.inf)
    n_ended, finished = new((n,), 0), new((n,), False, dtype=torch.bool)
    for t in range(n_tokens):
        logits, after = read(last, state)
        state = after or state
        vocab = logits.shape[-1]
        extended = log_prob[:, :, None] + logits[:, -1].float().log_softmax(-1).view(n, beam, vocab)
        # One candidate per row can be eos, so among twice as many there are enough that go on.
        value, flat = extended.flatten(1).topk(min(2 * beam, beam * vocab))
        parent, token = first + flat // vocab, flat % vocab
        ends = (token == eos) & (value > -torch.inf)

        value_of_end = value[:, :beam].masked_fill(~ends[:, :beam] | finished[:, None], -torch.inf)
        score, which = length_normalised(value_of_end, t + 1, length_penalty).max(1)
        better = score > best_score
        row = tokens[parent.gather(1, which[:, None])[:, 0]]
        row[:, t] = eos
        best = torch.where(better[:, None], row, best)
        best_score = torch.where(better, score, best_score)
        n_ended += ends[:, :beam].sum(1)

        log_prob, kept = value.masked_fill(token == eos, -torch.inf).topk(beam)
        index, last = parent.gather(1, kept).flatten(), token.gather(1, kept).view(-1, 1)
        if not torch.equal(index, same):
            tokens, state = tokens[index], state.rows(index)
        tokens[:, t] = last[:, 0]
        hope = length_normalised(log_prob[:, 0], n_tokens, length_penalty)
        finished |= (n_ended >= beam) | (best_score >= hope)
        if bool(finished.all()):
            break
    unended = best_score == -torch.inf
    best = torch.where(unended[:, None], tokens[first[:, 0]], best)
    return best, torch.where(unended, length_normalised(log_prob[:, 0], t + 1, length_penalty), best_score)
