"""Code: a pasted script or notebook is checked and read, and questions about it are answered.

It is run by the commands' own confinement, in child processes that have a time limit; nothing is sent anywhere.
"""

import asyncio
import json
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bowerbird.studio.children import told
from bowerbird.studio.language import Gone, Refusal, words_of
from bowerbird.studio.run_page import INERT
from bowerbird.studio.shared import form_of, of

LONGEST = 400_000
"""Characters of a program."""
SECONDS = 180.0
MOST_KEPT = 50


class Programs:
    """Pasted programs by token, and the lines in which at most two are run at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.turns = asyncio.Semaphore(2)
        self._kept: OrderedDict[str, Path] = OrderedDict()

    def keep(self, text: str) -> str:
        token = secrets.token_hex(8)
        folder = self.folder / token
        folder.mkdir(parents=True)
        path = self._kept[token] = folder / ("program.ipynb" if is_notebook(text) else "program.py")
        path.write_text(text, encoding="utf-8")
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return token

    def path(self, token: str) -> Path:
        if token not in self._kept:
            raise Gone("gone.program")
        return self._kept[token]


def is_notebook(text: str) -> bool:
    """Whether a text is a notebook's JSON."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(table, dict) and isinstance(table.get("cells"), list)


async def page(request: Request) -> Response:
    return of(request).page(request, "code.html")


async def check(request: Request) -> Response:
    """Keeps a program, runs it under observation and shows what was found."""
    studio, text = of(request), (await form_of(request)).get("code")
    if not isinstance(text, str) or not text.strip():
        raise Refusal("refused.no_program")
    if len(text) > LONGEST:
        raise Refusal("refused.long_program", n=f"{len(text):,}", limit=f"{LONGEST:,}")
    token = studio.programs.keep(text)
    async with studio.programs.turns:
        words = ["check", str(studio.programs.path(token)), "--json"]
        _, out = await told("bowerbird", words, SECONDS)
    found: dict[str, Any] = json.loads(out)
    shown = [finding for finding in found["findings"] if finding["severity"] != "ok"]
    lines = text.splitlines()
    cells = is_notebook(text)
    return HTMLResponse(
        studio.part(
            request, "findings.html", token=token, findings=shown, lines=[] if cells else lines,
            known=in_chinese(shown) if words_of(request).language == "zh" else {},
            fine=len(found["findings"]) - len(shown),
        )
    )  # fmt: skip


def in_chinese(findings: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """What is known in Chinese about the rules of findings: title, why, fix."""
    from bowerbird.reading.explain.steps.advice import remedies  # takes a second to load

    return {rule: remedies()[rule] for one in findings if (rule := one["rule"]) in remedies()}


async def reading(request: Request) -> Response:
    """The reading in seven steps, a whole page without scripts."""
    studio, token = of(request), request.path_params["token"]
    path, language = studio.programs.path(token), words_of(request).language
    page = path.with_name(f"reading-{language}.html")
    async with studio.programs.turns:
        if not page.is_file():
            await told("bowerbird", ["read", str(path), "--lang", language, "--html", str(page)], SECONDS)
    return HTMLResponse(page.read_text(encoding="utf-8"), headers={"Content-Security-Policy": INERT})


async def ask(request: Request) -> Response:
    """What is known that has to do with a question."""
    studio, token = of(request), request.path_params["token"]
    question = str((await form_of(request)).get("question") or "").strip()
    if not question or len(question) > 2000:
        raise Refusal("refused.question")
    path = studio.programs.path(token)
    async with studio.programs.turns:
        words = ["ask", str(path), question, "--lang", words_of(request).language, "--json"]
        _, out = await told("bowerbird", words, SECONDS)
    return HTMLResponse(studio.part(request, "answer.html", answer=json.loads(out), question=question))


ROUTES = [
    Route("/code", page),
    Route("/code/check", check, methods=["POST"]),
    Route("/code/{token}/reading", reading),
    Route("/code/{token}/ask", ask, methods=["POST"]),
]
