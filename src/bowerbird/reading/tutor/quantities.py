"""Numbers as people and models write them, in English and Chinese.

A quantity is a number in a sentence: its value, how exactly it was stated, and where it stands.  ``1,510,032``,
``1.51M``, ``2e-4``, ``2×10^-4``, ``50%``, ``three``, ``twenty-five``, ``twice``, ``三``, ``一百二十八``, ``3万`` and
``百分之五十`` are quantities.  Digits inside names (``fc1``, ``Conv2d``) are not.

A statement of a measured value may be rounded: 1.39 states 1.3862, because half a unit of its last digit is 0.005.  A
whole number without suffix is exact, unless "about" stands before it.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_RAISED = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_SCALES = {
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "B": 1e9,
    "G": 1e9,
    "万": 1e4,
    "亿": 1e8,
    "千": 1e3,
    "百万": 1e6,
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "hundred": 1e2,
}
_DIGITS = re.compile(
    r"(?<![A-Za-z_\d.])(?P<sign>(?<![\w)\]])[-−])?"
    r"(?P<body>\d{1,3}(?:[,_]\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:_\d+)*(?:\.\d+)?|\.\d+)"
    r"(?:(?P<exponent>[eE][-+]?\d+)|\s?[×x*·]\s?10\s?(?:\^|\*\*)\s?[{(]?(?P<power>[-−+]?\d+)[)}]?)?"
    r"(?:\s?(?P<scale>百万|万|亿|千|thousand|million|billion|hundred)|(?P<letter>[kKMBG])(?![A-Za-z]))?"
    r"(?P<percent>\s?[%％])?"
)
_PLAIN = {"％": "%", "．": ".", "－": "-", "×": "×"}
_BRACKETED = re.compile(r"[\[(][^\[\]()]*[\])]")
_TENTH_POWER = re.compile(r"(?<![\w.])10\s?\^\s?[{(]?(?P<power>[-−+]?\d+)[)}]?")
_APPROXIMATELY = re.compile(
    r"(?:\b(?:about|around|approximately|roughly|nearly|some|circa|almost)\s|~|≈|约|大约|大概|近|将近|左右)\s*$", re.I
)

_UNITS = dict(zip(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen".split(), range(20), strict=True,
))  # fmt: skip
_TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
_SINGLE_WORDS = {
    "half": 0.5,
    "once": 1,
    "single": 1,
    "sole": 1,
    "twice": 2,
    "double": 2,
    "pair": 2,
    "both": 2,
    "couple": 2,
    "triple": 3,
    "thrice": 3,
    "dozen": 12,
    "quarter": 0.25,
    "third": 3,
    "second": 2,
    "first": 1,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
}
_ORDINALS = {"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"}
_MAGNITUDES = {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
_ENGLISH = re.compile(
    r"(?<![A-Za-z_.`])(?:{w})(?:(?:[\s-]|\sand\s)(?:{w}))*(?![A-Za-z_`])".format(
        w="|".join(sorted([*_UNITS, *_TENS, *_MAGNITUDES, *_SINGLE_WORDS], key=len, reverse=True))
    ),
    re.I,
)
_NOT_A_NUMBER = re.compile(
    r"\b(?:one (?:by|after|another|of|can|could|may|might|must|should|would|has to|needs)\b|(?:this|that|"
    r"which|each|every|the|other|any|no) one\b"
    r"|first of all|at first|in the first place|at once|once (?:again|more)|the (?:other|former|latter) half)",
    re.I,
)

_CHINESE_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_CHINESE_TENS = {"十": 10, "百": 100, "千": 1000}
_CHINESE = re.compile(
    r"[十百千万]分之[零〇一二两三四五六七八九十百点半]+|[一二三四五六七八九]分之[一二两三四五六七八九]|[零〇一二两三四五六七八九十百千万亿]+(?:点[零〇一二三四五六七八九]+)?|半|双|俩|单(?=[个层一])"
)
_CHINESE_WORDS = re.compile(
    "一般|一致|一起|一样|统一|一些|(?<!分)之一|唯一|同一|万一(?!分)|十分(?!之)|四周|一旦|一直|一定|一下|一次性|进一步|"
    "一方面|另一|一边|任一|每一|"
    "逐一|一种|一系列|一维化|归一|一共|一并|三角|千万不|百科|一阶段|第一步|首先|两者|单一|二分类|二元|"
    "二值|二进制|是一个|"
    "作为一个|成一个|为一个|某一|一一|万物|八卦|半监督|半精度|双线性|双向|一来|其一|有一定"
)  # words whose characters count nothing


@dataclass(frozen=True)
class Quantity:
    value: float
    text: str
    start: int
    end: int
    tolerance: float = 0.0
    """How far a measured value may lie from the stated one."""
    percent: bool = False
    ordinal: bool = False

    def states(self, value: float, *, measured: bool) -> bool:
        """Whether this quantity is a fair statement of a value; one that stands in the code is stated exactly."""
        share = 100 if self.percent else 1
        stated, slack = self.value / share, self.tolerance / share
        loose = measured or _rounded_by_form(self.text)
        return abs(value - stated) <= max(slack if loose else 0.0, 1e-9 * abs(stated))


def _rounded_by_form(text: str) -> bool:
    """Whether a statement is rounded by its form, as 1.5M is."""
    return bool(re.search(r"[kKMBG万亿]|million|thousand|billion", text))


def normalise(text: str) -> str:
    """The sentence with digits of other scripts as 0-9 and superscripts as powers; done again, it changes nothing."""
    text = _RAISED.sub(lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    return "".join(str(unicodedata.digit(c)) if c.isdigit() and not c.isascii() else _PLAIN.get(c, c) for c in text)


def quantities(text: str) -> list[Quantity]:
    """Every number of a sentence, in order; overlapping readings keep the longest."""
    text = _BRACKETED.sub(lambda m: re.sub(r"(?<=\d),(?=\d)", ";", m[0]), normalise(text))
    skipped = [m.span() for pattern in (_NOT_A_NUMBER, _CHINESE_WORDS) for m in pattern.finditer(text)]
    found: list[Quantity] = []
    for quantity in sorted(_all(text), key=lambda q: (q.start, -q.end)):
        inside = any(quantity.start < end and start < quantity.end for start, end in skipped) and not _has_digit(
            quantity
        )
        if not inside and (not found or quantity.start >= found[-1].end):
            found.append(quantity)
    return found


def _has_digit(quantity: Quantity) -> bool:
    return any(c.isdigit() and c.isascii() for c in quantity.text)


def _all(text: str) -> Iterator[Quantity]:
    for match in _TENTH_POWER.finditer(text):
        yield Quantity(10.0 ** int(match["power"].replace("−", "-")), match[0], *match.span())
    for match in _DIGITS.finditer(text):
        if not re.match(r"[A-Za-z_]", text[match.end() :]) or _unit_follows(text[match.end() :]):
            yield _of_digits(match, text)
    for match in _ENGLISH.finditer(text):
        if (value := _of_words(match[0])) is not None:
            yield Quantity(value, match[0], *match.span(), ordinal=match[0].lower() in _ORDINALS)
    for match in _CHINESE.finditer(text):
        if (value := _of_chinese(match[0])) is not None:
            ordinal = match.start() > 0 and text[match.start() - 1] == "第"
            yield Quantity(value, match[0], *match.span(), percent=match[0].startswith("百分之"), ordinal=ordinal)


def _unit_follows(rest: str) -> bool:
    return bool(
        re.match(
            r"(?:x(?:\s?\d)|x\b|d\b|D\b|px|dim|th\b|st\b|nd\b|rd\b|ms\b|s\b|MB|GB|KB|bit|step|layer|channel)", rest
        )
    )


def _of_digits(match: re.Match[str], text: str) -> Quantity:
    body = re.sub(r"[, _]", "", match["body"])
    power = int(match["exponent"][1:]) if match["exponent"] else int((match["power"] or "0").replace("−", "-"))
    scale = _SCALES[match["scale"] or match["letter"]] if match["scale"] or match["letter"] else 1.0
    unit = 10.0 ** (power - len(body.partition(".")[2])) * scale
    value = float(body) * 10.0**power * scale
    rounded = "." in body or scale != 1 or bool(match["exponent"] or match["power"])
    if _APPROXIMATELY.search(text[: match.start()]):
        zeros = len(body) - len(body.rstrip("0")) if "." not in body else 0
        rounded, unit = True, unit * 10**zeros
    sign = -1.0 if match["sign"] else 1.0
    ordinal = bool(re.match(r"(?:th|st|nd|rd)\b", text[match.end() :])) or text[: match.start()].rstrip().endswith("第")
    return Quantity(
        sign * value, match[0].strip(), *match.span(), tolerance=unit / 2 * 1.000001 if rounded else 0.0,
        percent=bool(match["percent"]), ordinal=ordinal,
    )  # fmt: skip


def _of_words(words: str) -> float | None:
    """Twenty-five, one hundred and ten, three million; None for words that are no number together."""
    parts = [part for part in re.split(r"[\s-]+", words.lower()) if part != "and"]
    if len(parts) == 1 and parts[0] in _SINGLE_WORDS:
        return _SINGLE_WORDS[parts[0]]
    total, current = 0.0, 0.0
    for part in parts:
        if part in _UNITS:
            current += _UNITS[part]
        elif part in _TENS:
            current += _TENS[part]
        elif part == "hundred":
            current = max(current, 1) * 100
        elif part in _MAGNITUDES:
            total, current = total + max(current, 1) * _MAGNITUDES[part], 0.0
        elif part in ("dozen", "half"):
            current = max(current, 1) * _SINGLE_WORDS[part]
    return total + current


def _of_chinese(text: str) -> float | None:
    if "分之" in text and not text.startswith("百分之"):
        below, _, above = text.partition("分之")
        return (_of_chinese(above) or 0.0) / (_of_chinese(below) or 1.0)
    if text.startswith("百分之"):
        return 50.0 if text == "百分之半" else _of_chinese(text.removeprefix("百分之"))
    if text in ("半", "双", "俩", "单"):
        return {"半": 0.5, "双": 2.0, "俩": 2.0, "单": 1.0}[text]
    whole, _, fraction = text.partition("点")
    if all(c in _CHINESE_DIGITS for c in whole):
        value = float("".join(str(_CHINESE_DIGITS[c]) for c in whole))
    else:
        value = _of_chinese_units(whole)
    return value + (float("0." + "".join(str(_CHINESE_DIGITS[c]) for c in fraction)) if fraction else 0.0)


def _of_chinese_units(text: str) -> float:
    total, section, digit = 0.0, 0.0, 0.0
    for c in text:
        if c in _CHINESE_DIGITS:
            digit = float(_CHINESE_DIGITS[c])
        elif c in _CHINESE_TENS:
            section, digit = section + (digit or 1.0) * _CHINESE_TENS[c], 0.0
        else:
            total, section, digit = (total + section + digit or 1.0) * (1e4 if c == "万" else 1e8), 0.0, 0.0
    return total + section + digit
