"""The engine: requests from an event loop in, samples or text out.  It knows nothing of HTTP.

    engine = Engine({"digits": Path("runs/flow-001")})
    samples = await engine.submit("digits", 4, seed=7, given={"label": "3"})
    async for piece in engine.stream("poet", "床前明月光", seed=7):
        print(piece.text)

Whoever stops waiting (a cancelled task, a generator that is closed) frees what was drawn for them.
"""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bowerbird.data.tokenizers import Tokenizer
from bowerbird.editing import Edited, Request, action_from, edit
from bowerbird.errors import BowerbirdError
from bowerbird.generating import Asked, Samples, drawn_with
from bowerbird.media.giving import read_given
from bowerbird.media.medium import medium
from bowerbird.media.text import chat
from bowerbird.media.text.completing import ANSWER_AT_MOST, ANSWER_ROOM
from bowerbird.models.base import options_from
from bowerbird.samplers.continuous import Continuation
from bowerbird.serve.detokenising import Detokeniser, Piece
from bowerbird.serve.limits import Limits, TooLate, Unknown
from bowerbird.serve.served import Served, named
from bowerbird.serve.workers import Job, TextJob, Worker, worker_for

Prompt = str | Sequence[int] | None
"""A text, tokens, or nothing: the model begins by itself."""


class Engine:
    """Served runs by name, each with a worker."""

    def __init__(
        self,
        runs: Mapping[str, Path | str] | Sequence[str],
        *,
        limits: Limits = Limits(),
        device: str = "auto",
        allow_plugin: bool = False,
    ):
        folders = dict(runs) if isinstance(runs, Mapping) else named(list(runs))
        self.limits, self.draining = limits, False
        self.runs = {name: Served(name, folder, device, allow_plugin=allow_plugin) for name, folder in folders.items()}
        self.workers: dict[str, Worker] = {name: worker_for(run, limits) for name, run in self.runs.items()}

    def add(self, name: str, folder: Path | str, *, device: str = "auto") -> Served:
        """Serves one more run, or another one under the same name."""
        served = Served(name, folder, device)
        self.remove(name)
        self.runs[name], self.workers[name] = served, worker_for(served, self.limits)
        return served

    def remove(self, name: str) -> None:
        """Serves a run no longer; requests that wait for it are refused."""
        self.runs.pop(name, None)
        worker = self.workers.pop(name, None)
        if worker is not None:
            worker.close()

    def run(self, name: str) -> Served:
        if name not in self.runs:
            raise Unknown(f"There is no model '{name}' here; known: {', '.join(self.runs) or 'none'}.")
        return self.runs[name]

    def close(self) -> None:
        """Ends all workers; what waits is refused."""
        self.draining = True
        for worker in self.workers.values():
            worker.close()

    # ------------------------------------------------------------------------------------------------ samples

    async def submit(
        self,
        run: str,
        n: int | None = None,
        *,
        seed: int = 0,
        first: int = 0,
        given: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Samples:
        """Samples number ``first`` … ``first`` + n - 1 of a seed, as ``api.generate`` draws them.

        ``n`` None: one, or one for each value that is given.  BowerbirdError for what the run does not take or what is
        beyond the limits; Busy when too many wait; TooLate after ``Limits.seconds``.
        """
        served = self.run(run)
        chosen = self._options(served, options)
        self._check_characters(given or {})
        self._check_count(served, n or 1, chosen)
        tensors, n_given, _ = read_given(served.spec, given or {}, n)
        if n_given is None:
            tensors, n_given, _ = read_given(served.spec, given or {}, 1)
        n_given = n_given or 1
        self._check_count(served, n_given, chosen)
        origin = {**served.about(), **drawn_with(seed, chosen)} | ({"first": first} if first else {})
        ask = self._rows if served.joins else self._batch
        x, made_from = await ask(served, Asked(n_given, seed, first, tensors), chosen)
        return Samples(x, made_from, served.spec, origin, labeller=served.labeller)

    async def edit(
        self,
        run: str,
        action: str,
        words: Mapping[str, Any],
        *,
        n: int | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> Edited:
        """What ``api.edit`` makes; ``words`` holds ``source`` and ``mask`` as arrays, and what else is given.

        BowerbirdError for what the run cannot do or what is beyond the limits; Busy and TooLate as for ``submit``.
        """
        served = self.run(run)
        wanted = action_from(action, options)
        self._check_numbers(wanted)
        self._check_characters(words)
        count = n or max([1, *(len(value) for value in words.values() if isinstance(value, list))])
        self._check_count(served, count, wanted)
        future, job = self._job(Asked(count, seed), wanted)
        job.work = lambda model: edit(wanted, Request(model, words, n, seed, served.about(), served.labeller))
        self.workers[served.name].offer([job])
        edited: Edited = await _awaited(future, [job], self.limits.seconds)
        return edited

    async def _batch(self, served: Served, asked: Asked, options: Any) -> tuple[Tensor, dict[str, Tensor]]:
        future, job = self._job(asked, options)
        self.workers[served.name].offer([job])
        return await _awaited(future, [job], self.limits.seconds)

    async def _rows(self, served: Served, asked: Asked, options: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Rows of tokens, each of which joins by itself."""
        pairs = [self._text_job(one, options) for one in _one_by_one(asked)]
        jobs = [job for _, job in pairs]
        self.workers[served.name].offer(jobs)
        rows: list[Continuation] = await _awaited(
            asyncio.gather(*(future for future, _ in pairs)), jobs, self.limits.seconds
        )
        tensors = [torch.tensor(row.tokens) for row in rows]
        pad: Any = getattr(served.spec.target, "pad", 0)
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=pad), dict(asked.given)

    def _job(self, asked: Asked, options: Any) -> tuple[asyncio.Future[Any], Job]:
        future, done, failed = _future()
        return future, Job(asked, options, time.monotonic() + self.limits.seconds, done, failed)

    def _text_job(self, asked: Asked, options: Any) -> tuple[asyncio.Future[Any], TextJob]:
        future, done, failed = _future()
        return future, TextJob(asked, options, time.monotonic() + self.limits.seconds, done, failed)

    # ------------------------------------------------------------------------------------------------ text

    def stream(
        self,
        run: str,
        prompt: Prompt = None,
        *,
        seed: int = 0,
        first: int = 0,
        options: Mapping[str, Any] | None = None,
        stop: Sequence[str] = (),
        n_alternatives: int | None = None,
    ) -> "Writing":
        """What follows a prompt, piece by piece; errors that can be known now are raised now.

        ``stop``: texts at which it ends, without them; ``n_alternatives``: report log-probabilities, of each
        token and of so many of the most probable.
        """
        asked = [Asked(1, seed, first)]
        return self.streams(run, [prompt], asked, options=options, stop=stop, n_alternatives=n_alternatives)[0]

    def streams(
        self,
        run: str,
        prompts: Sequence[Prompt],
        asked: Sequence[Asked],
        *,
        options: Mapping[str, Any] | None = None,
        stop: Sequence[str] = (),
        n_alternatives: int | None = None,
    ) -> list["Writing"]:
        """Several at once: all of them wait, or none.  ``asked`` says seed and number of each."""
        served = self.run(run)
        if not served.joins or served.spec.medium != "text":
            raise BowerbirdError(f"The model '{run}' does not continue texts: it makes {_made(served)}.")
        chosen = self._options(served, options)
        self._check_count(served, len(prompts), chosen)
        writings = []
        read: dict[Any, dict[str, Tensor]] = {}
        for prompt, one in zip(prompts, asked, strict=True):
            key = prompt if prompt is None or isinstance(prompt, str) else tuple(prompt)
            if key not in read:
                read[key] = self._prompt(served, prompt)
            job = self._text_job(one._replace(given=read[key]), chosen)[1]
            job.n_alternatives = n_alternatives
            writings.append(Writing(served, job, stop))
        self.workers[run].offer([writing.job for writing in writings])
        return writings

    def chat_prompt(self, run: str, messages: list[chat.Message], *, forgets: bool = False) -> list[int]:
        """The tokens of a chat up to the answer; BowerbirdError for a run that did not learn chats.

        ``forgets``: the oldest question and its answer are dropped until the next answer has room.
        """
        served = self.run(run)
        if not served.spec.chat_template:
            raise BowerbirdError(f"The model '{run}' has not learned chats; send the prompt to /v1/completions.")
        self._check_characters({"messages": [message["content"] for message in messages]})
        tokenizer = Tokenizer.from_spec(served.spec)
        bos, eos = (str(tokenizer.core.id_to_token(token)) for token in (tokenizer.bos, tokenizer.eos))
        text = chat.render(messages, served.spec.chat_template, reply=True, bos_token=bos, eos_token=eos)
        tokens = tokenizer.encode_marked(text)[0]
        if forgets and len(messages) > 2 and len(tokens) > getattr(served.spec.target, "context", 0) - ANSWER_ROOM:
            return self.chat_prompt(run, messages[2:], forgets=True)
        self._check_length(served, len(tokens))
        return tokens

    def answer_length(self, run: str, n_prompt: int) -> int:
        """Most tokens of an answer where the client does not say: the rest of the context, and no more than fits."""
        context: Any = getattr(self.run(run).spec.target, "context", ANSWER_AT_MOST)
        return max(1, min(ANSWER_AT_MOST, self.limits.tokens, context - n_prompt))

    def _prompt(self, served: Served, prompt: Prompt) -> dict[str, Tensor]:
        if prompt is None or len(prompt) == 0:
            return {}
        if isinstance(prompt, str):
            self._check_characters({"prompt": prompt})
            tokens = read_given(served.spec, {"prompt": prompt}, 1)[0]["prompt"]
        else:
            vocabulary: Any = getattr(served.spec.target, "vocab_size", 0)
            if not all(0 <= token < vocabulary for token in prompt):
                raise BowerbirdError(f"Tokens of this model must be numbers from 0 to {vocabulary - 1}.")
            tokens = torch.tensor([list(prompt)])
        self._check_length(served, tokens.shape[1])
        return {"prompt": tokens}

    # ------------------------------------------------------------------------------------------------ limits

    def _options(self, served: Served, table: Mapping[str, Any] | None) -> Any:
        """The run's options with these values, within the limits."""
        chosen = options_from(served.model, table)
        self._check_numbers(chosen)
        if getattr(chosen, "n_tokens", 0) is None:
            chosen = dataclasses.replace(chosen, n_tokens=self._until_full(served))
        return chosen

    def _check_numbers(self, options: Any) -> None:
        for name, value in dataclasses.asdict(options).items():
            most = self.limits.tokens if name == "n_tokens" else self.limits.steps
            if isinstance(value, int) and value > most:
                raise BowerbirdError(f"{name} = {value} is more than this server allows: {most}.")

    def _until_full(self, served: Served) -> int | None:
        """None, which is until the context is full, where that is within the limits."""
        context: Any = getattr(served.spec.target, "context", 0)
        return None if context < self.limits.tokens else self.limits.tokens

    def _check_count(self, served: Served, n: int, options: Any) -> None:
        if not 1 <= n <= self.limits.samples:
            raise BowerbirdError(f"n = {n} must be between 1 and {self.limits.samples}, the limit for one request.")
        if n * served.pixels > self.limits.pixels:
            raise BowerbirdError(
                f"{n} pictures of this model have {n * served.pixels} pixels; {self.limits.pixels} are the most of one "
                "request."
            )
        if n * (getattr(options, "beam", None) or 1) > self.limits.samples:
            raise BowerbirdError(f"n times beam must not exceed {self.limits.samples}.")

    def _check_characters(self, given: Mapping[str, Any]) -> None:
        for name, value in given.items():
            texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            if sum(len(text) for text in texts if isinstance(text, str)) > self.limits.characters:
                raise BowerbirdError(f"The {name} is too long; the limit is {self.limits.characters} characters.")

    def _check_length(self, served: Served, n_tokens: int) -> None:
        context: Any = getattr(served.spec.target, "context", 0)
        if n_tokens > context and not getattr(getattr(served.model, "net", None), "recurrent", False):
            raise BowerbirdError(f"The prompt has {n_tokens} tokens; this model reads at most {context}.")


def _made(served: Served) -> str:
    return medium(served.spec.medium).modalities[0]


def _one_by_one(asked: Asked) -> list[Asked]:
    """The same samples, each by itself."""
    return [
        Asked(1, asked.seed, asked.first + i, {name: value[i : i + 1] for name, value in asked.given.items()})
        for i in range(asked.n)
    ]


def _future() -> tuple[asyncio.Future[Any], Any, Any]:
    """A future of this event loop, and what sets its result or its error from another thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(put: Any, value: Any) -> None:
        if not future.done():
            put(value)

    def from_thread(put: Any) -> Any:
        def call(value: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, put, value)

        return call

    return future, from_thread(future.set_result), from_thread(future.set_exception)


async def _awaited(future: Any, jobs: Sequence[Job], seconds: float) -> Any:
    """The result; whoever stops waiting for it takes the jobs back, and so does time."""
    try:
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError:
        raise TooLate(seconds) from None
    finally:
        for job in jobs:
            job.gone = True


class Writing:
    """One text under way: an asynchronous iterator of pieces, the last of which says why it ended."""

    def __init__(self, served: Served, job: TextJob, stop: Sequence[str]):
        self.job, self._loop = job, asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._text = Detokeniser(Tokenizer.from_spec(served.spec), stop)
        self._seconds = round(job.deadline - time.monotonic())
        job.said = lambda *token: self._put(token)
        job.done = self._put
        job.failed = self._put
        prompt = job.asked.given.get("prompt")
        self.n_prompt = 0 if prompt is None else prompt.shape[1]
        """Tokens of the prompt."""

    def _put(self, event: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    @property
    def n_added(self) -> int:
        """Tokens that were added so far."""
        return len(self._text.numbers)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        try:
            while True:
                async with asyncio.timeout(self.job.deadline - time.monotonic()):
                    finish = await self._gather()
                piece = self._text.piece(finish)
                if piece.text or piece.finish:
                    yield piece
                if piece.finish:
                    return
        except TimeoutError:
            raise TooLate(self._seconds) from None
        finally:
            self.job.gone = True

    async def _gather(self) -> str | None:
        """Takes in every token that has come; why the row has ended, if it has."""
        event = await self._events.get()
        while True:
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Continuation):
                return "stop" if event.tokens[-1] in event.ends else "length"
            number, log_prob, alternatives = event
            if self.job.row is None or number not in self.job.row.ends:
                self._text.add(number, log_prob, alternatives)
            if self._text.stopped or self._events.empty():
                return None
            event = self._events.get_nowait()

    async def whole(self) -> Piece:
        """All of it, as one piece."""
        pieces = [piece async for piece in self]
        tokens = tuple(token for piece in pieces for token in piece.tokens)
        return Piece("".join(piece.text for piece in pieces), tokens, pieces[-1].finish)


__all__ = ["Engine", "Piece", "TooLate", "Writing"]
