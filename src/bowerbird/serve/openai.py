"""OpenAI's endpoints for the runs that are served: the official client works unchanged.

    POST /v1/images/generations      a prompt that names a class, or is a caption
    POST /v1/images/edits            a picture in, a picture out
    POST /v1/completions             a text goes on; pairs: a text is translated
    POST /v1/chat/completions        runs that learned chats; pairs: the last message is translated
    POST /v1/music/generations       ours: pieces as MIDI, WAV and piano roll

Beside OpenAI's fields, ``given`` and ``options`` say what only these models know (``extra_body`` of the client).
"""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from bowerbird.data.tokenizers import Tokenizer
from bowerbird.generating import Asked, Samples
from bowerbird.provenance.labelling import Labeller
from bowerbird.serve import bodies, words
from bowerbird.serve.detokenising import Piece, Token
from bowerbird.serve.endpoints import (
    Endpoint,
    Refused,
    checked,
    engine_of,
    events,
    parsed,
    read_body,
    require_type,
    together,
    unless_gone,
)
from bowerbird.serve.limits import Unknown
from bowerbird.serve.served import Served
from bowerbird.serve.service import Engine, Prompt, Writing
from bowerbird.spec import Tensors

USUAL_TOKENS = 16
"""``max_tokens`` of completions unless a client says otherwise, as at OpenAI."""


def now() -> int:
    return int(time.time())


def any_seed() -> int:
    """For clients that name none; the answer says which it was."""
    return secrets.randbelow(2**31)


def chosen_run(engine: Engine, name: str | None, fits: Callable[[Served], bool]) -> Served:
    """The run that a request names, or the only one that fits."""
    if name is not None:
        return engine.run(name)
    fitting = [run for run in engine.runs.values() if fits(run)]
    if not fitting:
        raise Unknown("No model here can do this.")
    if len(fitting) > 1:
        raise Unknown(f"Say which model: {', '.join(run.name for run in fitting)}.")
    return fitting[0]


def require_medium(run: Served, medium: str, instead: str) -> None:
    if run.spec.medium != medium:
        raise Refused(400, f"The model '{run.name}' makes {run.spec.medium}; {instead}.", param="model")


# ------------------------------------------------------------------------------------------------------- models


def model_entry(run: Served) -> dict[str, Any]:
    return {"id": run.name, "object": "model", "created": int(run.loaded_at), "owned_by": "bowerbird"}


def described(run: Served) -> dict[str, Any]:
    """One model, for OpenAI's clients, KServe's (name, ready) and TensorFlow Serving's (model_version_status)."""
    version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    return model_entry(run) | {
        "name": run.name,
        "ready": True,
        "model_version_status": [version],
        "medium": run.spec.medium,
        "given": sorted(words.taken(run.spec)),
        "origin": dict(run.labeller.origin),
    }


async def models(request: Request) -> Response:
    runs = engine_of(request).runs.values()
    return JSONResponse(
        {"object": "list", "data": [model_entry(run) for run in runs], "models": [run.name for run in runs]}
    )


async def model(request: Request) -> Response:
    return JSONResponse(described(engine_of(request).run(request.path_params["name"])))


# ------------------------------------------------------------------------------------------------------- pictures


async def images(request: Request) -> Response:
    """Pictures from a prompt, or from what is given."""
    asked, engine = await parsed(request, bodies.ImageRequest), engine_of(request)
    run = chosen_run(engine, asked.model, lambda run: run.spec.medium == "image" and not words.picture_name(run))
    require_medium(run, "image", "this address is for pictures")
    if words.picture_name(run) and not asked.given:
        raise Refused(400, f"The model '{run.name}' makes pictures from pictures; send one to /v1/images/edits.")
    given = words.from_prompt(run, asked.prompt)
    answer = await _pictures(request, run, asked, words.agreed(given, words.from_json(run, asked.given, engine.limits)))
    if given:
        for entry in answer["data"]:
            entry["revised_prompt"] = " ".join(f"{name}={value}" for name, value in given.items())
    return JSONResponse(answer)


async def edits(request: Request) -> Response:
    """Pictures from a picture, as forms bring it."""
    engine = engine_of(request)
    require_type(request, "multipart/form-data")
    fields, files = await _form(request, await read_body(request, engine.limits))
    asked = checked(bodies.ImageRequest, fields)
    run = chosen_run(engine, asked.model, lambda run: run.spec.medium == "image" and bool(words.picture_name(run)))
    field: Any = run.spec.given.get(words.picture_name(run))
    if field is None:
        raise Refused(
            400, f"The model '{run.name}' draws without a picture; use /v1/images/generations.", param="model"
        )
    pictures = files.get("image", [])
    if not pictures:
        raise Refused(400, "Send the picture to edit as the file 'image'.", param="image")
    given: dict[str, Any] = {words.picture_name(run): [await _decoded(data, field, engine) for data in pictures]}
    if "mask" in files:
        given["mask"] = [await _decoded(data, _mask_field(run), engine) for data in files["mask"]]
    said = words.from_prompt(run, asked.prompt) if _says(run) else {}
    given |= words.agreed(said, words.from_json(run, asked.given, engine.limits))
    answer = await _pictures(request, run, asked, given)
    if asked.prompt and not _says(run):
        answer["notes"] = ["The prompt was not used: this model edits by the picture alone."]
    return JSONResponse(answer)


def _says(run: Served) -> bool:
    """Whether a prompt can say anything.  OpenAI's clients must send one, so that it is not refused where it cannot."""
    return any(not isinstance(field, Tensors) for field in run.spec.given.values())


def _mask_field(run: Served) -> Tensors:
    field = run.spec.given.get("mask")
    if not isinstance(field, Tensors):
        raise Refused(400, f"The model '{run.name}' edits whole pictures; leave the mask out.", param="mask")
    return field


async def _decoded(data: bytes, field: Tensors, engine: Engine) -> Any:
    return await asyncio.to_thread(words.picture, data, field, engine.limits)


async def _form(request: Request, body: bytes) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """Fields and files of a form; ``options[steps]=5`` is an entry of a table, numbers are JSON."""
    sent = False

    async def replay() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    fields: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    try:
        async with Request(request.scope, replay).form(max_files=64, max_fields=128) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    files.setdefault(name.removesuffix("[]"), []).append(await value.read())
                else:
                    _put(fields, name, value)
    except (AssertionError, ValueError, KeyError) as error:
        raise Refused(400, f"The form cannot be read: {error or 'it is broken'}.") from None
    return fields, files


def _put(fields: dict[str, Any], name: str, text: str) -> None:
    outer, bracket, inner = name.partition("[")
    if bracket and inner.endswith("]"):
        table = fields.setdefault(outer, {})
        if not isinstance(table, dict):
            raise Refused(400, f"'{outer}' is both a value and a table.", param=outer)
        table[inner[:-1]] = _number(text)
    else:
        fields[name] = text if name in ("prompt", "model", "size", "user") else _number(text)


def _number(text: str) -> Any:
    """A number or a table of JSON; everything else is text."""
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


async def _pictures(
    request: Request, run: Served, asked: bodies.ImageRequest, given: Mapping[str, Any]
) -> dict[str, Any]:
    height, width = run.spec.target.shape[-2:]  # type: ignore[union-attr]
    if asked.size not in (None, "auto", f"{width}x{height}"):
        raise Refused(400, f"The model '{run.name}' makes pictures of {width}x{height}; leave size out.", param="size")
    seed = any_seed() if asked.seed is None else asked.seed
    n = None if any(len(value) > 1 for value in given.values() if isinstance(value, list)) else asked.n or 1
    files = await _files(request, run, n, seed, given, asked.options)
    encoded = [base64.b64encode(one[".png"]).decode() for one in files]
    key, prefix = ("url", "data:image/png;base64,") if asked.response_format == "url" else ("b64_json", "")
    data: list[dict[str, Any]] = [{key: prefix + text} for text in encoded]
    return {"created": now(), "data": data, "output_format": "png", "size": f"{width}x{height}", "seed": seed}


async def _files(
    request: Request, run: Served, n: int | None, seed: int, given: Mapping[str, Any], options: Mapping[str, Any]
) -> list[dict[str, bytes]]:
    """The labelled files of samples."""

    async def work() -> list[dict[str, bytes]]:
        samples: Samples = await engine_of(request).submit(run.name, n, seed=seed, given=given, options=options)
        return await asyncio.to_thread(samples.files)

    return await unless_gone(request, work())


# ------------------------------------------------------------------------------------------------------- music, speech


async def music(request: Request) -> Response:
    """Pieces of music; each of the labelled files in base64, by its suffix."""
    asked, engine = await parsed(request, bodies.MusicRequest), engine_of(request)
    run = chosen_run(engine, asked.model, lambda run: run.spec.medium == "music")
    require_medium(run, "music", "this address is for music")
    seed = any_seed() if asked.seed is None else asked.seed
    given = words.from_json(run, asked.given, engine.limits)
    files = await _files(request, run, asked.n or 1, seed, given, asked.options)
    wanted = asked.response_format or "mid"
    data: list[dict[str, Any]] = []
    for one in files:
        encoded = {suffix.lstrip("."): base64.b64encode(content).decode() for suffix, content in one.items()}
        if wanted == "all":
            data.append({"files": encoded})
        else:
            data.append({"b64_json": encoded[wanted], "format": wanted})
    return JSONResponse({"created": now(), "data": data, "seed": seed})


async def speech(request: Request) -> Response:
    """No family of speech exists yet, so no run can answer."""
    asked = await parsed(request, bodies.SpeechRequest)
    raise Refused(404, f"No speech run is served, and '{asked.model}' does not speak.", code="model_not_found")


# ------------------------------------------------------------------------------------------------------- text


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


# ------------------------------------------------------------------------------------------------------- OpenAPI


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": kind.model_json_schema(ref_template="#/components/schemas/{model}")}


def edit_body() -> dict[str, Any]:
    """A form: the fields of ``ImageRequest`` and the picture."""
    file = {"type": "string", "format": "binary"}
    table: dict[str, Any] = {
        "type": "object",
        "properties": {
            "image": file,
            "model": {"type": "string"},
            "prompt": {"type": "string"},
            "n": {"type": "integer", "minimum": 1},
            "seed": {"type": "integer"},
            "size": {"type": "string"},
            "response_format": {"enum": ["b64_json", "url"]},
        },
        "required": ["image"],
    }
    return {"multipart/form-data": table}


def answering(**properties: str) -> dict[str, Any]:
    """An object with at least these properties."""
    return {
        "type": "object",
        "required": list(properties),
        "properties": {name: {"type": kind} for name, kind in properties.items()},
    }


TEXTS = answering(id="string", object="string", created="integer", model="string", choices="array", usage="object")
PICTURES = answering(created="integer", data="array", size="string", seed="integer")

LIST = answering(object="string", data="array")

ENDPOINTS = [
    Endpoint("GET", "/v1/models", models, "The models that are served", answer=LIST),
    Endpoint(
        "GET", "/v1/models/{name}", model, "One of them",
        answer=answering(id="string", object="string", ready="boolean"),
    ),
    Endpoint(
        "POST", "/v1/images/generations", images, "Draws pictures", json_body(bodies.ImageRequest), answer=PICTURES
    ),
    Endpoint("POST", "/v1/images/edits", edits, "Makes pictures from a picture", edit_body(), answer=PICTURES),
    Endpoint(
        "POST", "/v1/completions", completions, "Goes on with a text", json_body(bodies.CompletionRequest),
        answer=TEXTS, streams=True,
    ),
    Endpoint(
        "POST", "/v1/chat/completions", chats, "Answers in a chat", json_body(bodies.ChatRequest),
        answer=TEXTS, streams=True,
    ),
    Endpoint(
        "POST", "/v1/music/generations", music, "Composes", json_body(bodies.MusicRequest),
        answer=answering(created="integer", data="array", seed="integer"),
    ),
    Endpoint("POST", "/v1/audio/speech", speech, "Refused: no run speaks yet", json_body(bodies.SpeechRequest)),
]  # fmt: skip
