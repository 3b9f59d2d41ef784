"""Other people's programs: asked about, explained, and offered to language models as tools."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bowerbird.errors import BowerbirdError

if TYPE_CHECKING:
    from bowerbird.reading.explain.reading import Reading
    from bowerbird.reading.tutor import Answer
    from bowerbird.reading.tutor import Conversation as Tutorial


def conversation(
    target: Path | str,
    *,
    llm: str | None = None,
    model: str | None = None,
    lang: Literal["en", "zh"] | None = None,
    small: bool = False,
    context: int = 16_000,
    cache: bool = True,
) -> "Tutorial":
    """A conversation about a program, which is run under observation first; ``ask(question)`` gives a checked answer.

    ``llm`` is the address of an OpenAI-compatible endpoint and ``model`` a model there; without them nothing is sent
    anywhere, and the nearest facts, findings and cards are the answer.
    """
    from bowerbird.reading.check import check as check_program
    from bowerbird.reading.tutor import Conversation as Tutorial
    from bowerbird.reading.tutor import Endpoint, Material

    if (llm is None) != (model is None):
        raise BowerbirdError("An endpoint (llm) and a model's name (model) belong together.")
    endpoint = Endpoint(llm, model, use_cache=cache) if llm is not None and model is not None else None
    return Tutorial(Material.of(check_program(target)), endpoint, lang=lang, small=small, context=context)


def ask(
    target: Path | str,
    question: str,
    *,
    llm: str | None = None,
    model: str | None = None,
    lang: Literal["en", "zh"] | None = None,
    small: bool = False,
    context: int = 16_000,
    cache: bool = True,
) -> "Answer":
    """The answer to one question about a program, every claim with its verdict; see ``conversation``."""
    talk = conversation(target, llm=llm, model=model, lang=lang, small=small, context=context, cache=cache)
    return talk.ask(question)


def read(
    target: Path | str,
    *,
    lang: Literal["en", "zh"] = "en",
    measure: int = 6,
    steps: int = 6,
    seconds: float = 12.0,
    llm: str | None = None,
    model: str | None = None,
    small: bool = False,
    context: int = 16_000,
    cache: bool = True,
) -> "Reading":
    """A program explained in seven steps: a file, a folder, a notebook, a recipe of ours, or ``module:Class``.

    It runs under observation, and again with at most ``measure`` settings altered; every number and name of the reading
    traces to a fact.  With an endpoint, a model's checked claims stand beside the steps.
    """
    from bowerbird.reading.explain.read import studied, write
    from bowerbird.reading.explain.telling import told
    from bowerbird.reading.tutor import Endpoint

    if (llm is None) != (model is None):
        raise BowerbirdError("An endpoint (llm) and a model's name (model) belong together.")
    with studied(target, measure=measure, steps=steps, seconds=seconds) as study:
        reading = write(study, lang)
        if llm is None or model is None:
            return reading
        return told(study, reading, Endpoint(llm, model, use_cache=cache), small=small, context=context)


def mcp(
    *, llm: str | None = None, model: str | None = None, small: bool = False, context: int = 16_000, cache: bool = True
) -> None:
    """Serves check, ask, read and track as tools of the Model Context Protocol, over standard input and output."""
    from bowerbird.reading.check import check
    from bowerbird.reading.history.track import track

    try:
        from bowerbird.reading.mcp import Verbs, serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "mcp":
            raise
        raise BowerbirdError(
            "The server needs the package mcp; install it with: pip install 'bowerbird[mcp]'."
        ) from None
    from bowerbird import __version__

    asked = partial(ask, llm=llm, model=model, small=small, context=context, cache=cache)
    serve(Verbs(ask=asked, check=check, read=read, track=track), __version__)
