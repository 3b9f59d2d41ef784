"""A topic as a page: for the terminal, and as the Markdown of ``docs/learn`` (``topic.md`` and ``index.md``).

python -m bowerbird.reading.learn.pages docs/learn            writes the pages
python -m bowerbird.reading.learn.pages docs/learn --check    says which are stale, exit status 1 if any is
"""

import sys
import textwrap
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from bowerbird import config
from bowerbird.reading.explain import cards
from bowerbird.reading.learn.exercise import of_topic
from bowerbird.reading.learn.topic import Topic, topics
from bowerbird.reading.publishing import publish
from bowerbird.reading.wording import LANGUAGES, Language, sentences

HERE = Path(__file__).parent
WORDS = sentences(HERE / "words.toml")
WIDTH = 120
_TERMS = ("n_samples", "n_reference", "split", "extractor")


@dataclass(frozen=True)
class Form:
    """How a page is written: formulas as LaTeX or as text, our files as links or as names."""

    lang: Language
    latex: bool
    sources: str = ""
    """Path from the page to src/bowerbird (empty: no links)."""

    def our(self, file: str) -> str:
        return f"[`{file}`]({self.sources}/{file})" if self.sources else f"bowerbird/{file}"

    def place(self, place: str) -> str:
        """A file and a name of it, from ``models/gan.py:minimax``."""
        file, _, name = place.partition(":")
        return f"{self.our(file)} `{name}`"

    def linked(self, found: Topic) -> str:
        title = found.title(self.lang)
        return f"[{title}]({found.id}.md)" if self.sources else f"{found.id} ({title})"

    def commands(self, lines: Iterable[str], fence: str = "console no-run") -> str:
        if self.latex:
            return "\n".join([f"```{fence}", *(f"$ {line}" for line in lines), "```"])
        return "\n".join(f"    {line}" for line in lines)

    def answered(self, answer: str) -> str:
        """A card's answer; in LaTeX an underscore between a sign and a letter would begin emphasis."""
        return _filled(answer.replace("∇_", "∇\\_") if self.latex else answer)

    def render(self, template: str, **given: Any) -> str:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
            undefined=jinja2.StrictUndefined, autoescape=False,
        )  # fmt: skip
        environment.filters |= {
            "filled": _filled, "our": self.our, "place": self.place, "linked": self.linked, "commands": self.commands,
            "answered": self.answered, "ticked": "`{}`".format, "ids": lambda id: [one.id for one in of_topic(id)],
        }  # fmt: skip
        return environment.get_template(template).render(
            lang=self.lang, latex=self.latex, sources=self.sources, across="zh/" if self.lang == "en" else "../",
            words={key: words[self.lang] for key, words in WORDS.items()},
            flag="" if self.lang == "en" else f" --lang {self.lang}", **given,
        )  # fmt: skip


def page(found: Topic, form: Form) -> str:
    """A topic as Markdown, which also reads well as plain text."""
    recipes = found.experiment.recipes if found.experiment is not None else ()
    return form.render(
        "topic.md", topic=found, exercises=of_topic(found.id), cards=[cards.get(id) for id in found.cards],
        next=[topics()[id] for id in found.next],
        promises=[(name, said) for name in recipes for said in promised(name, form.lang)],
    )  # fmt: skip


def index(form: Form) -> str:
    """The list of topics with their exercises."""
    return form.render("index.md", topics=topics().values())


def pages() -> dict[str, str]:
    """Every page of ``docs/learn`` by its path there."""
    found: dict[str, str] = {}
    for lang in LANGUAGES:
        folder, up = ("", "../../") if lang == "en" else ("zh/", "../../../")
        form = Form(lang, latex=True, sources=f"{up}src/bowerbird")
        found[f"{folder}index.md"] = index(form)
        for id, one in topics().items():
            found[f"{folder}{id}.md"] = page(one, form)
    return found


def stale(folder: Path) -> list[str]:
    """The pages of a folder that are missing, differ, or belong to no topic."""
    wanted = pages()
    there = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*.md")}
    return [name for name, text in wanted.items() if there.get(name) != text] + sorted(there.keys() - wanted.keys())


def promised(recipe: str, lang: Language = "en") -> list[str]:
    """What a recipe's [[expect]] states, in one line each."""
    return [_promise(row, lang) for row in tomllib.loads(config.recipe(recipe)).get("expect", [])]


def _promise(row: dict[str, Any], lang: Language) -> str:
    words = {key: told[lang] for key, told in WORDS.items()}
    bound = f"≤ {row['at_most']:g}" if "at_most" in row else f"≥ {row['at_least']:g}"
    details = [f"{words[f'term.{key}']} {row[key]}" for key in _TERMS if key in row]
    details += [f"{words['measured']} {row['measured']:g}"] if "measured" in row else []
    return f"`{row['metric']}` {bound}" + (words["brackets"].format(words["clause"].join(details)) if details else "")


def _filled(text: str, indent: str = "") -> str:
    """Lines of at most ``WIDTH`` columns; Chinese paragraphs stay one line, since a break in them is a space."""
    if any(ord(character) > 0x2E80 for character in text):
        return text
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    sys.exit(publish(sys.argv[1:], Path("docs/learn"), lambda: pages().items(), stale))
