"""Words: what a sentence speaks of, in concepts that English, Chinese and code have in common (glossary.txt).

"convolutional", "卷积" and ``Conv2d`` are one concept, ``conv``, so that a question in one language finds what is said
in the other, or in code.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_FORMS: dict[str, str] = {}
"""The concept of each word of either language; "" for words that say nothing by themselves."""
_CODE: dict[str, set[str]] = defaultdict(set)
for _row in Path(__file__).with_name("glossary.txt").read_text(encoding="utf-8").splitlines():
    _concept, _, _rest = _row.partition(": ")
    if _concept == "-":
        _FORMS |= dict.fromkeys(_rest.split(), "")
    elif not _row.startswith("#"):
        _in_english, _in_chinese, _in_code = (part.split() for part in _rest.split("|"))
        _FORMS |= dict.fromkeys([*_in_english, *_in_chinese, _concept], _concept)
        for _token in _in_code:
            _CODE[_token].add(_concept)

_PHRASES = sorted((form for form in _FORMS if "-" in form), key=len, reverse=True)
_PHRASE = re.compile(r"\b(?:" + "|".join(re.escape(p).replace(r"\-", r"[\s-]+") for p in _PHRASES) + r")s?\b", re.I)
_WORD = re.compile(r"[A-Za-z][A-Za-z']*(?:_[A-Za-z0-9]+)*\d*[A-Za-z]*|[\u4e00-\u9fff]+")
_CHINESE = sorted((form for form in _FORMS if not form.isascii()), key=len, reverse=True)


def concept_of(word: str) -> str:
    """The concept of one English word, or the word itself in its singular."""
    word = word.lower().removesuffix("'s").rstrip("'")
    if word in _FORMS:
        return _FORMS[word] or word
    for ending in ("s", "es", "ed", "d", "ing"):
        if word.endswith(ending) and _FORMS.get(word[: -len(ending)]):
            return _FORMS[word[: -len(ending)]]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def located_concepts(text: str) -> Iterator[tuple[int, int, str]]:
    """Every concept of a sentence that is not neutral, with the place where it stands."""
    masked = text
    for match in _PHRASE.finditer(text):
        key = re.sub(r"\s+", "-", match[0].lower())
        yield match.start(), match.end(), _FORMS.get(key) or _FORMS[key.rstrip("s")]
        masked = masked[: match.start()] + " " * len(match[0]) + masked[match.end() :]
    for match in _WORD.finditer(masked):
        if "\u4e00" <= match[0][0] <= "\u9fff":
            yield from _chinese(match[0], match.start())
        elif _FORMS.get(match[0].lower()) != "":
            yield match.start(), match.end(), concept_of(match[0])


def _chinese(run: str, offset: int) -> Iterator[tuple[int, int, str]]:
    """Longest words first, left to right; a character that no word covers is a concept of its own."""
    i = 0
    while i < len(run):
        word = next((w for w in _CHINESE if run.startswith(w, i)), run[i])
        if concept := _FORMS.get(word, word):
            yield offset + i, offset + i + len(word), concept
        i += len(word)


def name_parts(name: str) -> list[str]:
    """``optimizer_G`` → optimizer, g;  ``LeakyReLU`` → leaky, re, lu;  ``Generator.model.0`` → generator, model."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def code_concepts(code: str) -> set[str]:
    """What code speaks of: its names, their parts, and the concepts that belong to them."""
    found: set[str] = set()
    for name in re.findall(r"[A-Za-z_]\w*", code):
        parts = [name.lower(), *name_parts(name)]
        for part in parts:
            found |= {part, concept_of(part)} | _CODE.get(part, set())
    return found


def sentences(text: str) -> list[tuple[int, int]]:
    """The spans of the sentences; brackets and backticks are never cut."""
    closed = [m.span() for m in re.finditer(r"`[^`]*`|\([^()]*\)|\[[^\[\]]*\]|（[^（）]*）", text)]
    spans, start = [], 0
    for match in re.finditer(r"(?<=[.!?;])\s+|[。；！？;\n]+", text):
        if not any(a < match.end() and match.start() < b for a, b in closed):
            spans.append((start, match.start()))
            start = match.end()
    return [(a, b) for a, b in [*spans, (start, len(text))] if text[a:b].strip()]
