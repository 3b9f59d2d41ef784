"""Texts in OpenAI's two forms, completions and chats: whole or as they come, and translations of runs of pairs."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from bowerbird.data.tokenizers import Tokenizer
from bowerbird.generating import Asked
from bowerbird.provenance.labelling import Labeller
from bowerbird.serve import bodies
from bowerbird.serve.detokenising import Piece, Token
from bowerbird.serve.endpoints import (
    Refused,
    any_seed,
    engine_of,
    events,
    now,
    parsed,
    require_medium,
    together,
    unless_gone,
)
from bowerbird.serve.served import Served
from bowerbird.serve.service import Engine, Prompt, Writing

USUAL_TOKENS = 16
"""``max_tokens`` of completions unless a client says otherwise, as at OpenAI."""


class Choices:
    """The texts that one request asks for, and how they are told in one of OpenAI's two forms."""

    def __init__(self, engine: Engine, run: Served, asked: bodies.TextRequest, prompts: list[Prompt], most: int):
        self.run, self.asked, self.is_chat = run, asked, isinstance(asked, bodies.ChatRequest)
        self.seed = any_seed() if asked.seed is None else asked.seed
        n = asked.n or 1
        stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        self.writings: list[Writing] = engine.streams(
            run.name,
            [prompt for prompt in prompts for _ in range(n)],
            [Asked(1, self.seed, i) for _ in prompts for i in range(n)],
            options=text_options(asked, most),
            stop=stop,
            n_alternatives=n_alternatives(asked),
        )
        self.said = [""] * len(self.writings)
        self.n_prompt = sum(writing.n_prompt for writing in self.writings[::n])
        self.id = ("chatcmpl-" if self.is_chat else "cmpl-") + secrets.token_hex(12)
        self.created = now()

    async def whole(self, echo: list[str] | None = None) -> dict[str, Any]:
        """The answer as one object."""
        pieces = await together([writing.whole() for writing in self.writings])
        choices = [self._choice(i, piece, echo[i] if echo else "") for i, piece in enumerate(pieces)]
        return self._object("chat.completion" if self.is_chat else "text_completion", choices) | {"usage": self.usage}

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The answer as it comes, piece by piece."""
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        if self.is_chat:
            for i in range(len(self.writings)):
                yield self._object(kind, [self._delta(i, {"role": "assistant", "content": ""}, None, None)])
        async for i, piece in merged(self.writings):
            self.said[i] += piece.text
            yield self._object(kind, [self._part(i, piece)])
        if self.asked.stream_options and self.asked.stream_options.include_usage:
            yield self._object(kind, []) | {"usage": self.usage}

    @property
    def usage(self) -> dict[str, int]:
        return usage(self.n_prompt, sum(writing.n_added for writing in self.writings))

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        about = {"id": self.id, "object": kind, "created": self.created, "model": self.run.name}
        return about | {"choices": choices, "seed": self.seed}

    def _choice(self, i: int, piece: Piece, echo: str) -> dict[str, Any]:
        text = echo + piece.text
        return self._form(i, piece, {"role": "assistant", "content": text}, text) | label(self.run.labeller, piece.text)

    def _part(self, i: int, piece: Piece) -> dict[str, Any]:
        about = self._form(i, piece, None, piece.text)
        if self.is_chat:
            about = self._delta(i, {"content": piece.text}, piece.finish, about.get("logprobs"))
        return about | (label(self.run.labeller, self.said[i]) if piece.finish else {})

    def _form(self, i: int, piece: Piece, message: dict[str, Any] | None, text: str) -> dict[str, Any]:
        logprobs = None
        if n_alternatives(self.asked) is not None:
            logprobs = chat_log_probs(piece.tokens) if self.is_chat else completion_log_probs(piece.tokens)
        body: dict[str, Any] = {"message": message} if self.is_chat else {"text": text}
        return body | {"index": i, "finish_reason": piece.finish, "logprobs": logprobs}

    @staticmethod
    def _delta(i: int, delta: dict[str, Any], finish: str | None, logprobs: Any) -> dict[str, Any]:
        return {"index": i, "delta": delta, "finish_reason": finish, "logprobs": logprobs}


def label(labeller: Labeller, text: str) -> dict[str, Any]:
    """The label of a text that no file holds (docs/provenance)."""
    return {"provenance": labeller.record(text.encode())}


def usage(n_prompt: int, n_added: int) -> dict[str, int]:
    return {"prompt_tokens": n_prompt, "completion_tokens": n_added, "total_tokens": n_prompt + n_added}


def text_options(asked: bodies.TextRequest, most: int | None) -> dict[str, Any]:
    """The run's options: those that OpenAI has names for, and the others under their own."""
    named: dict[str, Any] = {"temperature": asked.temperature, "top_p": asked.top_p, "n_tokens": most}
    said = {name: value for name, value in named.items() if value is not None}
    if twice := said.keys() & asked.options.keys():
        raise Refused(400, f"'{sorted(twice)[0]}' is set twice: leave it out of options.", param="options")
    return said | asked.options


def n_alternatives(asked: bodies.TextRequest) -> int | None:
    if isinstance(asked, bodies.ChatRequest):
        return (asked.top_logprobs or 0) if asked.logprobs else None
    return asked.logprobs if isinstance(asked, bodies.CompletionRequest) else None


def completion_log_probs(tokens: tuple[Token, ...]) -> dict[str, Any]:
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.log_prob for token in tokens],
        "top_logprobs": [dict(token.alternatives) for token in tokens],
        "text_offset": [token.at for token in tokens],
    }


def chat_log_probs(tokens: tuple[Token, ...]) -> dict[str, Any]:
    def entry(text: str, log_prob: float | None) -> dict[str, Any]:
        return {"token": text, "logprob": log_prob, "bytes": list(text.encode())}

    return {
        "content": [
            entry(token.text, token.log_prob) | {"top_logprobs": [entry(*other) for other in token.alternatives]}
            for token in tokens
        ],
        "refusal": None,
    }


async def merged(writings: list[Writing]) -> AsyncIterator[tuple[int, Piece]]:
    """The pieces of all texts, with the number of their text, as they come."""
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def read(i: int, writing: Writing) -> None:
        try:
            async for piece in writing:
                queue.put_nowait((i, piece))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    tasks = [asyncio.ensure_future(read(i, writing)) for i, writing in enumerate(writings)]
    left = len(tasks)
    try:
        while left:
            event = await queue.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                left -= 1
            else:
                yield event
    finally:
        for task, writing in zip(tasks, writings, strict=True):
            task.cancel()
            writing.job.gone = True


async def completions(request: Request) -> Response:
    """Goes on with a text, or translates it."""
    asked, engine = await parsed(request, bodies.CompletionRequest), engine_of(request)
    run = engine.run(asked.model)
    require_medium(run, "text", "this address is for text")
    prompts = _prompts(asked.prompt)
    if len(prompts) * (asked.n or 1) > engine.limits.samples:
        raise Refused(400, f"These are more than {engine.limits.samples} texts, the most of one request.", param="n")
    if not run.joins:
        return JSONResponse(await unless_gone(request, _translated(engine, run, asked, prompts)))
    if asked.echo and asked.logprobs is not None:
        raise Refused(400, "echo with logprobs is not supported; leave one of them out.", param="echo")
    choices = Choices(engine, run, asked, prompts, asked.max_tokens or USUAL_TOKENS)
    if asked.stream:
        return _streamed(choices, engine)
    echo = [_text(run, prompt) for prompt in prompts for _ in range(asked.n or 1)] if asked.echo else None
    return JSONResponse(await unless_gone(request, choices.whole(echo)))


def _prompts(prompt: Any) -> list[Prompt]:
    """One prompt for each text that is to go on."""
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        return [prompt]
    if not prompt:
        raise Refused(400, "The prompt is an empty list.", param="prompt")
    return list(prompt)


def _text(run: Served, prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else Tokenizer.from_spec(run.spec).decode(prompt or ())


async def chats(request: Request) -> Response:
    """Answers the last message of a chat."""
    asked, engine = await parsed(request, bodies.ChatRequest), engine_of(request)
    run = engine.run(asked.model)
    require_medium(run, "text", "this address is for chats")
    messages = [{"role": message.role, "content": _content(message)} for message in asked.messages]
    if not run.joins:
        return JSONResponse(await unless_gone(request, _translated(engine, run, asked, [messages[-1]["content"]])))
    prompt = engine.chat_prompt(run.name, messages)
    most = asked.max_completion_tokens or asked.max_tokens or engine.answer_length(run.name, len(prompt))
    choices = Choices(engine, run, asked, [prompt], most)
    if asked.stream:
        return _streamed(choices, engine)
    return JSONResponse(await unless_gone(request, choices.whole()))


def _content(message: bodies.Message) -> str:
    content = message.content
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _streamed(choices: Choices, engine: Engine) -> Response:
    return StreamingResponse(
        events(choices.chunks(), engine), media_type="text/event-stream", headers={"cache-control": "no-cache"}
    )


async def _translated(engine: Engine, run: Served, asked: bodies.TextRequest, prompts: list[Any]) -> dict[str, Any]:
    """The answers of a run of pairs, which are made as a whole."""
    if asked.stream or asked.stop or n_alternatives(asked) is not None:
        raise Refused(400, f"The model '{run.name}' translates whole texts: leave stream, stop and logprobs out.")
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise Refused(400, f"The model '{run.name}' takes texts, not tokens.", param="prompt")
    sources = [prompt for prompt in prompts for _ in range(asked.n or 1)]
    is_chat = isinstance(asked, bodies.ChatRequest)
    options = text_options(asked, getattr(asked, "max_completion_tokens", None) or asked.max_tokens)
    seed = any_seed() if asked.seed is None else asked.seed
    samples = await engine.submit(run.name, seed=seed, given={"source": sources}, options=options)
    pad: Any = getattr(run.spec.target, "pad", 0)
    made = samples.x[:, 1:]  # behind bos
    n_prompt, n_added = int((samples.given["source"] != pad).sum()), int((made != pad).sum())
    ended = (made == getattr(run.spec.target, "eos", pad)).any(1).tolist()
    choices = [
        ({"message": {"role": "assistant", "content": text}} if is_chat else {"text": text})
        | {"index": i, "finish_reason": "stop" if ended[i] else "length", "logprobs": None}
        | label(run.labeller, text)
        for i, text in enumerate(samples)
    ]
    kind, prefix = ("chat.completion", "chatcmpl-") if is_chat else ("text_completion", "cmpl-")
    about = {"id": prefix + secrets.token_hex(12), "object": kind, "created": now(), "model": run.name, "seed": seed}
    return about | {"choices": choices, "usage": usage(n_prompt, n_added)}
