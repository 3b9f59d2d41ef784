"""Retrieval: the passages that have most to do with a question, by BM25 over words, parts of names, Chinese pairs.

    score(q, d) = sum over terms t of q:  idf(t) · tf(t, d) · (k + 1) / (tf(t, d) + k · (1 - b + b · |d| / mean |d|))

with k = 1.2, b = 0.75 and idf(t) = log(1 + (N - n(t) + 1/2) / (n(t) + 1/2))  (Robertson and Zaragoza, 2009).
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

K, B = 1.2, 0.75


def terms(text: str) -> list[str]:
    """The words of a text and the parts of its names, in their singular, and the pairs of its Chinese characters."""
    words = [word.lower() for word in re.findall(r"[A-Za-z]\w*", text)]
    parts = [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text)]
    runs = re.findall(r"[\u4e00-\u9fff]{2,}", text)
    pairs = [run[i : i + 2] for run in runs for i in range(len(run) - 1)]
    return [re.sub(r"(?<=\w{3})(?<!s)s$", "", term) for term in (*words, *parts, *pairs) if len(term) > 1]


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
