"""Retrieval: the passages that have most to do with a question, by BM25 over concepts that both languages share.

    score(q, d) = sum over terms t of q:  idf(t) · tf(t, d) · (k + 1) / (tf(t, d) + k · (1 - b + b · |d| / mean |d|))

with k = 1.2, b = 0.75 and idf(t) = log(1 + (N - n(t) + 1/2) / (n(t) + 1/2))  (Robertson and Zaragoza, 2009).
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from bowerbird.reading.tutor.concepts import code_concepts, concept_of, located_concepts

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
