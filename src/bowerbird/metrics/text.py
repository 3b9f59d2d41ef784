"""Text metrics: how varied generated texts are, how much of them was copied, and whether they keep a form.

A *word* is a run of letters and digits in lower case, or one character of a script that writes no spaces between words
(Han characters, kana); everything else separates.  Copied spans count characters as they are: letter for letter, with
spaces and line breaks.

    distinct-n   different n-grams of words over all n-grams   (Li et al. 2016, arXiv:1510.03055, who divide by words)
    self-BLEU    BLEU of each text with all others as references, mean   (Zhu et al. 2018, arXiv:1802.01886)

Distinct-n falls with the amount of text.  So ``measure_texts`` takes its mean over blocks of ``BLOCK`` n-grams, which
does not.  Self-BLEU and the longest copied span grow with the number of samples, which is in the protocol.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from jaxtyping import Float, Int

from bowerbird.errors import BowerbirdError, unknown
from bowerbird.metrics.averages import Average, mean, ratio, subset
from bowerbird.metrics.copied import covered, longest, matches
from bowerbird.metrics.measurement import METRICS, Measurement, Protocol, measured, with_data

DISTINCT_METRICS = ("distinct_1", "distinct_2", "distinct_3")
COPY_METRICS = ("longest_copied_span", "copied_share")
TEXT_METRICS = (*DISTINCT_METRICS, "self_bleu", *COPY_METRICS)

BLOCK = 1000
"""n-grams among which distinct ones are counted."""
SPAN_WORDS, SPAN_HAN = 32, 8
"""Characters from which on a copied span counts towards the copied share: about six words, or eight Han characters."""

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
UNSPACED = HAN + "\u3041-\u30ff"
_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
_HAN = re.compile(rf"[{HAN}]")
_VERSE_END = re.compile(r"[\n，。！？；、,.!?;]+")


def measure_texts(
    samples: Sequence[str],
    reference: Sequence[str],
    training: Sequence[str],
    *,
    metrics: Sequence[str] | None = None,
    form: tuple[int, int] | None = None,
    span: int | None = None,
    protocol: Protocol = Protocol(),
) -> list[Measurement]:
    """The chosen ``TEXT_METRICS`` of ``samples`` (None: all that apply), in the order of ``METRICS``.

    ``reference`` are unseen texts of the kind and length of the samples: as many of them as there are samples, chosen
    at random with a fixed seed, give the value 'data' of real text that each protocol has.  ``training`` is the whole
    training text.  ``form`` (lines, characters) adds ``text_form``.  ``span`` is the least number of characters of a
    copied span that counts (None: ``SPAN_HAN`` where most of the reference is Han characters, else ``SPAN_WORDS``).
    ``protocol`` names the reference data and may have parameters of its own (how the samples were drawn).
    """
    if not samples or not reference:
        raise BowerbirdError("Text metrics need at least one sample and one reference text.")
    if metrics is None:
        metrics = [name for name in TEXT_METRICS if len(samples) > 1 or name != "self_bleu"]
    for name in metrics:
        if name not in TEXT_METRICS:
            raise unknown("metric of texts", name, TEXT_METRICS)
    unseen = subset(reference, len(samples))
    protocol = replace(protocol, n_generated=len(samples), n_reference=len(unseen))
    results = []
    for n, name in enumerate(DISTINCT_METRICS, start=1):
        if name in metrics:
            results.append(_distinct(name, samples, unseen, n, protocol))
    if "self_bleu" in metrics:
        results.append(_self_bleu(samples, unseen, protocol))
    if form is not None:
        results.append(_form(samples, *form, protocol))
    if set(metrics) & set(COPY_METRICS):
        results += _copied(samples, unseen, training, span, protocol)
    order = list(METRICS)
    return sorted((m for m in results if m.name in (*metrics, "text_form")), key=lambda m: order.index(m.name))


# ------------------------------------------------------------------------------------------------------------ words


def words(text: str) -> list[str]:
    """The words of a text (see the module's docstring); of English ones the same as rouge-score's."""
    return _WORD.findall(text.lower())


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


def _form(samples: Sequence[str], lines: int, characters: int, protocol: Protocol) -> Measurement:
    value, stderr = mean([share_of_form([text], lines, characters) for text in samples])
    asked = with_data(protocol, math.nan, lines=lines, characters=characters)
    return measured("text_form", value, replace(asked, n_reference=0), stderr)


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


def _distinct(name: str, samples: Sequence[str], unseen: Sequence[str], n: int, protocol: Protocol) -> Measurement:
    grams = sum(max(len(words(text)) - n + 1, 0) for text in samples)
    block = min(BLOCK, grams)
    real = distinct_in_blocks(unseen, n, max(block, 1))[0]
    value, stderr = distinct_in_blocks(samples, n)
    return measured(name, value, with_data(protocol, real, block=block), stderr)


def self_bleu(texts: Sequence[str], tokenize: str = "13a") -> Float[np.ndarray, " n"]:
    """BLEU in percent of each of n ≥ 2 texts with all others as references; its mean is self-BLEU.

    As sacrebleu's sentence_score with its exponential smoothing and effective order, in time linear in the text: a
    clipped count needs, of each n-gram, only the largest count among the other texts, and that is the largest of all
    or, for the text which has that, the second.
    """
    from sacrebleu.metrics.bleu import BLEU  # half a second that only those who measure should pay

    if len(texts) < 2:
        raise BowerbirdError("Self-BLEU compares texts with one another and needs at least two.")
    split = BLEU(tokenize=tokenize).tokenizer
    tokens = [split(text.rstrip()).split() for text in texts]
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


def _self_bleu(samples: Sequence[str], unseen: Sequence[str], protocol: Protocol) -> Measurement:
    """Its standard error takes the samples' values for independent."""
    import sacrebleu

    tokenize = bleu_tokenizer(unseen)
    real = float(self_bleu(unseen, tokenize).mean()) if len(unseen) > 1 else float("nan")
    value, stderr = mean(self_bleu(samples, tokenize))
    signature = f"eff:yes|tok:{tokenize}|smooth:exp|version:{sacrebleu.__version__}"
    return measured("self_bleu", value, with_data(protocol, real, signature=signature), stderr)


def bleu_tokenizer(texts: Sequence[str]) -> str:
    """sacrebleu's tokeniser for texts like these: zh where most letters are Han characters, else its default, 13a."""
    return "zh" if han_share(texts) > 0.5 else "13a"


# ---------------------------------------------------------------------------------------------------------- copying


def copied_spans(texts: Sequence[str], training: Sequence[str]) -> list[Int[np.ndarray, "_"]]:
    """For each character of each text, the length of the longest span from there that is in a training text.

    Exact; see ``bowerbird.metrics.copied`` for how, and for ``longest`` and ``covered``, which sum it up.
    """
    return matches([_code_points(text) for text in texts], [_code_points(text) for text in training])


def _code_points(text: str) -> Int[np.ndarray, " characters"]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)


def _copied(
    samples: Sequence[str], unseen: Sequence[str], training: Sequence[str], span: int | None, protocol: Protocol
) -> list[Measurement]:
    if span is None:
        span = SPAN_HAN if han_share(unseen) > 0.5 else SPAN_WORDS
    found = copied_spans([*samples, *unseen], training)
    made, real = found[: len(samples)], found[len(samples) :]
    protocol = replace(protocol, split="train", n_reference=len(training))
    share, stderr = ratio([covered(match, span) for match in made], [len(match) for match in made])
    real_share, _ = ratio([covered(match, span) for match in real], [len(match) for match in real])
    top, real_top = max(map(longest, made)), max(map(longest, real))
    counted = {"unseen": len(unseen)}
    return [
        measured("longest_copied_span", top, with_data(protocol, real_top, **counted)),
        measured("copied_share", share, with_data(protocol, real_share, span=span, **counted), stderr),
    ]
