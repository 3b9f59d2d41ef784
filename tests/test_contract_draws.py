"""Random numbers per sample: row i follows from (seed, i) alone, and has the distribution that was asked for."""

import pytest
import torch

from bowerbird.draws import UNIFORMS_AT_ONCE, Draws, fresh
from later import later

stats = later("scipy.stats")

KINDS = {
    "randn": lambda draws, n: draws.randn(n, 2, 3),
    "rand": lambda draws, n: draws.rand(n, 5),
    "uniform": lambda draws, n: draws.uniform(n),
    "choice": lambda draws, n: draws.choice(n, torch.tensor([5.0, 1.0, 3.0], dtype=torch.float64)),
    "in turn": lambda draws, n: torch.cat(
        [draws.randn(n, 2), draws.uniform(n)[:, None], draws.rand(n, 1), draws.uniform(n)[:, None]], dim=1
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_a_row_does_not_depend_on_how_many_there_are(kind: str) -> None:
    all_rows = KINDS[kind](Draws(7), 16)
    for n in (1, 4, 15):
        assert torch.equal(KINDS[kind](Draws(7), n), all_rows[:n])


@every_kind
def test_batches_that_begin_anywhere_are_the_whole(kind: str) -> None:
    parts = [KINDS[kind](Draws(7, first), n) for first, n in ((0, 5), (5, 1), (6, 10))]
    assert torch.equal(torch.cat(parts), KINDS[kind](Draws(7), 16))


@every_kind
def test_the_global_generator_is_left_alone(kind: str) -> None:
    state = torch.get_rng_state()
    first = KINDS[kind](Draws(7), 4)
    torch.manual_seed(99)
    assert torch.equal(KINDS[kind](Draws(7), 4), first)
    torch.set_rng_state(state)
    KINDS[kind](Draws(7), 4)
    assert torch.equal(torch.get_rng_state(), state)


@every_kind
def test_rows_and_seeds_are_told_apart_and_later_draws_are_new(kind: str) -> None:
    draws = Draws(7)
    x, later = KINDS[kind](draws, 40).float(), KINDS[kind](draws, 40).float()
    assert not torch.equal(x, later)
    assert not torch.equal(x, KINDS[kind](Draws(8), 40).float())
    if kind != "choice":
        assert len(x.reshape(40, -1).unique(dim=0)) == 40


def test_rows_may_be_added_to_those_that_were_drawn() -> None:
    """The first rows go on where they were; new ones begin."""
    draws = Draws(0)
    first = draws.randn(2, 3)
    more = draws.randn(4, 3)
    fresh_rows = Draws(0)
    assert torch.equal(fresh_rows.randn(4, 3)[:2], first)
    assert torch.equal(more[2:], Draws(0, first=2).randn(2, 3))
    assert not torch.equal(more[:2], first)


def test_neighbouring_seeds_and_rows_are_not_alike() -> None:
    """Those of the Mersenne Twister would start alike; (seed, i) and (seed + 1, i - 1) are different rows."""
    x = torch.stack([Draws(seed).randn(50, 40) for seed in range(20)])
    flat = x.flatten(0, 1)
    correlation = torch.corrcoef(flat) - torch.eye(len(flat))
    assert correlation.abs().max() < 0.85  # of 499,500 pairs with 40 numbers each, 0.16 the standard deviation
    assert abs(float(correlation.mean())) < 0.005
    assert not torch.equal(Draws(0, first=1).randn(1, 4), Draws(1).randn(1, 4))
    assert not torch.equal(Draws(11).randn(1, 4), Draws(1, first=1).randn(1, 4))


def test_moments_across_rows_and_within_them() -> None:
    """A number of each row, and all numbers of one row, have the distribution that they are named after."""
    across, within = Draws(1).randn(4000, 1).flatten(), Draws(2).randn(1, 100, 40).flatten()
    for x in (across, within):
        assert float(x.mean()) == pytest.approx(0, abs=0.06) and float(x.std()) == pytest.approx(1, abs=0.04)
        assert stats.kstest(x.double().numpy(), "norm").pvalue > 0.01
    across, within = Draws(1).rand(4000, 1).flatten(), Draws(2).rand(1, 4000).flatten()
    for u in (across, within, Draws(3).uniform(4000)):
        assert 0 <= u.min() and u.max() < 1
        assert stats.kstest(u.double().numpy(), "uniform").pvalue > 0.01


def test_choices_are_as_frequent_as_their_weights() -> None:
    weights = torch.tensor([3.0, 0.0, 1.0, 4.0], dtype=torch.float64)
    counts = torch.bincount(Draws(0).choice(8000, weights), minlength=4).double()
    assert counts[1] == 0
    possible = weights > 0
    assert stats.chisquare(counts[possible], weights[possible] / weights.sum() * 8000).pvalue > 0.01
    assert Draws(0).choice(5, torch.ones(1, dtype=torch.float64)).tolist() == [0] * 5


def test_uniform_goes_on_from_block_to_block() -> None:
    """One number per row and call, all different, however many blocks they are drawn in."""
    n = 2 * UNIFORMS_AT_ONCE + 3
    draws = Draws(4)
    u = torch.stack([draws.uniform(3) for _ in range(n)], dim=1)
    assert len(u.unique()) == 3 * n
    alone = Draws(4, first=2)
    assert torch.equal(torch.stack([alone.uniform(1) for _ in range(n)], dim=1)[0], u[2])
    assert stats.kstest(u.flatten().double().numpy(), "uniform").pvalue > 0.01


def test_uniform_at_a_place_does_not_depend_on_the_places_before() -> None:
    draws = Draws(4)
    u = [draws.uniform(3) for _ in range(200)]
    for places in ([0, 1, 2], [5, 70, 71, 199], [63, 64], [128], [199]):
        other = Draws(4)
        for place in places:
            assert torch.equal(other.uniform(3, place), u[place])
    other = Draws(4)
    assert torch.equal(other.uniform(3, 9), u[9]) and torch.equal(other.uniform(3), u[10])
    assert not torch.equal(other.uniform(3, 9), u[9]), "another sequence has other numbers"


def test_fresh_draws_follow_from_the_global_generator() -> None:
    torch.manual_seed(3)
    first, second = fresh().randn(4, 2), fresh().randn(4, 2)
    torch.manual_seed(3)
    assert torch.equal(fresh().randn(4, 2), first) and not torch.equal(second, first)
