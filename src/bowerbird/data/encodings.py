"""Which encoding names were written in, where nothing says so: names in zips without the UTF-8 flag, and on disk.

All names of one archive were written by one program, so one encoding is chosen for all of them.  UTF-8 is taken
whenever all names are valid UTF-8.  Otherwise each encoding has a set of common characters, and the one is taken under
which the names are the most likely:

    log P(names | encoding) = Σ over the characters of all distinct words:  log(0.98 / size)  a common one
                                                                            log(0.02 / 20000)  any other

less what is known beforehand: how much rarer such archives are than Chinese ones (``rarer``).  Names of two characters
can be likely in several encodings, so the choice is a guess, and whoever shows the names has to say so.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

UTF_8 = "utf-8"
OF_ANOTHER_SCRIPT = math.log(0.02 / 20_000)
WORD = re.compile(rb"[0-9A-Za-z\x80-\xff]*[\x80-\xff][@-~\x80-\xff]*")
"""Bytes beyond ASCII with what is next to them; second bytes of Chinese and Japanese can be any from @ to ~."""


@dataclass(frozen=True)
class Reading:
    """An encoding, and which of its characters are common."""

    encoding: str
    size: int
    """How many characters are common."""
    rarer: float
    """The factor by which archives in this encoding are rarer than in the first, so that two characters of simplified
    Chinese do not become Korean."""
    common: Callable[[str, bytes], bool]
    """Whether a character is, from itself and its bytes."""
    is_plausible: Callable[[str], bool] = lambda word: True
    """Whether a word looks like one."""


def chosen(names: Iterable[bytes]) -> str:
    """The encoding of names of which none says what it is in; "" if no encoding can have written them all."""
    names = list(names)
    if all(_is(name, UTF_8) for name in names):
        return UTF_8
    words = sorted({word for name in names for word in WORD.findall(name)})
    able = [reading for reading in READINGS if all(_is(name, reading.encoding) for name in names)]
    scores = {reading.encoding: _likelihood(words, reading) for reading in able}
    return max(scores, key=lambda name: scores[name], default="")


def _is(name: bytes, encoding: str) -> bool:
    try:
        return not any(unicodedata.category(one) in ("Cc", "Cn", "Co") for one in name.decode(encoding))
    except UnicodeDecodeError:
        return False


def _likelihood(words: list[bytes], reading: Reading) -> float:
    return sum(_of_word(word, reading) for word in words) - math.log(reading.rarer)


def _of_word(word: bytes, reading: Reading) -> float:
    text = word.decode(reading.encoding, errors="replace")
    foreign = [character for character in text if not character.isascii()]
    whole = reading.is_plausible(text)
    common = math.log(0.98 / reading.size)
    return sum(
        common if whole and reading.common(one, one.encode(reading.encoding, "replace")) else OF_ANOTHER_SCRIPT
        for one in foreign
    )


# ------------------------------------------------------------------------------------------- what is common


def _hanzi(character: str, raw: bytes) -> bool:
    """Level 1 of GB 2312: the 3,755 characters of everyday use."""
    return len(raw) == 2 and 0xB0 <= raw[0] <= 0xD7 and raw[1] >= 0xA1


def _kana_or_kanji(character: str, raw: bytes) -> bool:
    """Kana of full width and level 1 of JIS X 0208; the long vowel mark."""
    return len(raw) == 2 and (raw[0] in (0x82, 0x83) or b"\x88\x9f" <= raw <= b"\x98\x72" or raw == b"\x81\x5b")


def _traditional(character: str, raw: bytes) -> bool:
    """Level 1 of Big5."""
    return len(raw) == 2 and b"\xa4\x40" <= raw <= b"\xc6\x7e"


def _hangul(character: str, raw: bytes) -> bool:
    """Syllables without a doubled consonant, a rare vowel or a rare end: 1,316 of the 2,350 of KS X 1001."""
    code = ord(character) - 0xAC00
    if not 0 <= code < 11172 or len(raw) != 2:
        return False
    begin, vowel, end = code // 588, code % 588 // 28, code % 28
    return (
        begin not in (1, 4, 8, 10, 13) and vowel not in (3, 7, 10, 14, 15, 17) and end in (0, 1, 4, 8, 16, 17, 19, 21)
    )


def _letter(character: str, raw: bytes) -> bool:
    return unicodedata.category(character) in ("Ll", "Lu")


def _european(word: str) -> bool:
    """Letters with marks among plain ones, as in most languages of Latin script."""
    letters = [one for one in word if one.isalpha()]
    latin = all("LATIN" in unicodedata.name(one, "") for one in letters)
    return latin and 2 * sum(not one.isascii() for one in letters) <= max(2, len(letters)) and _case(word)


def _cyrillic(word: str) -> bool:
    return all("CYRILLIC" in unicodedata.name(one, "") for one in word if one.isalpha()) and _case(word)


def _case(word: str) -> bool:
    """No capital after a small letter."""
    return not any(a.islower() and b.isupper() for a, b in pairwise(word))


READINGS = (
    Reading("gb18030", 3755, 1, _hanzi),
    Reading("cp932", 3134, 2, _kana_or_kanji),
    Reading("big5", 5401, 4, _traditional),
    Reading("cp949", 1316, 15, _hangul),
    Reading("cp437", 60, 4, _letter, _european),
    Reading("cp866", 64, 8, _letter, _cyrillic),
    Reading("cp1252", 64, 8, _letter, _european),
    Reading("cp1251", 64, 8, _letter, _cyrillic),
)
