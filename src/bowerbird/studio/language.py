"""English and Chinese: one catalogue of all that the pages say, ``words.toml``, with both under each name."""

import re
import tomllib
from functools import cache
from pathlib import Path

from starlette.requests import Request

from bowerbird.errors import BowerbirdError
from bowerbird.serve.uploaded import NoPicture

LANGUAGES = ("en", "zh")
COOKIE = "language"


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """name → language → words."""
    return tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


class Words:
    """What the pages say in one language; ``words("home.title", n=3)`` fills in the braces."""

    def __init__(self, language: str):
        self.language = language

    def __call__(self, name: str, /, **values: object) -> str:
        return catalogue()[name][self.language].format(**values)

    def known(self, name: str, otherwise: str) -> str:
        """What a name is called, where the catalogue has a word for it."""
        return catalogue().get(name, {}).get(self.language, otherwise)

    def told(self, error: BowerbirdError) -> str:
        """An error's sentence: in this language if it is one of the pages' own, or about a picture."""
        if isinstance(error, NoPicture):
            return self.known(f"picture.{error.reason}", str(error)).format(**error.values)
        return self(error.name, **error.values) if isinstance(error, Refusal) else str(error)

    def script(self) -> dict[str, str]:
        """What the page's script says."""
        return {
            name.removeprefix("script."): entry[self.language]
            for name, entry in catalogue().items()
            if name.startswith("script.")
        }


class Refusal(BowerbirdError):
    """An error of the pages themselves: a name of the catalogue, so that it is told in the reader's language."""

    def __init__(self, name: str, /, **values: object):
        super().__init__(Words("en")(name, **values))
        self.name, self.values = name, values


class Gone(Refusal):
    """What was asked for does not exist, or no longer."""


def words_of(request: Request) -> Words:
    """The language that was chosen, else the one that the browser prefers."""
    chosen = request.query_params.get("language") or request.cookies.get(COOKIE)
    return Words(chosen if chosen in LANGUAGES else preferred(request.headers.get("accept-language", "")))


def preferred(header: str) -> str:
    """The first of our languages in an Accept-Language header, by its weights; English where there is none."""
    asked = []
    for part in header.split(","):
        tag, _, weight = part.partition(";q=")
        asked.append((-(float(weight) if re.fullmatch(r"[01](\.\d+)?", weight) else 1.0), tag.strip()[:2].lower()))
    return next((tag for weight, tag in sorted(asked, key=lambda one: one[0]) if tag in LANGUAGES and weight), "en")
