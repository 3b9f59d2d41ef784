"""The engine: the same samples as alone, whoever else asks; batches, limits, clients that leave, models that change."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bowerbird import api
from bowerbird.serve.service import Engine


@pytest.fixture(scope="module")
def engine(runs: dict[str, Path]) -> Iterator[Engine]:
    engine = Engine(runs)
    yield engine
    engine.close()


def test_a_request_gets_what_generate_draws(engine: Engine, runs: dict[str, Path]) -> None:
    served = asyncio.run(engine.submit("classes", 3, seed=5, given={"label": "upper"}, options={"steps": 2}))
    alone = api.generate(runs["classes"], 3, seed=5, given={"label": "upper"}, options={"steps": 2})
    assert torch.equal(served.x, alone.x) and torch.equal(served.given["label"], alone.given["label"])
    assert served.rows[0]["generated_by"] == "classes" and served.rows[0]["seed"] == 5


def test_requests_are_drawn_in_one_batch_and_each_gets_its_own_samples(engine: Engine, runs: dict[str, Path]) -> None:
    async def all_at_once() -> list:
        return await asyncio.gather(*(engine.submit("classes", 1 + i % 3, seed=i) for i in range(12)))

    before = engine.workers["classes"].tally.batches
    together = asyncio.run(all_at_once())
    assert engine.workers["classes"].tally.batches - before < 12
    for i, samples in enumerate(together):
        alone = api.generate(runs["classes"], 1 + i % 3, seed=i)
        assert torch.equal(samples.given["label"], alone.given["label"])
        torch.testing.assert_close(samples.x, alone.x, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("run", ["text", "music"])
def test_sequences_join_and_are_those_of_generate(run: str, engine: Engine, runs: dict[str, Path]) -> None:
    async def staggered() -> list:
        async def later(i: int):
            await asyncio.sleep(0.004 * i)
            return await engine.submit(run, 1 + i % 2, seed=i)

        return await asyncio.gather(*(later(i) for i in range(6)))

    together = asyncio.run(staggered())
    assert engine.workers[run].tally.largest > 2
    for i, samples in enumerate(together):
        alone = api.generate(runs[run], 1 + i % 2, seed=i)
        assert torch.equal(samples.x, alone.x)
