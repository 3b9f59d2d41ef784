"""Words in every script, and the tokeniser that suits a script.

A *word* is a run of letters, digits and the marks on them, in lower case.  In scripts that write no spaces between
words (Han, kana, Thai, Lao, Khmer, Burmese, Javanese …) it is one grapheme cluster: a letter with all marks on it.
Texts are brought to Unicode's form NFC first, so that é is one letter however it was typed.  No word is ever split
between a letter and its marks, nor at the joiners that Persian and the scripts of India write inside words.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regex import Pattern

WORDS = "letters, digits and their marks, NFC, lower case; of scripts without spaces, grapheme clusters"
"""What a protocol says of words."""
GRAPHEMES = "graphemes"
"""Our tokeniser for scripts without spaces that sacrebleu cannot split without a dictionary."""

_KANA = r"\p{Hiragana}\p{Katakana}\u30fc\uff70"
_UNSPACED = rf"[[\p{{L}}\p{{Nl}}]&&[\p{{Han}}{_KANA}\p{{LB=SA}}\p{{Javanese}}\p{{Balinese}}]]"
_SPACED, _MARKED = rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}]", rf"[[\p{{L}}\p{{N}}\p{{Mn}}\p{{Mc}}]--{_UNSPACED}]"
_WORD = rf"(?={_UNSPACED})\X|{_SPACED}(?:[\u200c\u200d]*{_MARKED})*"


@cache
def _pattern(pattern: str) -> "Pattern[str]":
    import regex  # what only those who measure should pay

    return regex.compile(pattern, regex.V1)


def words(text: str) -> list[str]:
    """The words of a text (see the module's docstring); of English ones the same as rouge-score's."""
    return _pattern(_WORD).findall(composed(text.lower()))


def composed(text: str) -> str:
    """The text in Unicode's form NFC."""
    return unicodedata.normalize("NFC", text)


def graphemes(text: str) -> str:
    """The words and marks of a text as they are, with spaces between them: what n-grams of BLEU are made of."""
    return " ".join(_pattern(rf"{_WORD}|(?!\s)\X").findall(composed(text)))


def _letters(texts: Sequence[str], of: str) -> int:
    return sum(len(_pattern(of).findall(composed(text))) for text in texts)


def bleu_tokenizer(texts: Sequence[str]) -> str:
    """The tokeniser for texts like these, by the script of most of their letters.

    Chinese: sacrebleu's ``zh``.  Other scripts without spaces, Japanese among them: ``graphemes``.  Latin, Greek and
    Cyrillic: sacrebleu's default ``13a``.  Others, whose punctuation 13a does not know: its ``intl``.
    """
    letters, unspaced = _letters(texts, r"\p{L}"), _letters(texts, _UNSPACED)
    if 2 * unspaced > letters:
        return "zh" if _letters(texts, r"\p{Han}") > 0.9 * unspaced else GRAPHEMES
    european = _letters(texts, r"[\p{L}&&[\p{Latin}\p{Greek}\p{Cyrillic}]]")
    return "13a" if 2 * european >= letters else "intl"


def splitter(tokenizer: str) -> Callable[[str], str]:
    """A text → its tokens, with spaces between them."""
    from sacrebleu.metrics.bleu import BLEU  # half a second that only those who measure should pay

    return graphemes if tokenizer == GRAPHEMES else BLEU(tokenize=tokenizer).tokenizer
