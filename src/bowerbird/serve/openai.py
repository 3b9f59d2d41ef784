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
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bowerbird.editing.inpaint import Inpaint
from bowerbird.generating import Samples
from bowerbird.serve import bodies, texts, words
from bowerbird.serve.endpoints import (
    Endpoint,
    Refused,
    answering,
    any_seed,
    checked,
    engine_of,
    json_body,
    now,
    parsed,
    read_body,
    require_medium,
    require_type,
    unless_gone,
)
from bowerbird.serve.limits import Unknown
from bowerbird.serve.served import Served
from bowerbird.serve.service import Engine
from bowerbird.spec import Tensors


def chosen_run(engine: Engine, name: str | None, fits: Callable[[Served], bool]) -> Served:
    """The run that a request names, or the only one that fits."""
    if name is not None:
        return engine.run(name)
    fitting = [run for run in engine.runs.values() if fits(run)]
    if not fitting:
        raise Unknown("No model here can do this.")
    if len(fitting) > 1:
        raise Unknown(f"Name a model: {', '.join(run.name for run in fitting)}.")
    return fitting[0]


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
        raise Refused(400, f"The model '{run.name}' needs an input picture; send one to /v1/images/edits.")
    given = words.from_prompt(run, asked.prompt)
    values = await words.aside(run, lambda: words.from_json(run, asked.given, engine.limits))
    answer = await _pictures(request, run, asked, words.agreed(given, values))
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
    run = chosen_run(
        engine,
        asked.model,
        lambda run: not Inpaint.lacks(run.model) if "mask" in files else bool(words.picture_name(run)),
    )
    pictures = files.get("image", [])
    field: Any = run.spec.given.get(words.picture_name(run))
    if field is None and Inpaint.lacks(run.model):
        raise Refused(400, f"The model '{run.name}' takes no input picture; use /v1/images/generations.", param="model")
    if not pictures:
        raise Refused(400, "Send the picture to edit as the file 'image'.", param="image")
    if field is None:
        return await _completed(request, run, asked, pictures, files.get("mask", pictures))
    given: dict[str, Any] = {words.picture_name(run): [await _decoded(data, field, engine) for data in pictures]}
    if "mask" in files:
        given["mask"] = [await _decoded(data, _mask_field(run), engine) for data in files["mask"]]
    said = words.from_prompt(run, asked.prompt) if _says(run) else {}
    values = await words.aside(run, lambda: words.from_json(run, asked.given, engine.limits))
    given |= words.agreed(said, values)
    answer = await _pictures(request, run, asked, given)
    if asked.prompt and not _says(run):
        answer["notes"] = [NOT_USED]
    return JSONResponse(answer)


async def _completed(
    request: Request, run: Served, asked: bodies.ImageRequest, pictures: list[bytes], masks: list[bytes]
) -> Response:
    """Pictures whose transparent or masked part was made anew, by a model that no one trained for it."""
    engine, field = engine_of(request), run.spec.target
    if len(masks) != 1 or not isinstance(field, Tensors):
        raise Refused(400, "Send one picture, or one mask for all.", param="mask")
    source = [await _decoded(data, field, engine) for data in pictures]
    mask = await asyncio.to_thread(words.mask, masks[0], pictures[0], field, engine.limits)
    said = words.from_prompt(run, asked.prompt) if asked.prompt and _says(run) else {}
    given = words.agreed(said, words.from_json(run, asked.given, engine.limits)) | {"source": source, "mask": mask}

    async def work(n: int | None, seed: int) -> list[dict[str, bytes]]:
        edited = await engine.edit(run.name, "inpaint", given, n=n, seed=seed, options=asked.options)
        return await asyncio.to_thread(edited.files)

    answer = await _answer(request, run, asked, given, work)
    if asked.prompt and not _says(run):
        answer["notes"] = [NOT_USED]
    return JSONResponse(answer)


NOT_USED = "The prompt was not used: this model uses only the picture."


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
    async def work(n: int | None, seed: int) -> list[dict[str, bytes]]:
        samples: Samples = await engine_of(request).submit(run.name, n, seed=seed, given=given, options=asked.options)
        return await asyncio.to_thread(samples.files)

    return await _answer(request, run, asked, given, work)


async def _answer(
    request: Request,
    run: Served,
    asked: bodies.ImageRequest,
    given: Mapping[str, Any],
    work: Callable[[int | None, int], Coroutine[Any, Any, list[dict[str, bytes]]]],
) -> dict[str, Any]:
    """The pictures that ``work`` makes of a number (None: one for each of several inputs) and a seed."""
    height, width = run.spec.target.shape[-2:]  # type: ignore[union-attr]
    if asked.size not in (None, "auto", f"{width}x{height}"):
        raise Refused(400, f"The model '{run.name}' makes pictures of {width}x{height}; leave size out.", param="size")
    seed = any_seed() if asked.seed is None else asked.seed
    n = None if any(len(value) > 1 for value in given.values() if isinstance(value, list)) else asked.n or 1
    files = await unless_gone(request, work(n, seed))
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
    raise Refused(404, f"No speech run is served: '{asked.model}' does not make speech.", code="model_not_found")


# ------------------------------------------------------------------------------------------------------- OpenAPI


def edit_body() -> dict[str, Any]:
    """A form: the fields of ``ImageRequest`` and the picture."""
    file = {"type": "string", "format": "binary"}
    table: dict[str, Any] = {
        "type": "object",
        "properties": {
            "image": file,
            "mask": file,
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


TEXTS = answering(id="string", object="string", created="integer", model="string", choices="array", usage="object")
PICTURES = answering(created="integer", data="array", size="string", seed="integer")

LIST = answering(object="string", data="array")

ENDPOINTS = [
    Endpoint("GET", "/v1/models", models, "The models that are served", answer=LIST),
    Endpoint(
        "GET", "/v1/models/{name}", model, "One of these models",
        answer=answering(id="string", object="string", ready="boolean"),
    ),
    Endpoint(
        "POST", "/v1/images/generations", images, "Draws pictures", json_body(bodies.ImageRequest), answer=PICTURES
    ),
    Endpoint("POST", "/v1/images/edits", edits, "Makes pictures from a picture", edit_body(), answer=PICTURES),
    Endpoint(
        "POST", "/v1/completions", texts.completions, "Continues a text", json_body(bodies.CompletionRequest),
        answer=TEXTS, streams=True,
    ),
    Endpoint(
        "POST", "/v1/chat/completions", texts.chats, "Answers in a chat", json_body(bodies.ChatRequest),
        answer=TEXTS, streams=True,
    ),
    Endpoint(
        "POST", "/v1/music/generations", music, "Composes", json_body(bodies.MusicRequest),
        answer=answering(created="integer", data="array", seed="integer"),
    ),
    Endpoint("POST", "/v1/audio/speech", speech, "Refused: no speech runs exist yet", json_body(bodies.SpeechRequest)),
]  # fmt: skip
