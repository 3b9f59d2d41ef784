"""Retrieval: the passages that have most to do with a question, by BM25 over concepts that both languages share.

    score(q, d) = sum over terms t of q:  idf(t) · tf(t, d) · (k + 1) / (tf(t, d) + k · (1 - b + b · |d| / mean |d|))

with k = 1.2, b = 0.75 and idf(t) = log(1 + (N - n(t) + 1/2) / (n(t) + 1/2))  (Robertson and Zaragoza, 2009).

A concept is what English, Chinese and code have in common (glossary.txt): "convolutional", "卷积" and ``Conv2d`` are
one, ``conv``, so that a question in one language finds what is said in the other, or in code.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

K, B = 1.2, 0.75


def terms(text: str) -> list[str]:
    """The concepts of a text: words of both languages, names and their parts, pairs of Chinese characters."""
    found = [concept for _, _, concept in located_concepts(text)]
    for name in re.findall(r"[A-Za-z_]\w*(?:\.\w+)*", text):
        if "_" in name or "." in name or any(c.isupper() for c in name):
            found += sorted(code_concepts(name))
    for run in re.findall(r"[\u4e00-\u9fff]{2,}", text):
        found += [run[i : i + 2] for i in range(len(run) - 1)]
    return [concept_of(term) for term in found if len(term) > 1 or not term.isascii()]


def rank(question: str, passages: Sequence[str]) -> list[tuple[float, int]]:
    """(score, index) of every passage that shares a term with the question, the best first."""
    if not passages:
        return []
    bags = [Counter(terms(passage)) for passage in passages]
    lengths = [max(sum(bag.values()), 1) for bag in bags]
    mean = sum(lengths) / len(lengths)
    having = Counter(term for bag in bags for term in bag)
    asked = set(terms(question))

    def score(bag: Counter[str], length: int) -> float:
        total = 0.0
        for term in asked & bag.keys():
            idf = math.log(1 + (len(bags) - having[term] + 0.5) / (having[term] + 0.5))
            total += idf * bag[term] * (K + 1) / (bag[term] + K * (1 - B + B * length / mean))
        return total

    scored = [(score(bag, length), i) for i, (bag, length) in enumerate(zip(bags, lengths, strict=True))]
    return sorted((pair for pair in scored if pair[0] > 0), key=lambda pair: (-pair[0], pair[1]))


# ------------------------------------------------------------------------------------------------------ concepts

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
