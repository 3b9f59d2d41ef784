"""The first screen: what shipped runs make in seconds, and the way in to everything else."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from bowerbird import api
from bowerbird.data.writing import png_bytes
from bowerbird.media.image.pictures import picture
from bowerbird.spec import Tensors
from bowerbird.studio import playground
from bowerbird.studio.language import Gone
from bowerbird.studio.results import Result
from bowerbird.studio.shared import Studio, form_of, of
from bowerbird.studio.shelf import Shelved

CARDS = ("poem", "chorale", "digits", "emoji-text", "emoji-3d")
MOST_VERIFIED = 4
HELD_OUT = (39, 28, 34, 105, 83, 49, 5, 8, 91, 111, 118, 35)
"""Test emoji to begin with: a panda, a tiger, an octopus …"""


@dataclass(frozen=True)
class Card:
    """A shipped run on the first screen."""

    name: str
    run: Shelved
    choices: tuple[str, ...] = ()


async def home(request: Request) -> Response:
    studio = of(request)
    found = [(name, studio.shelf.at_once(name)) for name in CARDS]
    cards = [Card(name, run, _classes(run)) for name, run in found if run]
    return studio.page(request, "home.html", cards=cards, held_out=HELD_OUT, runs=studio.shelf.all()[:6])


def _classes(run: Shelved) -> tuple[str, ...]:
    field = run.inputs.get("label") or run.inputs.get("style")
    return getattr(field, "names", ())


async def make(request: Request) -> Response:
    """Makes samples of a run as a form asks, and shows them."""
    studio, run = of(request), of(request).shelf.get(request.path_params["key"])
    form = await form_of(request)
    glimpse = form.get("view") == "sharpening"  # what a training has come to, at the size of a stamp
    result = await made(studio, run, form, labelled=not glimpse)
    return HTMLResponse(studio.part(request, "sharpening.html" if glimpse else "result.html", result=result))


async def made(studio: Studio, run: Shelved, form: Mapping[str, Any], *, labelled: bool = True) -> Result:
    """The result of a form's values."""
    asked = await given_of(studio, run, form)
    samples = await studio.drawing.submit(run, asked.n, asked.seed, asked.given, asked.options)
    return await studio.drawing.do(studio.results.keep, samples, run, asked.seed, labelled)


async def given_of(studio: Studio, run: Shelved, form: Mapping[str, Any]) -> playground.Asked:
    """What a form asks for, with pictures in place of their names."""
    options = await studio.drawing.do(api.options_of, run.folder)
    asked = playground.asked(_with_comma(run, form), run.spec, options)
    given = {
        name: await source(studio, run, value) if isinstance(run.spec.given.get(name), Tensors) else value
        for name, value in asked.given.items()
    }
    several = any(isinstance(value, list) for value in given.values())
    return replace(asked, given=given, n=None if several else asked.n)


def _with_comma(run: Shelved, form: Mapping[str, Any]) -> Mapping[str, Any]:
    """Lines of Tang poems end with a mark, which nobody types."""
    line = str(form.get("given.prompt", "")).strip()
    bare = run.source.startswith("tang") and line and line[-1] not in "，。"
    return {**form, "given.prompt": line + "，"} if bare else form


async def source(studio: Studio, run: Shelved, value: Any) -> Any:
    """A picture to start from: ``upload:TOKEN``, or ``held-out:3``, or several with commas between them."""
    found = [await _one_source(studio, run, one) for one in str(value).split(",")]
    return found[0] if len(found) == 1 else found


async def _one_source(studio: Studio, run: Shelved, name: str) -> Any:
    kind, _, which = name.partition(":")
    if kind == "upload":
        import numpy as np
        from PIL import Image

        return np.asarray(Image.open(studio.pictures.path(which)).convert("RGB"))
    if kind == "held-out" and which.isdigit():
        return await studio.drawing.do(held_out, studio, run, int(which), "source")
    raise Gone("gone.picture", name=name[:40])


def held_out(studio: Studio, run: Shelved, number: int, which: str) -> Any:
    """A test picture (h, w, c), or the true one that belongs to it; in the thread of models."""
    test = studio.closest.data(run.folder).test
    images = test.given["source"] if which == "source" else test.images
    return images[number % len(images)].permute(1, 2, 0).numpy()


async def held_out_picture(request: Request) -> Response:
    studio, run = of(request), of(request).shelf.get(request.path_params["key"])
    number, which = int(request.path_params["number"]), request.path_params["which"]
    import torch

    pixels = await studio.drawing.do(held_out, studio, run, number, which)
    png = png_bytes(picture(torch.from_numpy(pixels).permute(2, 0, 1)))
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


async def closest(request: Request) -> Response:
    """The training picture nearest to a result's picture."""
    studio, result = of(request), of(request).results.get(request.path_params["token"])
    if result.closest is None:
        result.closest = await studio.drawing.do(
            studio.closest.written, result.run.folder, result.samples.x, result.folder
        )
    number = int(request.path_params["number"])
    if number >= len(result.closest):
        raise Gone("gone.number")
    return FileResponse(result.closest[number], headers={"Cache-Control": "private, max-age=3600"})


async def upload(request: Request) -> Response:
    token = await of(request).pictures.keep(await request.body())
    return JSONResponse({"name": f"upload:{token}", "url": f"/pictures/{token}"})


async def uploaded(request: Request) -> Response:
    return FileResponse(of(request).pictures.path(request.path_params["token"]))


async def verify(request: Request) -> Response:
    """What the labels of a result's files say, read back from the files."""
    studio, result = of(request), of(request).results.get(request.path_params["token"])
    verdicts = [
        (name, await studio.drawing.do(partial(api.verify, result.folder / name, runs=[result.run.folder])))
        for name in result.verifiable()[:MOST_VERIFIED]
    ]
    return HTMLResponse(studio.part(request, "verdicts.html", verdicts=verdicts))


ROUTES = [
    Route("/verify/{token}", verify, methods=["POST"]),
    Route("/", home),
    Route("/make/{key:path}", make, methods=["POST"]),
    Route("/held-out/{which}/{number:int}/{key:path}", held_out_picture),
    Route("/closest/{token}/{number:int}", closest),
    Route("/pictures", upload, methods=["POST"]),
    Route("/pictures/{token}", uploaded),
]
