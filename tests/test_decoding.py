"""Choosing tokens: closed forms of every filter, frequencies of draws, rows of unequal length, exact beam search."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.nets.roles import SequenceState
from bowerbird.samplers.decoding import (
    NO_TOKEN,
    Reader,
    Sampling,
    beam_search,
    choose,
    chosen,
    continuations,
    draw,
    length_normalised,
    min_p,
    repetition_penalty,
    top_k,
    top_p,
    unusable,
)
from later import later

stats = later("scipy.stats")

PROBABILITIES = [0.4, 0.3, 0.2, 0.08, 0.02]
LOGITS = torch.tensor(PROBABILITIES).log()[None]
EOS, PAD, BOS = 0, 1, 2


def kept(logits: Tensor) -> list[int]:
    return logits[0].isfinite().nonzero()[:, 0].tolist()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------------ one token


@pytest.mark.parametrize("p, expected", [(0.1, 1), (0.4, 1), (0.41, 2), (0.69, 2), (0.89, 3), (0.95, 4), (0.99, 5)])
def test_top_p_keeps_the_fewest_tokens_that_add_up_to_p(p: float, expected: int) -> None:
    assert kept(top_p(LOGITS, p)) == list(range(expected))


@pytest.mark.parametrize("p, expected", [(1.0, 1), (0.7, 2), (0.5, 3), (0.19, 4), (0.01, 5)])
def test_min_p_keeps_tokens_of_that_fraction_of_the_largest(p: float, expected: int) -> None:
    assert kept(min_p(LOGITS, p)) == list(range(expected))


def test_top_k_keeps_the_k_largest() -> None:
    shuffled = [3, 0, 4, 1, 2]
    values, tokens = top_k(LOGITS[:, shuffled], 2)
    assert tokens.tolist() == [[1, 3]]
    assert values.exp().tolist() == [pytest.approx([0.4, 0.3])]
    assert top_k(LOGITS, 99)[0].shape == (1, 5)


def test_top_p_of_many_tokens_is_that_of_a_full_sort() -> None:
    """Flat rows need more tokens than are sorted at first, steep ones fewer; both may stand in one batch."""
    torch.manual_seed(0)
    logits = torch.randn(4, 3000) * torch.tensor([[0.1], [1.0], [3.0], [10.0]])
    for p in (0.3, 0.9, 0.999):
        for row, found in zip(logits.double().softmax(-1), top_p(logits, p).isfinite(), strict=True):
            ordered = row.sort(descending=True)
            count = int((ordered.values.cumsum(0) < p - 1e-6).sum()) + 1
            assert abs(int(found.sum()) - count) <= 2  # float32 sums
            assert found[ordered.indices[: max(1, count - 2)]].all()


def test_repetition_penalty() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5, -3.0]])
    past = torch.tensor([[0, 1, 1]])
    assert repetition_penalty(logits, past, 2.0).tolist() == [[1.0, -2.0, 0.5, -3.0]]


def distribution(sampling: Sampling, n: int = 20_000) -> Tensor:
    """Frequencies of n draws from ``LOGITS``."""
    tokens = choose(LOGITS.expand(n, -1), sampling, Draws(0))
    return torch.bincount(tokens, minlength=len(PROBABILITIES)).double()


@pytest.mark.parametrize(
    "sampling, expected",
    [
        (Sampling(), PROBABILITIES),
        (Sampling(top_k=2), [4 / 7, 3 / 7, 0, 0, 0]),
        (Sampling(top_p=0.85), [4 / 9, 3 / 9, 2 / 9, 0, 0]),
        (Sampling(min_p=0.6), [4 / 7, 3 / 7, 0, 0, 0]),
        (Sampling(temperature=0.5, top_k=3), [16 / 29, 9 / 29, 4 / 29, 0, 0]),  # squares of the probabilities
        (Sampling(temperature=0.5, top_p=0.56), [16 / 25, 9 / 25, 0, 0, 0]),  # after the temperature, as its paper
    ],
)
def test_draws_have_the_right_frequencies(sampling: Sampling, expected: list[float]) -> None:
    counts = distribution(sampling)
    probability = torch.tensor(expected, dtype=torch.float64)
    possible = probability > 0
    assert not counts[~possible].any()
    assert stats.chisquare(counts[possible], probability[possible] * counts.sum()).pvalue > 0.01


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.full((100_000, 4), -math.inf)
    logits[:, 2] = 0.0
    assert (draw(logits, Draws(0)) == 2).all()
    logits[:, 0] = 0.0
    assert set(draw(logits, Draws(0)).tolist()) == {0, 2}


def test_temperature_zero_is_greedy_and_draws_nothing() -> None:
    draws = Draws(0)
    assert choose(LOGITS.flip(1), Sampling(temperature=0), draws).tolist() == [4]
    assert torch.equal(draws.rand(1, 5), Draws(0).rand(1, 5))


@pytest.mark.parametrize("option", [{"top_p": 0.0}, {"top_p": 1.5}, {"min_p": -1}, {"temperature": -1}, {"top_k": -1}])
def test_wrong_options_are_one_sentence(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(option))} .*\.$"):
        Sampling(**option)


# ----------------------------------------------------------------------------------------------------- many tokens


class Table(SequenceState):
    """A model that is a table: logits of the next token given the last two, in ``history``."""

    def __init__(self, history: Tensor):
        self.history = history

    def detached(self) -> "Table":
        return self

    def rows(self, index: Tensor) -> "Table":
        return Table(self.history[index])


def table_model(vocab: int, seed: int = 0):
    """read and initial_state of a random table; the third result is log p(next | last two), (vocab, vocab, vocab)."""
    log_p = (2 * torch.randn(vocab, vocab, vocab, generator=seeded(seed))).log_softmax(-1)

    def read(tokens: Tensor, state: Table) -> tuple[Tensor, Table]:
        seen = torch.cat([state.history, tokens], dim=1)
        return log_p[seen[:, :-1], seen[:, 1:]][:, -tokens.shape[1] :], Table(seen[:, -1:])

    return read, lambda n, length: Table(torch.full((n, 1), PAD)), log_p


def go_on(
    prompts: list[list[int]],
    n_tokens: int,
    sampling: Sampling,
    *,
    eos: int = EOS,
    seed: int = 0,
    longest_row: int | None = None,
) -> Tensor:
    read, initial_state, _ = table_model(6, seed=5)
    draws = Draws(seed)
    steps: Iterator[Tensor] = continuations(
        Reader(read, initial_state, context=None),
        [torch.tensor(prompt) for prompt in prompts],
        n_tokens=n_tokens,
        choice=lambda logits, past: choose(logits, sampling, draws, past),
        eos=eos,
        pad=PAD,
        longest_row=longest_row,
    )
    return torch.stack(list(steps), dim=1)


def test_rows_of_unequal_length_go_on_as_they_would_alone() -> None:
    """Greedily, with eos reached by some rows and not by others, and in any order of lengths."""
    greedy = Sampling(temperature=0)
    prompts = [[BOS, 3, 4, 5, 3], [BOS], [BOS, 5, 5], [4, EOS, 2, 3], [EOS]]
    together = go_on(prompts, 12, greedy)
    for prompt, row in zip(prompts, together, strict=True):
        alone = go_on([prompt], 12, greedy)[0]
        assert torch.equal(row[: len(alone)], alone)
        assert (row[len(alone) :] == PAD).all()
    assert (together == EOS).any() and (together != EOS).all(1).any()


def test_draws_of_a_row_do_not_depend_on_the_rows_beside_it() -> None:
    """Each place of a row has a random number of its own, however long its prompt and those beside it are."""
    prompts = [[BOS, 3, 4, 5, 3], [BOS], [BOS, 5, 5], [4, EOS, 2, 3], [EOS]]
    together = go_on(prompts, 70, Sampling(), eos=-1)
    for i in (0, 2, 4):
        assert torch.equal(go_on([[BOS]] * i + prompts[i : i + 1], 70, Sampling(), eos=-1)[i], together[i])


def test_rows_become_so_long_and_no_longer() -> None:
    """With the prompt; rows of long prompts have fewer tokens of their own, and padding in their place."""
    prompts = [[BOS, 3, 4, 5, 3], [BOS], [BOS, 5, 5]]
    free = go_on(prompts, 7, Sampling(), eos=-1)
    cut = go_on(prompts, 7, Sampling(), eos=-1, longest_row=8)
    for prompt, row, full in zip(prompts, cut, free, strict=True):
        own = 8 - len(prompt)
        assert torch.equal(row[:own], full[:own]) and (row[own:] == PAD).all()


def test_rows_end_with_eos_and_then_hold_padding() -> None:
    rows = go_on([[BOS], [BOS, 3, 3]] * 20, 30, Sampling())
    for row in rows.tolist():
        if EOS in row:
            assert set(row[row.index(EOS) + 1 :]) <= {PAD}
    assert rows.shape[1] == 30 or (rows == EOS).any(1).all()


def test_generation_stops_when_all_rows_have_ended() -> None:
    rows = go_on([[BOS]] * 8, 10_000, Sampling())
    assert rows.shape[1] < 1000 and (rows == EOS).sum() == 8


def test_n_tokens_is_exact() -> None:
    for prompts in ([[BOS]], [[BOS], [BOS, 3, 4]]):
        assert go_on(prompts, 7, Sampling(), eos=-1).shape == (len(prompts), 7)
    read, initial_state, _ = table_model(6)
    reader = Reader(read, initial_state, None)
    none = continuations(reader, [torch.tensor([BOS])], n_tokens=0, choice=lambda *_: 1 / 0, eos=EOS, pad=PAD)
    assert list(none) == []


def test_generated_pairs_have_the_models_frequencies() -> None:
    """Two tokens drawn one after the other, against the product of the table's probabilities."""
    _, _, log_p = table_model(6, seed=5)
    rows = go_on([[3]] * 30_000, 2, Sampling(), eos=-1)
    counts = torch.bincount(rows[:, 0] * 6 + rows[:, 1], minlength=36).double()
    expected = (log_p[PAD, 3][:, None] + log_p[3]).exp().flatten().double()
    enough = expected * len(rows) > 5
    observed = torch.cat([counts[enough], counts[~enough].sum()[None]])
    predicted = torch.cat([expected[enough], expected[~enough].sum()[None]])
    assert stats.chisquare(observed, predicted / predicted.sum() * len(rows)).pvalue > 0.01


def test_draws_follow_from_the_generator() -> None:
    first, again, other = (go_on([[BOS]] * 4, 9, Sampling(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_reader_begins_again_with_the_last_half_of_a_full_context() -> None:
    """A network that says how many tokens it has read, and which was the first."""
    pieces: list[Tensor] = []

    def read(tokens: Tensor, state: Table) -> tuple[Tensor, Table]:
        seen = torch.cat([state.history, tokens], dim=1)
        assert seen.shape[1] <= 8
        pieces.append(seen)
        return torch.zeros(*tokens.shape, 3), Table(seen)

    reader = Reader(read, lambda n, length: Table(torch.zeros(n, 0, dtype=torch.long)), context=8)
    tokens = torch.arange(30)[None]
    for length in range(5, 31):
        reader.logits(tokens[:, :length], 30)
    for length, seen in zip(range(5, 31), pieces, strict=True):
        first = 0 if length <= 8 else 5 + (length - 9) // 5 * 5
        assert seen[0].tolist() == list(range(first, length))


# ----------------------------------------------------------------------------------------------------- beam search


def all_rows(vocab: int, n_tokens: int) -> Iterator[tuple[int, ...]]:
    """Every row of at most ``n_tokens`` tokens that ends with eos."""
    others = [token for token in range(vocab) if token != EOS]
    for length in range(n_tokens):
        for row in itertools.product(others, repeat=length):
            yield (*row, EOS)


def search(seed: int, beam: int, length_penalty: float, n_tokens: int, n: int = 1, vocab: int = 4):
    read, initial_state, log_p = table_model(vocab, seed)
    rows, score = beam_search(
        read, initial_state(n * beam, n_tokens), torch.full((n,), BOS), eos=EOS, pad=PAD,
        beam=beam, length_penalty=length_penalty, n_tokens=n_tokens,
    )  # fmt: skip
    return rows, score, log_p


def score_of(row: tuple[int, ...], log_p: Tensor, length_penalty: float) -> float:
    before, last, total = PAD, BOS, 0.0
    for token in row:
        total += float(log_p[before, last, token])
        before, last = last, token
    return total / ((5 + len(row)) / 6) ** length_penalty


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_the_best_row_of_all(seed: int, length_penalty: float) -> None:
    n_tokens = 4
    rows, score, log_p = search(seed, beam=60, length_penalty=length_penalty, n_tokens=n_tokens)
    best = max(all_rows(4, n_tokens), key=lambda row: score_of(row, log_p, length_penalty))
    assert tuple(rows[0, : len(best)].tolist()) == best and (rows[0, len(best) :] == PAD).all()
    assert float(score[0]) == pytest.approx(score_of(best, log_p, length_penalty), abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_beam_one_is_greedy(seed: int) -> None:
    rows, _, log_p = search(seed, beam=1, length_penalty=0.6, n_tokens=9, vocab=5)
    before, last, expected = PAD, BOS, []
    while len(expected) < 9 and EOS not in expected:
        before, last = last, int(log_p[before, last].argmax())
        expected.append(last)
    assert rows[0].tolist() == expected + [PAD] * (9 - len(expected))


def test_inputs_are_searched_independently() -> None:
    rows, score, _ = search(0, beam=3, length_penalty=0.6, n_tokens=6, n=5)
    alone, alone_score, _ = search(0, beam=3, length_penalty=0.6, n_tokens=6, n=1)
    assert torch.equal(rows, alone.expand(5, -1)) and torch.equal(score, alone_score.expand(5))


def test_a_row_that_never_ends_is_cut() -> None:
    log_p = torch.tensor([-math.inf, -2.0, -3.0, -1.0]).log_softmax(0)
    rows, score = beam_search(
        lambda tokens, state: (log_p.expand(*tokens.shape, 4), state), Table(torch.zeros(2, 1)),
        torch.tensor([BOS]), eos=EOS, pad=PAD, beam=2, length_penalty=0.0, n_tokens=3,
    )  # fmt: skip
    assert rows.tolist() == [[3, 3, 3]]
    assert float(score[0]) == pytest.approx(3 * float(log_p[3]), abs=1e-5)


def test_length_normalisation_is_that_of_wu_et_al() -> None:
    assert float(length_normalised(torch.tensor(-3.0), 1, 0.6)) == pytest.approx(-3.0)
    assert float(length_normalised(torch.tensor(-3.0), 7, 1.0)) == pytest.approx(-1.5)


def test_logits_that_are_not_finite_are_said():
    with pytest.raises(BowerbirdError, match="logits are not finite"):
        choose(torch.full((2, 5), math.nan), Sampling())


EXTREME = (
    Sampling(temperature=1e-45), Sampling(temperature=1e-320), Sampling(top_p=1e-46), Sampling(top_p=1e-320),
    Sampling(temperature=1e-38, top_p=1e-46, top_k=3, min_p=1.0), Sampling(repetition_penalty=1e39),
    Sampling(repetition_penalty=1e300, temperature=1e-38),
)  # fmt: skip


@pytest.mark.parametrize("sampling", EXTREME, ids=str)
def test_extreme_options_take_the_best_token(sampling: Sampling) -> None:
    logits = torch.tensor([[1.0, 3.0, -2.0, 2.5], [-40.0, -41.0, -80.0, -50.0], [-torch.inf, 0.0, -1.0, -3.0]])
    sampling = sampling if sampling.repetition_penalty == 1 else replace(sampling, top_k=1)
    assert choose(logits, sampling, Draws(0), torch.full((3, 1), 2)).tolist() == [1, 0, 1]


def test_a_tiny_repetition_penalty_repeats() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    for penalty in (1e-38, 1e-46, 1e-320):
        assert choose(logits, Sampling(repetition_penalty=penalty), Draws(0), torch.tensor([[0], [2]])).tolist() == [
            0,
            2,
        ]


def test_a_row_without_a_token_says_whose_fault_it_is() -> None:
    logits = torch.zeros(3, 5)
    logits[1, 2] = math.nan
    for sampling in (Sampling(), Sampling(temperature=0), Sampling(top_k=2), Sampling(top_p=0.5)):
        tokens = chosen(logits, sampling, Draws(0))
        assert tokens[1] == NO_TOKEN and (tokens[[0, 2]] >= 0).all()
    assert "weights are damaged" in str(unusable(logits[1])) and "options" in str(unusable(logits[0]))
