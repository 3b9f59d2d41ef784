"""A card: the short answer to a question that everybody asks about this field, in English and Chinese, with sources.

The cards are data, one TOML file per subject in the folder ``cards`` beside this module.  They are general: nothing in
them was observed in a program, and whoever prints one says so.
"""

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bowerbird.reading.wording import LANGUAGES, Both, Language, joined_lines, table

FOLDER = Path(__file__).with_name("cards")
FILES = ("gan", "vae", "transformer", "recurrent", "diffusion", "sampling", "metrics", "training")
"""In the order in which a reader meets the subjects."""


@dataclass(frozen=True)
class Reference:
    """A paper, book or page that the answer rests on."""

    text: str
    """Authors, year, title."""
    arxiv: str = ""
    where: str = ""
    """Equation, section or figure."""

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    def __str__(self) -> str:
        return ", ".join(part for part in (self.text, f"arXiv:{self.arxiv}" if self.arxiv else "", self.where) if part)


@dataclass(frozen=True)
class Card:
    """One question and its answer."""

    id: str
    subject: str
    """The file it comes from: gan, vae, transformer, …"""
    titles: Both
    answers: Both
    patterns: tuple[tuple[str, ...], ...]
    """Words that tell the question; a pattern holds when all of its words occur."""
    rules: tuple[str, ...]
    """Rules of ``bowerbird check`` that it explains."""
    references: tuple[Reference, ...]

    def title(self, lang: Language = "en") -> str:
        return self.titles[lang]

    def answer(self, lang: Language = "en") -> str:
        return self.answers[lang]


@cache
def all() -> tuple[Card, ...]:  # called as cards.all()
    """Every card, in the order of the files."""
    return tuple(_card(row, subject) for subject in FILES for row in table(FOLDER / f"{subject}.toml")["card"])


def get(id: str) -> Card:
    """The card of this id; KeyError if there is none."""
    return _by_id()[id]


def for_rule(rule: str) -> list[Card]:
    """The cards that explain a rule of ``check``; those that name it first come first."""
    return sorted((card for card in all() if rule in card.rules), key=lambda card: card.rules.index(rule))


def find(question: str, lang: Language = "en", n: int = 3) -> list[Card]:
    """At most n cards that answer the question, the best first; none if nothing fits.

    The question may mix both languages; ``lang`` says whose titles also count.  A card scores the rarity of the words
    of its patterns that hold, and up to 1 for what its title shares with the question.
    """
    said, rarity = _normalised(question), _rarity()

    def score(card: Card) -> float:
        words = {word for pattern in card.patterns if _holds(pattern, said) for word in pattern}
        title = [word for word in _normalised(card.title(lang)).split() if len(word) > 3]
        shared = sum(_occurs(word, said) for word in title) / max(1, len(title))
        return sum(rarity[word] for word in words) + (shared if words or shared > 0.7 else 0.0)

    scored = sorted(((score(card), -i) for i, card in enumerate(all())), reverse=True)
    return [all()[-i] for value, i in scored[:n] if value > 0]


def _holds(pattern: tuple[str, ...], said: str) -> bool:
    """Whether every word of a pattern occurs in a normalised question."""
    return not [word for word in pattern if not _occurs(word, said)]


def _occurs(word: str, said: str) -> bool:
    """Latin words by how they begin (short ones whole), Chinese ones anywhere."""
    if not word.isascii():
        return word in said
    end = "" if len(word) > 3 else r"(?![a-z0-9])"
    return re.search(rf"(?<![a-z0-9]){re.escape(word)}{end}", said) is not None


_SPELLED = {"√": " sqrt ", "β": " beta ", "ε": " eps ", "α": " alpha ", "σ": " sigma ", "λ": " lambda ", "₀": "0"}


def _normalised(text: str) -> str:
    """Lower case, symbols spelled out, d_k as dk, other marks as spaces."""
    for symbol, name in _SPELLED.items():
        text = text.replace(symbol, name)
    text = unicodedata.normalize("NFKC", text).lower().replace("_", "")
    return " ".join(re.sub(r"[^\w.+]+", " ", text).split())


@cache
def _by_id() -> dict[str, Card]:
    return {card.id: card for card in all()}


@cache
def _rarity() -> dict[str, float]:
    """log(cards / cards that have the word) + a half, so that a word of every card still counts."""
    count = Counter(word for card in all() for word in {word for pattern in card.patterns for word in pattern})
    return {word: math.log(len(all()) / n) + 0.5 for word, n in count.items()}


def _card(row: dict[str, Any], subject: str) -> Card:
    asked = [pattern for lang in LANGUAGES for pattern in row["ask"][lang]]
    return Card(
        id=row["id"],
        subject=subject,
        titles=row["title"],
        answers={lang: joined_lines(row[lang], lang) for lang in LANGUAGES},
        patterns=tuple(tuple(_normalised(pattern).split()) for pattern in asked),
        rules=tuple(row["rules"]),
        references=tuple(Reference(**reference) for reference in row["references"]),
    )
