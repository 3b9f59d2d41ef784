"""What one client asks for does no harm to others, and no answer repeats at length what was sent."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bowerbird.generating import Asked, generate
from bowerbird.serve.limits import Busy, Limits
from bowerbird.serve.service import Engine, Piece
from bowerbird.serve.workers import Writer


@pytest.fixture(scope="module")
def engine(runs: dict[str, Path]) -> Iterator[Engine]:
    found = Engine(runs, limits=Limits(waiting=64))
    yield found
    found.close()


def _answers(engine: Engine, asked: list[dict[str, Any]], n_tokens: int = 40) -> list[Piece | BaseException]:
    """The texts that go on beside each other, each with its own options."""

    async def all_of_them() -> list[Piece | BaseException]:
        writings = [
            engine.stream("text", "the cat", seed=i, options={"n_tokens": n_tokens} | options)
            for i, options in enumerate(asked)
        ]
        return await asyncio.gather(*(one.whole() for one in writings), return_exceptions=True)

    return asyncio.run(all_of_them())


EXTREME = [{"temperature": 1e-38}, {"temperature": 1e-320}, {"top_p": 1e-46}, {"repetition_penalty": 1e-38}]


def test_extreme_options_give_a_text_and_change_no_other(engine: Engine) -> None:
    plain, greedy = _answers(engine, [{}, {"temperature": 0}])
    beside = _answers(engine, [{}, {"temperature": 0}, *EXTREME])
    assert beside[:2] == [plain, greedy]
    assert isinstance(greedy, Piece) and all(isinstance(one, Piece) for one in beside)
    assert [one.text for one in beside[2:5] if isinstance(one, Piece)] == [greedy.text] * 3


def test_a_text_that_cannot_go_on_fails_alone(engine: Engine) -> None:
    plain = _answers(engine, [{}])
    beside = _answers(engine, [{}, {"watermark": 1e308}])
    assert beside[:1] == plain
    assert "With these options no token can be chosen" in str(beside[1])


def test_a_text_has_the_watermark_that_was_asked_for(engine: Engine, runs: dict[str, Path]) -> None:
    options = {"n_tokens": 12, "watermark": 4.0}
    model = engine.runs["text"].model
    given = {"prompt": engine._prompt(engine.runs["text"], "the cat")["prompt"]}
    alone = generate(model, 1, seed=0, given=given, options=options)
    marked, _ = _answers(engine, [options, options | {"temperature": 0.5}], 12)
    assert isinstance(marked, Piece) and "the cat" + marked.text == alone[0]


def test_texts_that_nobody_has_read_yet_count_as_waiting(engine: Engine) -> None:
    worker = engine.workers["text"]

    async def burst() -> None:
        asked = [Asked(1, 0, i) for i in range(64)]
        before = worker.tally.samples
        first = engine.streams("text", ["the"] * 64, asked, options={"n_tokens": 1})
        async with asyncio.timeout(30):
            while worker.tally.samples < before + 64:
                await asyncio.sleep(0.01)
        with pytest.raises(Busy):
            engine.streams("text", ["the"], asked[:1], options={"n_tokens": 1})
        await asyncio.gather(*(one.whole() for one in first))
        (after,) = engine.streams("text", ["the"], asked[:1], options={"n_tokens": 1})
        assert (await after.whole()).finish

    asyncio.run(burst())


def test_an_idle_worker_keeps_nothing_of_what_it_did(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = threading.Event()
    monkeypatch.setattr("bowerbird.serve.workers.machine.return_freed_memory", given_back.set)
    _answers(engine, [{}] * 8)
    assert given_back.wait(30)
    worker = engine.workers["text"]
    assert isinstance(worker, Writer) and not worker._jobs and not worker._made
    assert worker._together is not None and not worker._together.rows and worker._together._state is None
