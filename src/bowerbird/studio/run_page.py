"""The pages of all runs and of one: live curves, samples, diagnosis, and a playground of what the run takes."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from bowerbird import api
from bowerbird.data.writing import png_bytes
from bowerbird.draws import Draws
from bowerbird.eightbit import to_uint8
from bowerbird.errors import BowerbirdError
from bowerbird.media.image.pictures import picture
from bowerbird.models.base import Encodes, Infers, Streams
from bowerbird.studio import playground
from bowerbird.studio.at_once import HELD_OUT, given_of
from bowerbird.studio.children import told
from bowerbird.studio.edit_page import PICTURES, completes
from bowerbird.studio.film import filmed
from bowerbird.studio.language import Gone, Refusal, Words, words_of
from bowerbird.studio.shared import Studio, form_of, of
from bowerbird.studio.shelf import Shelved
from bowerbird.studio.train_page import panels, standing

MOST_SLIDERS = 12
"""Latent dimensions with a slider: those that carry most."""
LONGEST_TEXT = 256
"""Tokens that a text is continued by."""
INERT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
"""For whole pages of ours with their own style, whatever they quote: no script, no request."""
EXPORT_S = 300.0
MOST_COMPARED = 6


async def runs(request: Request) -> Response:
    studio = of(request)
    found = studio.shelf.all()
    shipped = [studio.shelf.get(f"shipped/{name}") for name in studio.shelf.shipped]
    states = {run.key: studio.trainings.state(run)[0] for run in found}
    return studio.page(request, "runs.html", runs=found, shipped=shipped, states=states)


async def run(request: Request) -> Response:
    studio, shown = of(request), of(request).shelf.get(request.path_params["key"])
    takes = await studio.drawing.do(_takes, studio, shown) if shown.ready else None
    exports = await studio.drawing.do(_exports, shown) if shown.ready else []
    return studio.page(
        request, "run.html", run=shown, standing=standing(studio, shown, words_of(request)), takes=takes,
        translates=shown.family == "translation", held_out=HELD_OUT if translates_pictures(shown) else (),
        most=playground.MOST, exports=exports, to_paint=range(PICTURES),
    )  # fmt: skip


async def compare(request: Request) -> Response:
    """Several runs side by side: losses of the same name in one picture, what was measured in one table."""
    studio, words = of(request), words_of(request)
    chosen = [studio.shelf.get(key) for key in request.query_params.getlist("run")[:MOST_COMPARED]]
    if len(chosen) < 2:
        raise Refusal("compare.few")
    measured = {one.key: {row["title"]: row["text"] for row in one.measurements()} for one in chosen}
    return studio.page(
        request, "compare.html", runs=chosen, panels=overlaid(chosen, words), measured=measured,
        titles=list(dict.fromkeys(title for rows in measured.values() for title in rows)),
        standings={one.key: standing(studio, one, words) for one in chosen},
    )  # fmt: skip


def overlaid(runs: list[Shelved], words: Words) -> list[dict[str, Any]]:
    """A panel for each loss, with a line for each run that has it."""
    found: dict[str, dict[str, Any]] = {}
    for i, run in enumerate(runs):
        for panel in panels(run.steps(), words):
            shared = found.setdefault(panel["title"], panel | {"series": [], "colour": 0})
            shared["series"] += [one | {"name": run.key, "colour": i} for one in panel["series"]]
            shared["log"] = shared["log"] or panel["log"]
    return list(found.values())


def translates_pictures(run: Shelved) -> bool:
    """Whether held-out pictures can be shown as they sharpen; known from run.toml alone."""
    return run.family == "translation" and bool(run.settings["data"].get("from"))


def _takes(studio: Studio, run: Shelved) -> dict[str, Any] | None:
    """What a run's playground offers; None where its model cannot be opened."""
    try:
        model = studio.drawing.model(run.folder)
        latents = _active(studio, run, model) if isinstance(model, Encodes) else []
        n_latent = getattr(getattr(model, "config", None), "n_latent", 0)
        return {
            "given": playground.given_controls(run.inputs),
            "options": playground.option_controls(api.options_of(run.folder)),
            "films": run.family in ("flow", "diffusion") and run.medium == "image",
            "latents": latents,
            "n_latent": n_latent,
            "chats": _talks(model),
            "brush": completes(model),
        }
    except BowerbirdError:
        return None


def _exports(run: Shelved) -> list[str]:
    """The formats that can carry its model; none where it cannot be opened."""
    try:
        return api.exports_of(run.folder)
    except BowerbirdError:
        return []


def _talks(model: Any) -> str:
    """ "chat" for models of chats, "text" for those that continue texts, "" for others."""
    spec = model.spec
    if not isinstance(model, Streams) or spec.medium != "text" or "source" in spec.given:
        return ""
    return "chat" if spec.chat_template else "text"


# ------------------------------------------------------------------------------------------------------------ latents


def _active(studio: Studio, run: Shelved, model: Any) -> list[int]:
    """The latent dimensions whose codes differ most between pictures, the most telling first."""
    data = studio.closest.data(run.folder).val
    batch = data.batch(torch.arange(min(128, len(data))))
    with torch.no_grad():
        given = {name: value for name, value in batch["given"].items() if name in model.spec.given}
        codes = model.posterior(batch["x"], given)[0] if isinstance(model, Infers) else model.encode(batch["x"], given)
    return codes.std(0).argsort(descending=True)[:MOST_SLIDERS].tolist()


async def latents(request: Request) -> Response:
    """The picture of one code."""
    studio, shown = of(request), of(request).shelf.get(request.path_params["key"])
    form = await form_of(request)
    png = await studio.drawing.do(_decoded, studio, shown, form)
    token = studio.results.keep_file(png)
    return HTMLResponse(studio.part(request, "decoded.html", token=token))


def _decoded(studio: Studio, run: Shelved, form: dict[str, Any]) -> bytes:
    model: Any = studio.drawing.model(run.folder)
    if not isinstance(model, Encodes):
        raise Refusal("refused.latents")
    z = torch.zeros(1, model.config.n_latent)  # type: ignore[attr-defined]
    for name, value in playground.part(form, "z").items():
        if not name.isdigit() or int(name) >= z.shape[1]:
            raise Refusal("refused.dimension", name=name[:20])
        z[0, int(name)] = playground.number(f"z{name}", value)
    with torch.no_grad():
        given = model.requested(1, {}, Draws(0))  # type: ignore[attr-defined]
        x = model.decode(z.to(model.device), given).cpu()  # type: ignore[attr-defined]
    return png_bytes(picture(to_uint8(x)[0]))


# --------------------------------------------------------------------------------------------------------------- film


async def film(request: Request) -> Response:
    studio, shown = of(request), of(request).shelf.get(request.path_params["key"])
    asked = await given_of(studio, shown, await form_of(request))
    made = await studio.drawing.do(
        filmed, studio.drawing, shown.folder, asked.n, asked.seed, asked.given, asked.options
    )
    result = await studio.drawing.do(studio.results.keep, made.samples, shown, asked.seed)
    made.save(result.folder)
    _, n, _, height, width = made.frames.shape
    part = studio.part(
        request, "film.html", result=result, frames=len(made.frames), side=height, width=n * width, height=height
    )
    return HTMLResponse(part)


# --------------------------------------------------------------------------------------------------------------- text


async def say(request: Request) -> Response:
    """What a run answers to a conversation, or how it goes on with a text, piece by piece."""
    studio, shown = of(request), of(request).shelf.get(request.path_params["key"])
    form = await form_of(request)
    said = form.get("said")
    if not isinstance(said, list) or not said or not all(isinstance(one, str) for one in said):
        raise Refusal("refused.nothing_said")
    pieces = await _pieces(studio, shown, said, len(said))
    first = await anext(pieces, "")  # what is wrong is raised here, while it can still be an error

    async def streamed() -> AsyncIterator[str]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(streamed(), media_type="text/plain; charset=utf-8")


async def _pieces(studio: Studio, run: Shelved, said: list[str], seed: int) -> AsyncIterator[str]:
    if run.spec.chat_template:
        roles = [("user", "assistant")[i % 2] for i in range(len(said))]
        messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
        return await studio.drawing.answered(run, messages, seed)
    return await studio.drawing.continued(run, said[-1], seed, {"n_tokens": LONGEST_TEXT})


# ------------------------------------------------------------------------------------------------------------- reports


async def report(request: Request) -> Response:
    """The run's own report, which is a whole page."""
    shown = of(request).shelf.get(request.path_params["key"])
    path = shown.folder / "report.html"
    if not await asyncio.to_thread(path.is_file):
        raise Gone("gone.report")
    return FileResponse(path, headers={"Content-Security-Policy": INERT})


async def export(request: Request) -> Response:
    """Writes a run's model for another program, which compares it with the original, and offers the file."""
    studio, shown = of(request), of(request).shelf.get(request.path_params["key"])
    to = request.path_params["to"]
    if to not in await studio.drawing.do(_exports, shown):
        raise Gone("gone.format", to=to[:40])
    folder = studio.scratch / "exports" / secrets.token_urlsafe(9)
    folder.mkdir(parents=True)
    written = folder / (f"{shown.name}.html" if to == "html" else f"{shown.name}-{to}")
    async with studio.programs.turns:
        words = ["export", str(shown.folder), "--to", to, "--out", str(written)]
        await told("bowerbird", words, EXPORT_S)
    if not written.exists():
        raise Refusal("refused.silent")
    file = written if written.is_file() else Path(await asyncio.to_thread(_zipped, written))
    return HTMLResponse(studio.part(request, "exported.html", token=folder.name, file=file))


def _zipped(folder: Path) -> str:
    return shutil.make_archive(str(folder), "zip", folder.parent, folder.name)


async def exported(request: Request) -> Response:
    studio, name = of(request), request.path_params["name"]
    folders = studio.scratch / "exports"
    kept = {(file.parent.name, file.name): file for file in folders.glob("*/*") if file.is_file()}
    file = kept.get((request.path_params["token"], name))
    if file is None:
        raise Gone("gone.export")
    return FileResponse(file, filename=file.name, content_disposition_type="attachment")


ROUTES = [
    Route("/export/{to}/{key:path}", export, methods=["POST"]),
    Route("/exports/{token}/{name}", exported),
    Route("/compare", compare),
    Route("/runs", runs),
    Route("/runs/{key:path}", run),
    Route("/latents/{key:path}", latents, methods=["POST"]),
    Route("/film/{key:path}", film, methods=["POST"]),
    Route("/say/{key:path}", say, methods=["POST"]),
    Route("/report/{key:path}", report),
]
