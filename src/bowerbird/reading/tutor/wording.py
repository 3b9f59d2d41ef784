"""Words: what a sentence speaks of, in concepts that English, Chinese and code have in common (glossary.txt).

"convolutional", "卷积" and ``Conv2d`` are one concept, ``conv``, so that a question in one language finds what is said
in the other, or in code.
"""

import re
from collections.abc import Iterator
from pathlib import Path

_NEUTRAL = frozenset(
    """a an the this that these those it its is are was were be been being has have having had of in on at by for to
    from with as and or which where when here there also into onto per via between within through over using use
    uses used i.e. e.g. layer layers module modules block blocks network networks model models class classes
    function functions method methods program code script line lines value values number numbers named called
    name names defined defines define definition set sets equal equals holds hold given gives give contains
    contain consists consist comprises made up part parts count counts counted total altogether term terms
    object instance tensor tensors shown stated written stands stand following each statement expression call
    calls variable argument constant type kind built build builds constructs created creates computed computes
    compute applied applies apply does do s we you see maps map mapping vector vectors entry entries element
    elements subclass inherits defining sits lies inside itself one two both second third pair once twice double
    half hundred thousand million trainable exactly about approximately around roughly nearly measured observed
    run during whose their them they default goes fed feeds passed passes ran runs running mode training
    makes filled drawn distribution come comes""".split()
)
_NEUTRAL_CHINESE = sorted(
    """概率 服从 分布
    的 了 是 在 和 与 或 为 有 个 这 那 该 其 中 里 上 下 由 从 到 被 把 将 对 用 使用 采用 通过 共有 一共 共
    总共 总 数 数量 值 等于 等 层 模块 网络 模型 类 函数 方法 程序 代码 脚本 行 第 名为 称为 叫 叫做 定义 定义了
    设置 设为 设 取 包含 含有 包括 组成 构成 部分 调用 变量 参数量 常数 类型 种 每 张量 这里 此处 处 也 并 以及
    及 映射 向量 元素 继承 约 大约 大概 运行 测得 观察 它 它们 分别 则 均 即 计算 创建 得到 应用 作为 作 成 时
    内 送入 传入 传给 喂给 经过 又 于 以 所 出 要 会 条 次 块 所示 语句 一个 两个 个数 百 千 万 零 一 二 两
    三 四 五 六 七 八 九 十 双 半 亿 点 单 分之 张 组 拥有 具有 具 属于""".split(),
    key=len,
    reverse=True,
)

_FORMS: dict[str, str] = {}
_CHINESE_FORMS: dict[str, str] = {}
_CODE: dict[str, set[str]] = {}
for _row in Path(__file__).with_name("glossary.txt").read_text(encoding="utf-8").splitlines()[1:]:
    _concept, _, _rest = _row.partition(":")
    _in_english, _in_chinese, _in_code = (part.split() for part in _rest.split("|"))
    _FORMS |= dict.fromkeys([*_in_english, _concept], _concept)
    _CHINESE_FORMS |= dict.fromkeys(_in_chinese, _concept)
    for _token in _in_code:
        _CODE.setdefault(_token, set()).add(_concept)

_PHRASES = sorted((form for form in _FORMS if "-" in form), key=len, reverse=True)
_PHRASE = re.compile(r"\b(?:" + "|".join(re.escape(p).replace(r"\-", r"[\s-]+") for p in _PHRASES) + r")s?\b", re.I)
_WORD = re.compile(r"[A-Za-z][A-Za-z']*(?:_[A-Za-z0-9]+)*\d*[A-Za-z]*|[\u4e00-\u9fff]+")
_CHINESE_TABLE = sorted([*_CHINESE_FORMS, *_NEUTRAL_CHINESE], key=len, reverse=True)


def concept_of(word: str) -> str:
    """The concept of one English word, or the word itself in its singular."""
    word = word.lower().removesuffix("'s").rstrip("'")
    if word in _FORMS:
        return _FORMS[word]
    for ending in ("s", "es", "ed", "d", "ing"):
        if word.endswith(ending) and word[: -len(ending)] in _FORMS:
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
        elif match[0].lower() not in _NEUTRAL:
            yield match.start(), match.end(), concept_of(match[0])


def _chinese(run: str, offset: int) -> Iterator[tuple[int, int, str]]:
    """Longest words first, left to right; a character that no word covers is a concept of its own."""
    i = 0
    while i < len(run):
        word = next((w for w in _CHINESE_TABLE if run.startswith(w, i)), run[i])
        if word in _CHINESE_FORMS:
            yield offset + i, offset + i + len(word), _CHINESE_FORMS[word]
        elif word not in _NEUTRAL_CHINESE:
            yield offset + i, offset + i + 1, word
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
