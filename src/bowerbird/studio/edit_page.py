"""The brush: what is painted over in a picture is made anew, by any run whose model can complete pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request as Asked
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bowerbird import api
from bowerbird.editing import Edited, Request, actions_of, edit
from bowerbird.editing.inpaint import Inpaint
from bowerbird.models.base import GenerativeModel
from bowerbird.spec import Tensors
from bowerbird.studio import playground
from bowerbird.studio.at_once import held_out
from bowerbird.studio.language import Gone, Refusal
from bowerbird.studio.shared import Studio, form_of, of
from bowerbird.studio.shelf import Shelved

PICTURES = 12
"""Pictures that were held out and can be painted over."""
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Of Pillow, by channels."""
PAINTED = 128
"""Brightness above which a pixel of the mask is to be made anew."""


def completes(model: GenerativeModel) -> bool:
    """Whether the brush suits a model: it can inpaint, and is not told of other pictures."""
    pictures_given = any(isinstance(field, Tensors) for field in model.spec.given.values())
    return "inpaint" in actions_of(model) and not pictures_given


async def inpaint(request: Asked) -> Response:
    """Makes anew what was painted over."""
    studio, run = of(request), of(request).shelf.get(request.path_params["key"])
    form = await form_of(request)
    seed = playground.seed_of(form)
    edited = await studio.drawing.do(_inpainted, studio, run, form, seed)
    result = await studio.drawing.do(studio.results.keep, edited, run, seed)
    return HTMLResponse(studio.part(request, "result.html", result=result))


def _inpainted(studio: Studio, run: Shelved, form: Mapping[str, Any], seed: int) -> Edited:
    model = studio.drawing.model(run.folder)
    if not completes(model):
        raise Refusal("refused.inpaint")
    target: Any = model.spec.target
    words = {name: value for name, value in playground.part(form, "given").items() if value != ""} | {
        "source": _source(studio, run, str(form.get("source")), target.shape[0]),
        "mask": _painted(studio, str(form.get("mask")), target.shape[:0:-1]),
    }
    return edit(Inpaint(), Request(model, words, 1, seed, {"generated_by": str(run.folder)}, api.labeller(run.folder)))


def _source(studio: Studio, run: Shelved, name: str, channels: int) -> np.ndarray:
    """The pixels (h, w, c) of a picture that was held out, ``held-out:3``, or brought, ``upload:TOKEN``."""
    kind, _, which = name.partition(":")
    if kind == "held-out" and which.isdigit():
        return np.asarray(held_out(studio, run, int(which), "target"))
    pixels = np.asarray(Image.open(_upload(studio, name)).convert(MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _painted(studio: Studio, name: str, size: tuple[int, int]) -> np.ndarray:
    """Where the brush was, white on black: (h, w), true there."""
    painted = np.asarray(Image.open(_upload(studio, name)).convert("L").resize(size, Image.Resampling.BOX)) > PAINTED
    if not painted.any():
        raise Refusal("refused.unpainted")
    return painted


def _upload(studio: Studio, name: str) -> Path:
    kind, _, token = name.partition(":")
    if kind != "upload":
        raise Gone("gone.picture", name=name[:40])
    return studio.pictures.path(token)


ROUTES = [Route("/inpaint/{key:path}", inpaint, methods=["POST"])]
