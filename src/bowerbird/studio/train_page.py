"""Training from the page: the emoji, or the visitor's own data, with what it costs said before."""

import asyncio
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from bowerbird import config
from bowerbird.report.run import loss_panels
from bowerbird.studio.children import told
from bowerbird.studio.language import Gone, Refusal, Words, words_of
from bowerbird.studio.looking import PAIRS
from bowerbird.studio.shared import Studio, form_of, of
from bowerbird.studio.shelf import Shelved
from bowerbird.training.budget import parse_budget

LARGEST_ZIP = 500_000_000
"""Bytes of an uploaded data set."""
LOOKING_S = 180.0
UPLOADS = "uploads"
"""Folder beside the runs: a run needs its data again when it goes on."""
BUDGETS = ("2m", "5m", "10m", "30m", "2h")
MOST_POINTS = 240
EMOJI = {"train.checkpoint-every": "40", "train.log-every": "10", "train.sample-every": "500"}
"""So that there is something new to see every few seconds."""


async def page(request: Request) -> Response:
    return of(request).page(request, "train.html", budgets=BUDGETS, local=of(request).local)


async def start(request: Request) -> Response:
    """Starts a training and says where it can be watched."""
    studio, form = of(request), await form_of(request)
    recipe, source, budget = (str(form.get(name) or "") for name in ("recipe", "source", "budget"))
    if recipe not in config.recipe_names():
        raise Refusal("refused.recipe", name=recipe[:40])
    settings = dict(EMOJI) if recipe == "emoji-3d" and not source else {"train.log-every": "20"}
    if budget:
        parse_budget(budget)
        settings["budget"] = budget
    if source:
        settings["data"] = place_of(studio, source)
    if recipe == PAIRS and (styles := styles_of(form)):
        settings["data.from"], settings["data.to"] = styles
    key = studio.trainings.start(recipe, settings)
    return JSONResponse({"go": f"/runs/{key}"})


def styles_of(form: Mapping[str, Any]) -> list[str]:
    """From which folder of pairs to which, where there are any."""
    styles = [str(form[name]) for name in ("style", "other_style") if form.get(name)]
    return styles[::-1] if form.get("direction") == "backward" else styles


def place_of(studio: Studio, source: str) -> str:
    """Where data lie: an upload, or a path of this machine if only this machine can ask."""
    kind, _, token = source.partition(":")
    if kind == "upload":
        path = studio.shelf.folder / UPLOADS / f"{token}.zip"
        if not token.isalnum() or not path.is_file():
            raise Gone("gone.upload")
        return str(path.resolve())
    if not studio.local:
        raise Refusal("refused.path")
    return str(Path(source).expanduser().resolve())


async def look(request: Request) -> Response:
    """What a source holds, which recipe suits it, and what that costs."""
    studio, form = of(request), await form_of(request)
    source, recipe = str(form.get("source") or "").strip(), str(form.get("recipe") or "")
    if not source:
        raise Refusal("refused.no_source")
    budget = str(form.get("budget") or BUDGETS[1])
    found = await looked(place_of(studio, source), recipe, budget)
    part = studio.part(request, "looked.html", found=found, source=source, budget=budget, budgets=BUDGETS)
    return HTMLResponse(part)


async def looked(place: str, recipe: str, budget: str) -> dict[str, Any]:
    """Asks a child process, which can be as wrong or slow as the data make it."""
    parse_budget(budget)
    words = [place, *([recipe, budget] if recipe else [])]
    _, out = await told("bowerbird.studio.looking", words, LOOKING_S)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


async def upload(request: Request) -> Response:
    """Keeps a zip beside the runs; nothing of it is unpacked."""
    folder = of(request).shelf.folder / UPLOADS
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(6)
    part = folder / f".{token}.part"
    try:
        with part.open("wb") as file:
            async for chunk in request.stream():
                await asyncio.to_thread(file.write, chunk)
        if part.open("rb").read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise Refusal("refused.no_zip")
        part.rename(folder / f"{token}.zip")
    finally:
        part.unlink(missing_ok=True)
    return JSONResponse({"name": f"upload:{token}"})


async def stop(request: Request) -> Response:
    studio, run = of(request), of(request).shelf.get(request.path_params["key"])
    studio.trainings.stop(run, for_good=bool((await form_of(request)).get("for_good")))
    return JSONResponse({"done": True})


async def resume(request: Request) -> Response:
    studio, run = of(request), of(request).shelf.get(request.path_params["key"])
    form = await form_of(request)
    if run.shipped:
        raise Refusal("refused.shipped")
    budget = str(form.get("budget") or "") or None
    if budget:
        parse_budget(budget.removeprefix("+"))
    studio.trainings.resume(run, budget)
    return JSONResponse({"done": True})


# ------------------------------------------------------------------------------------------------------ what is live


async def live(request: Request) -> Response:
    """Where a run stands: state, counters, curves, previews, findings."""
    studio, run = of(request), of(request).shelf.get(request.path_params["key"])
    return JSONResponse(await asyncio.to_thread(standing, studio, run, words_of(request)))


def standing(studio: Studio, run: Shelved, words: Words) -> dict[str, Any]:
    state, failure = studio.trainings.state(run)
    steps, status = run.steps(), run.status()
    last = steps[-1] if steps else {}
    weights = run.folder / "model.safetensors"
    return {
        "state": state,
        "state_text": words(f"state.{state}"),
        "sentence": studio.shelf.by_name(words.told(failure)) if failure else "",
        "step": last.get("step", status.get("step", 0)),
        "used": used(run.settings["train"], last) if state != "finished" else 1.0,
        "spent": spent(last, words),
        "left": left(run.settings["train"], last, words),
        "weights": weights.stat().st_mtime_ns if weights.is_file() else 0,
        "weights_step": status.get("step", 0),
        "panels": panels(steps, words),
        "previews": [
            {"step": step, "address": f"/previews/{step}/{run.key}", "text": path.read_text(encoding="utf-8")[:4000]}
            if path.suffix == ".txt" else {"step": step, "address": f"/previews/{step}/{run.key}"}
            for step, path in run.previews().items()
        ],
        "findings": [finding(one, words) for one in run.findings()],
    }  # fmt: skip


def finding(found: Mapping[str, Any], words: Words) -> dict[str, str]:
    """Its title, and its advice."""
    title = words.known(f"finding.{found.get('cause')}", str(found.get("title", "")))
    between = "；" if words.language == "zh" else "; "
    advice = between.join(words.said(str(one)) for one in found.get("advice", ()))
    return {"title": title, "text": words("live.advice", advice=advice) if advice else ""}


def spent(last: Mapping[str, Any], words: Words) -> str:
    """How far it has come; nothing where nothing was logged, as in runs that ship."""
    minutes = f"{last.get('seconds', 0) / 60:.1f}"
    return words("live.spent", step=f"{last['step']:,}", minutes=minutes) if last else ""


def used(settings: Mapping[str, Any], last: Mapping[str, Any]) -> float:
    """The part of the budget that is used up: the budget that is nearest to its end counts."""
    parts = [
        last.get(counter, 0) / settings[name]
        for name, counter in (
            ("steps", "step"), ("examples", "examples"), ("seconds", "seconds"), ("compute_seconds", "compute_seconds")
        )
        if isinstance(settings.get(name), int | float) and settings[name] > 0
    ]  # fmt: skip
    return min(1.0, max(parts, default=0.0))


def left(settings: Mapping[str, Any], last: Mapping[str, Any], words: Words) -> str:
    """How long the rest will take, as long as it goes on like this."""
    part = used(settings, last)
    if not 0.01 < part < 1:
        return ""
    minutes = last.get("seconds", 0) * (1 - part) / part / 60
    return words("live.left", minutes=f"{minutes:.0f}" if minutes >= 2 else f"{minutes:.1f}")


def panels(steps: list[dict[str, Any]], words: Words) -> list[dict[str, Any]]:
    """The curves of the losses, of at most ``MOST_POINTS`` points each."""
    found = []
    for panel in loss_panels(steps):
        series = [{"name": one.name, "x": thin(one.x), "y": thin(one.y)} for one in panel.series]
        title = words("live.loss", player=panel.series[0].name)
        found.append({"title": title, "log": panel.log_y, "colour": panel.series[0].colour or 0, "series": series})
    return found


def thin(values: Any) -> list[float]:
    """Means of equally many neighbours."""
    every = -(-len(values) // MOST_POINTS) or 1
    return [
        float(f"{sum(part) / len(part):.6g}") for i in range(0, len(values), every) if (part := values[i : i + every])
    ]


async def preview(request: Request) -> Response:
    from starlette.responses import FileResponse

    run, step = of(request).shelf.get(request.path_params["key"]), int(request.path_params["step"])
    path = run.previews().get(step)
    if path is None:
        raise Gone("gone.preview", step=step)
    return FileResponse(path, headers={"Cache-Control": "private, max-age=86400"})


ROUTES = [
    Route("/train", page),
    Route("/train/start", start, methods=["POST"]),
    Route("/train/look", look, methods=["POST"]),
    Route("/train/upload", upload, methods=["POST"]),
    Route("/stop/{key:path}", stop, methods=["POST"]),
    Route("/resume/{key:path}", resume, methods=["POST"]),
    Route("/live/{key:path}", live),
    Route("/previews/{step:int}/{key:path}", preview),
]
