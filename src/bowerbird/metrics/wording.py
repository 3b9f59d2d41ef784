"""Texts: how varied they are, how much of them was copied, and whether they keep a form.

What a *word* is in each script says ``bowerbird.metrics.scripts``.  Copied spans count characters as they are: letter
for letter, with spaces and line breaks.

    distinct-n   different n-grams of words over all n-grams   (Li et al. 2016, arXiv:1510.03055, who divide by words)
    self-BLEU    BLEU of each text with all others as references, mean   (Zhu et al. 2018, arXiv:1802.01886)

Distinct-n falls with the amount of text.  So ``distinct_in_blocks`` takes its mean over blocks of ``BLOCK`` n-grams,
which does not.  Self-BLEU and the longest copied span grow with the number of samples, which is in the protocol.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from jaxtyping import Float, Int

from bowerbird.errors import BowerbirdError
from bowerbird.metrics.averages import Average, mean
from bowerbird.metrics.copied import matches
from bowerbird.metrics.scripts import composed, splitter, words

BLOCK = 1000
"""n-grams among which distinct ones are counted."""
SPAN_WORDS, SPAN_HAN = 32, 8
"""Characters from which on a copied span counts towards the copied share: about six words, or eight Han characters."""

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_HAN = re.compile(rf"[{HAN}]")
_VERSE_END = re.compile(r"[\n，。！？；、,.!?;]+")


# ----------------------------------------------------------------------------------------------------------- script


def han_share(texts: Sequence[str]) -> float:
    """Share of the letters and digits that are Han characters."""
    letters = sum(character.isalnum() for text in texts for character in text)
    return sum(len(_HAN.findall(text)) for text in texts) / max(letters, 1)


def share_of_form(texts: Sequence[str], lines: int = 4, characters: int = 5) -> float:
    """Share of texts that have exactly ``lines`` lines of exactly ``characters`` Han characters each.

    A line ends with a line break, a mark such as ， or 。, or both; anything else that is no Han character breaks it.
    """
    pattern = re.compile(rf"[{HAN}]{{{characters}}}")
    kept = 0
    for text in texts:
        verses = [verse.strip() for verse in _VERSE_END.split(text)]
        verses = [verse for verse in verses if verse]
        kept += len(verses) == lines and all(pattern.fullmatch(verse) for verse in verses)
    return kept / len(texts)


# ---------------------------------------------------------------------------------------------------------- variety


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Share in (0, 1] of different ones among all n-grams of words of all texts; not a number without any."""
    grams = list(_grams(texts, n))
    return len(set(grams)) / len(grams) if grams else float("nan")


def distinct_in_blocks(texts: Sequence[str], n: int, block: int = BLOCK) -> Average:
    """Mean share of different ones among ``block`` successive n-grams, over all whole blocks; of all if fewer."""
    grams = list(_grams(texts, n))
    if len(grams) < block:
        return distinct_n(texts, n), None
    starts = range(0, len(grams) - block + 1, block)
    return mean([len(set(grams[start : start + block])) / block for start in starts])


def _grams(texts: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """n-grams of words of one text after the other; none across two."""
    return chain.from_iterable(_ngrams(words(text), n) for text in texts)


def _ngrams(tokens: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(tokens[i:] for i in range(n)), strict=False)


def self_bleu(texts: Sequence[str], tokenize: str = "13a") -> Float[np.ndarray, " n"]:
    """BLEU in percent of each of n ≥ 2 texts with all others as references; its mean is self-BLEU.

    As sacrebleu's sentence_score with its exponential smoothing and effective order, in time linear in the text: a
    clipped count needs, of each n-gram, only the largest count among the other texts, and that is the largest of all
    or, for the text which has that, the second.
    """
    from sacrebleu.metrics.bleu import BLEU  # half a second that only those who measure should pay

    if len(texts) < 2:
        raise BowerbirdError("Self-BLEU compares texts with one another and needs at least two.")
    split = splitter(tokenize)
    tokens = [split(composed(text).rstrip()).split() for text in texts]
    counts = [Counter(chain.from_iterable(_ngrams(t, n) for n in range(1, 5))) for t in tokens]
    largest: dict[tuple[str, ...], tuple[int, int]] = {}
    for own in counts:
        for gram, count in own.items():
            first, second = largest.get(gram, (0, 0))
            largest[gram] = (count, first) if count > first else (first, max(second, count))
    lengths = Counter(map(len, tokens))
    found = []
    for own, t in zip(counts, tokens, strict=True):
        correct, total = [0] * 4, [0] * 4
        for gram, count in own.items():
            first, second = largest[gram]
            total[len(gram) - 1] += count
            correct[len(gram) - 1] += min(count, second if count == first else first)
        others = lengths - Counter([len(t)])
        nearest = min(others, key=lambda length: (abs(length - len(t)), length))
        score = BLEU.compute_bleu(correct, total, len(t), nearest, smooth_method="exp", effective_order=True)
        found.append(score.score)
    return np.array(found)


# ---------------------------------------------------------------------------------------------------------- copying


def copied_spans(texts: Sequence[str], training: Sequence[str]) -> list[Int[np.ndarray, "_"]]:
    """For each character of each text, the length of the longest span from there that is in a training text.

    Exact; see ``bowerbird.metrics.copied`` for how, and for ``longest`` and ``covered``, which sum it up.
    """
    return matches([_code_points(text) for text in texts], [_code_points(text) for text in training])


def _code_points(text: str) -> Int[np.ndarray, " characters"]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)


def least_span(texts: Sequence[str]) -> int:
    """Characters of a copied span from which on it counts towards the copied share, by the script of the texts."""
    return SPAN_HAN if han_share(texts) > 0.5 else SPAN_WORDS
