"""The application: the pages, the files of results, and how errors read."""

import asyncio
import contextlib
import errno
import io
import tempfile
import zipfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from bowerbird.errors import BowerbirdError
from bowerbird.studio import at_once, code_page, edit_page, run_page, train_page
from bowerbird.studio.guard import Guard, TooLarge
from bowerbird.studio.language import COOKIE, LANGUAGES, Gone, words_of
from bowerbird.studio.results import media_type, names_to_download
from bowerbird.studio.shared import HERE, Studio, of
from bowerbird.studio.shelf import Shelf
from bowerbird.studio.uploads import LARGEST_PICTURE

# ----------------------------------------------------------------------------------------------------- files of results


async def result_file(request: Request) -> Response:
    path = of(request).results.file(request.path_params["token"], request.path_params["name"])
    return FileResponse(path, media_type=media_type(path), headers={"Cache-Control": "private, max-age=3600"})


async def download(request: Request) -> Response:
    """All files of a result in one zip."""
    result = of(request).results.get(request.path_params["token"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names_to_download(result):
            archive.write(result.folder / name, f"{result.run.name}-{result.seed}/{name}")
    name = f"{result.run.name}-seed-{result.seed}.zip"
    return Response(
        buffer.getvalue(),
        media_type="application/zip",
        headers={"Content-Disposition": f"attachment; filename*=UTF-8''{_quoted(name)}"},
    )


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


async def language(request: Request) -> Response:
    """Remembers the language and goes back to the page."""
    chosen, back = request.path_params["language"], request.query_params.get("back", "/")
    inside = back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/"
    response = Response(status_code=303, headers={"Location": inside})
    if chosen in LANGUAGES:
        response.set_cookie(COOKIE, chosen, max_age=31_536_000, samesite="strict")
    return response


# -------------------------------------------------------------------------------------------------------------- errors


def _answer(request: Request, status: int, sentence: str) -> Response:
    """A sentence, as JSON for the page's script and as a page for a person."""
    if request.method == "POST" or "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"error": sentence}, status)
    return of(request).page(request, "error.html", status, sentence=sentence)


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, BowerbirdError)
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 422)
    return _answer(request, status, of(request).shelf.by_name(words_of(request).told(error)))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(request, error.status_code, words_of(request)("error.no_page"))


async def _system(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _answer(request, 507, words_of(request)("error.full"))
    return _answer(request, 500, f"{error.strerror or error}.")


STATUS: Mapping[type[Exception], int] = {Gone: 404, TooLarge: 413}
ERRORS: Mapping[Any, Any] = {BowerbirdError: _known, HTTPException: _http, OSError: _system}


def application(runs: Path, shipped: Mapping[str, Path], *, local: bool = True) -> Starlette:
    """The studio over a folder of runs and the shipped ones, by name."""
    scratch = tempfile.TemporaryDirectory(prefix="bowerbird-studio-")
    studio = Studio(Shelf(runs, shipped), Path(scratch.name), local)
    studio.programs = code_page.Programs(studio.scratch / "programs")

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.to_thread(studio.trainings.close)
            studio.drawing.close()
            scratch.cleanup()

    routes = [
        *at_once.ROUTES,
        *train_page.ROUTES,
        *run_page.ROUTES,
        *edit_page.ROUTES,
        *code_page.ROUTES,
        Route("/results/{token}/{name}", result_file),
        Route("/download/{token}", download),
        Route("/language/{language}", language),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    guard = Middleware(
        Guard, open_host=not local, uploads={"/pictures": LARGEST_PICTURE, "/train/upload": train_page.LARGEST_ZIP}
    )
    app = Starlette(routes=routes, middleware=[guard], exception_handlers=ERRORS, lifespan=lifespan)
    app.state.studio = studio
    return app
