"""The keyed permutation: large sets are put in order without storing an order."""

import hashlib
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bowerbird.data import order
from later import later

stats = later("scipy.stats")

SEEDS = st.integers(0, 2**31)


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 5000), seed=SEEDS, epoch=st.integers(0, 10**6))
def test_the_keyed_order_is_a_permutation(n, seed, epoch):
    assert np.array_equal(np.sort(order.keyed(np.arange(n), n, seed, epoch)), np.arange(n))


@settings(max_examples=100, deadline=None)
@given(n=st.integers(2, 1 << 48), seed=SEEDS, data=st.data())
def test_no_two_positions_share_an_example_however_many_there_are(n, seed, data):
    positions = np.unique(data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=50)))
    chosen = order.keyed(positions, n, seed, 0)
    assert len(np.unique(chosen)) == len(positions)
    assert chosen.min() >= 0 and chosen.max() < n


def test_every_example_is_equally_likely_at_every_position():
    n, times = 12, 5000
    drawn = np.stack([order.keyed(np.arange(n), n, seed, 3) for seed in range(times)])
    counts = np.stack([(drawn == value).sum(0) for value in range(n)])
    chi_squared = ((counts - times / n) ** 2 / (times / n)).sum()
    assert stats.chi2.sf(chi_squared, (n - 1) ** 2) > 1e-4


def test_position_and_example_are_unrelated():
    n = 200_003
    for seed in range(5):
        drawn = order.keyed(np.arange(n), n, seed, 0)
        for place, value in ((np.arange(n), drawn), (drawn[:-1], drawn[1:]), (np.arange(n) % 1000, drawn % 1000)):
            assert abs(np.corrcoef(place, value)[0, 1]) * n**0.5 < 5
            assert stats.chisquare(np.histogram2d(place, value, bins=20)[0].ravel()).pvalue > 1e-5


def test_a_large_set_takes_no_memory_and_repeats_itself():
    n, start = 10**10, 10**10 - 30
    tracemalloc.start()
    whole = order.indices(n, seed=1, start=start, count=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert whole.dtype == torch.int64 and whole.min() >= 0 and whole.max() < n
    pieces = [order.indices(n, 1, start + i, 7) for i in range(0, 56, 7)]
    assert torch.equal(torch.cat(pieces), whole[:56])
    assert not torch.equal(order.indices(n, 2, 0, 20), order.indices(n, 1, 0, 20))
    assert not torch.equal(order.indices(n, 1, n, 20), order.indices(n, 1, 0, 20))


@pytest.mark.parametrize("n", [10, order.LARGEST_SHUFFLED])
def test_sets_up_to_a_few_million_keep_the_order_of_earlier_versions(n):
    mixed = int.from_bytes(hashlib.sha256(b"order 5 1").digest()[:8], "little") >> 1
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(mixed))
    assert torch.equal(order.indices(n, seed=5, start=n + 3, count=6), shuffled[3:9])


def test_the_keyed_order_stays_what_it_is():
    """A run that is resumed with a later version goes on in the same order."""
    assert order.indices(10**8, seed=0, start=10**8, count=4).tolist() == PINNED


PINNED = [74696538, 63578275, 70914097, 73301890]
