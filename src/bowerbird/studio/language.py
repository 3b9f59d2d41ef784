"""English and Chinese: ``words.toml`` has all that the pages say, with both languages under each name, and
``sentences.toml`` the Chinese of what the layers below say in English: advice, labels, refusals."""

import itertools
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


@cache
def patterns() -> list[tuple[re.Pattern[str], str]]:
    """Every sentence of ``sentences.toml`` as a pattern, with its Chinese."""
    table = tomllib.loads(Path(__file__).with_name("sentences.toml").read_text(encoding="utf-8"))
    return [(_pattern(english), chinese) for part in table.values() for english, chinese in part.items()]


def _pattern(sentence: str) -> re.Pattern[str]:
    """Matches the sentence with anything in place of its braces; with a number where their name has one letter."""
    parts = re.split(r"\{(\w+)\}", sentence)
    held = [f"(?P<{name}>{'.+?' if name[1:] else '-?[0-9][^ ]*?'})" for name in parts[1::2]]
    around = [re.escape(part) for part in parts[::2]]
    return re.compile("".join(itertools.chain(*itertools.zip_longest(around, held, fillvalue=""))), re.DOTALL)


def in_chinese(sentence: str) -> str:
    """The Chinese of a sentence of the layers below; the sentence itself where there is none."""
    for pattern, chinese in patterns():
        if match := pattern.fullmatch(sentence):
            return chinese.format(**{name: in_chinese(value) for name, value in match.groupdict().items()})
    return sentence


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
        return self(error.name, **error.values) if isinstance(error, Refusal) else self.said(str(error))

    def said(self, sentence: str) -> str:
        """A sentence of the layers below, in this language where it is known."""
        return in_chinese(sentence) if self.language == "zh" else sentence

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
