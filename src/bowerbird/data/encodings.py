"""Which encoding names and texts were written in, where nothing says so: names in zips without the UTF-8 flag, and on
disk; texts that are not UTF-8.

All names of one archive were written by one program, so one encoding is chosen for all of them.  UTF-8 is taken
whenever all names are valid UTF-8.  Otherwise each encoding has a set of common characters, and the one is taken under
which the names are the most likely:

    log P(names | encoding) = Σ over the characters of all distinct words:  log(0.98 / size)  a common one
                                                                            log(0.02 / 20000)  any other

less what is known beforehand: how much rarer such archives are than Chinese ones (``rarer``).  Names of two characters
can be likely in several encodings, so the choice is a guess, and whoever shows the names has to say so.

Of texts all characters count, since the second bytes of Chinese and all of UTF-16 can be ASCII, and a few dozen letters
that are the most frequent of a language are told from the other common ones.
"""

import codecs
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, pairwise

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


# ------------------------------------------------------------------------------------------- texts

HAN = "的一是不了在人有我他中大上不日山之天也子"
CYRILLIC = "оеаинтсрвлкмдпу"
KANA = "のにはをたがでしてとい、。"
JAMO = "이다는에의을가고하지한도로"
GREEK, ARABIC = "αοιετσνηυρπκμλς", "اليمنوتربة"
CENTRAL = "łęąśżźćńěščřžýáíéůőűóÁŁŚŠČ"
SIMPLIFIED, TRADITIONAL = HAN + "这来国们个说时为，。", HAN + "這來國們個說時為，。"


def _of(script: str) -> Callable[[str, bytes], bool]:
    return lambda character, raw: unicodedata.name(character, "").startswith(script)


@lru_cache(maxsize=1 << 16)
def _bytes(character: str, encoding: str) -> bytes:
    return character.encode(AS.get(encoding, encoding), errors="ignore")


AS = {"euc_jp": "cp932", "shift_jis": "cp932", "euc_kr": "cp949", "big5hkscs": "big5"}
"""By the bytes of which encoding the characters of another are known to be common."""


def _in_unicode(reading: Reading, encoding: str, rarer: float) -> Reading:
    """The characters of an encoding in another that has them all."""
    common = lru_cache(maxsize=1 << 16)(lambda one: reading.common(one, _bytes(one, reading.encoding)))
    return Reading(encoding, reading.size, reading.rarer * rarer, lambda one, raw: common(one), reading.is_plausible)


def _one_alphabet(word: str) -> bool:
    """Letters in the case and of the length of words, none of them Latin."""
    return len(word) <= LONGEST_WORD and _case(word) and not any(map(str.isascii, word))


def _with_marks(word: str) -> bool:
    """Latin letters, a few of them plain."""
    n_marked = sum(not one.isascii() for one in word)
    return 4 * n_marked <= max(4, 3 * len(word)) and _case(word) and all(map(_of("LATIN"), word, cycle([b""])))


def _thai(word: str) -> bool:
    return not any(map(str.isascii, word))


LONGEST_WORD = 20
TEXTS = {
    Reading("gb18030", 3755, 1, _hanzi): SIMPLIFIED,
    Reading("big5", 5401, 2, _traditional): TRADITIONAL,
    Reading("shift_jis", 3134, 2, _kana_or_kanji): KANA,
    Reading("euc_jp", 3134, 4, _kana_or_kanji): KANA,
    Reading("euc_kr", 1316, 4, _hangul): JAMO,
    Reading("cp949", 1316, 4, _hangul): JAMO,
    Reading("cp932", 3134, 2, _kana_or_kanji): KANA,
    Reading("big5hkscs", 5401, 2, _traditional): TRADITIONAL,
    Reading("cp1251", 64, 8, _letter, _cyrillic): CYRILLIC,
    Reading("koi8_r", 64, 8, _letter, _cyrillic): CYRILLIC,
    Reading("cp1253", 60, 64, _of("GREEK"), _one_alphabet): GREEK,
    Reading("iso8859_7", 60, 64, _of("GREEK"), _one_alphabet): GREEK,
    Reading("cp1255", 27, 64, _of("HEBREW"), _one_alphabet): "יהולאמתברש",
    Reading("cp1256", 40, 64, _of("ARABIC"), _one_alphabet): ARABIC,
    Reading("iso8859_6", 40, 64, _of("ARABIC"), _one_alphabet): ARABIC,
    Reading("cp874", 70, 64, _of("THAI"), _thai): "านรกเงอ่้ลม",
    Reading("cp1252", 64, 1, _letter, _with_marks): "éèàçêäöüßñóáíåøã’“”",
    Reading("cp1250", 64, 8, _letter, _with_marks): CENTRAL,
    Reading("iso8859_2", 64, 8, _letter, _with_marks): CENTRAL,
    Reading("cp1254", 64, 8, _letter, _with_marks): "ışğçöüİŞ",
    Reading("latin-1", 64, 2, _letter, _with_marks): "éèàçêäöüßñóáíåøã",
}
TEXTS |= {
    _in_unicode(reading, encoding, rarer): frequent
    for reading, frequent in TEXTS.items()
    for encoding, rarer in (("utf-16-le", 4), ("utf-16-be", 8))
    if reading.encoding in ("gb18030", "big5", "shift_jis", "cp949", "cp1251", "cp1252")
}
"""Encodings of texts, UTF-16 for each script, and the most frequent characters beyond ASCII; the first of equally
likely ones is proposed."""
SMALL, PRINTED, CONTROL = math.log(1 / 35), math.log(1 / 300), math.log(1e-6)
"""log P of an ASCII letter or space, of any other that is printed, and of a control character."""
CLOSE = math.log(100)
"""Encodings that make a text less likely than the first by no more than this factor may be meant as well."""


def of_text(sample: bytes, is_head: bool, without: str = "") -> list[str]:
    """The encodings that a text may have, the likeliest first; none if it cannot be told.

    Of encodings in which it reads the same the most usual one stands for all: the first in ``TEXTS``.
    ``sample`` begins with a line or, if ``is_head``, with the file: what is well elsewhere is no UTF-16.
    """
    scores: dict[str, float] = {}
    for reading in TEXTS:
        if (name := reading.encoding) != without and (is_head or not name.startswith("utf-16")):
            scores[name] = max(_of_text(sample, reading), scores.get(name, -math.inf))
    best = max(scores, key=lambda name: scores[name])
    close = [name for name in sorted(scores, key=lambda name: -scores[name]) if scores[name] > scores[best] - CLOSE]
    alike: dict[str, list[str]] = {}
    for name in close if scores[best] > -math.inf else ():
        alike.setdefault(_decoded(sample, name), []).append(name)
    return [min(names, key=[*scores].index) for names in alike.values()]


def is_utf_16(head: bytes) -> bool:
    """Whether bytes with a NUL among them are more likely UTF-16 than ASCII with a stray one."""
    head = head[:4096]
    as_ascii = sum(map(_of_ascii, head.decode("latin-1")))
    return any(_of_text(head, reading) > as_ascii for reading in TEXTS if reading.encoding.startswith("utf-16"))


def _decoded(sample: bytes, encoding: str) -> str:
    """Without a character that the end of the sample has cut."""
    return codecs.getincrementaldecoder(encoding)().decode(sample)


def _of_text(sample: bytes, reading: Reading) -> float:
    """log P(sample | encoding); -∞ if bytes do not fit, or less than half of the characters beyond ASCII are common."""
    try:
        text = _decoded(sample, reading.encoding)
    except UnicodeDecodeError:
        return -math.inf
    implausible: Counter[str] = Counter()
    for word, count in Counter(WORDS.findall(text)).items():
        if not reading.is_plausible(word):
            implausible.update({one: count * n for one, n in Counter(word).items()})
    total, n_common, n_beyond = -math.log(reading.rarer), 0, 0
    for one, count in Counter(text).items():
        if one <= "\x7f":
            total += count * _of_ascii(one)
            continue
        n, frequent = count - implausible[one], one in TEXTS[reading]
        common = frequent or unicodedata.category(one)[0] == "P" or reading.common(one, _bytes(one, reading.encoding))
        part = OF_LETTERS if reading.size < 1000 else OF_MANY
        p = part / len(TEXTS[reading]) if frequent else (0.98 - part) / reading.size
        n_common, n_beyond = n_common + n * common, n_beyond + count
        total += n * math.log(p) + (count - n) * OF_ANOTHER_SCRIPT if common else count * OF_ANOTHER_SCRIPT
    return total if 2 * n_common > n_beyond or not n_beyond else -math.inf


def _of_ascii(one: str) -> float:
    if one.islower() or one in " \n\r\t":
        return SMALL
    return PRINTED if one.isprintable() or one == "\x1a" else CONTROL


OF_LETTERS, OF_MANY = 0.7, 0.25
"""Which part of a text the frequent characters are: of an alphabet, of thousands."""
WORDS = re.compile(r"(?:[^\W\d_]|[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0e31-\u0e4e])+")
"""Letters, and the marks that stand above and below them."""
