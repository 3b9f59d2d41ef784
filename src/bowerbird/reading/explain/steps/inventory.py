"""Step one: what is here, and what was needed to run it."""

import re
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.exercised import Exercised
from bowerbird.reading.explain.reading import Block
from bowerbird.reading.explain.text import Piece, Ref, Text, joined, name, number, quote
from bowerbird.reading.explain.writer import Writer
from bowerbird.reading.facts import Fact

TITLE = ("What is here, and what was needed to run it", "这里有什么，运行它需要什么")
FAMILIES = {
    "gan": ("a generative adversarial network", "生成对抗网络（GAN）"),
    "vae": ("a variational autoencoder", "变分自编码器（VAE）"),
    "diffusion": ("a diffusion model", "扩散模型"),
    "transformer": ("a transformer", "Transformer 模型"),
    "recurrent": ("a recurrent network", "循环神经网络"),
    "classifier": ("a classifier", "分类器"),
    "other": ("a program of no family that is known here", "不属于已知家族的程序"),
}
MOST_NEVER = 8
_REASONS = (
    ("the package is not installed", "该软件包没有安装"),
    ("a progress bar that shows nothing", "不显示任何内容的进度条"),
    ("it is not there; short text or made-up numbers took its place", "文件不存在，用短文本或虚构的数字代替"),
    ("there is no GPU; everything runs on the CPU", "没有 GPU，一切在 CPU 上运行"),
    ("pictures are recorded, not drawn", "图片被记录，但不绘制"),
    ("a logger that sends nothing", "不发送任何内容的日志器"),
    ("a logger that writes nothing", "不写任何内容的日志器"),
    ("smaller, so that it runs within the time", "缩小规模，以便在限时内运行"),
    ("its data would be downloaded", "它的数据需要下载"),
    ("there is no network", "没有网络"),
    ("pictures are not drawn", "不绘制图片"),
    ("its models and tokenizers would be downloaded", "它的模型和分词器需要下载"),
    ("there is no notebook", "没有运行笔记本"),
    ("the program only defines it; built with these arguments", "程序只定义了它，用这些参数构造"),
    ("the program does not call it; given tensors of shape", "程序没有调用它，输入张量的形状为"),
    ("the name is not imported; the usual library was taken", "名称没有导入，采用了常用的库"),
    ("the name is not defined; the CPU was taken", "名称没有定义，采用了 CPU"),
    ("the name is not defined; settings with usual values were taken", "名称没有定义，采用了取常用值的设置"),
    ("the name is not defined; a usual value was taken", "名称没有定义，采用了常用的值"),
    ("the name is not defined; a stand-in took its place", "名称没有定义，用替身代替"),
    ("what is written outside the working folder goes to a scratch folder", "写到工作目录之外的内容改存到临时目录"),
    ("it is not there; stand-in pictures took its place", "文件夹不存在，用替身图片代替"),
    ("the files are not there; stand-in pictures took their place", "文件不存在，用替身图片代替"),
    ("there is no network; short text took its place", "没有网络，用短文本代替"),
    ("the file is not there; modules keep their initial weights", "文件不存在，网络保留初始权重"),
    ("nobody is asked; the answer is '1'", "没有人可问，回答一律为 '1'"),
)
_REASONS_WITH_VALUES = (
    (
        r"the name is not defined; a loader of (\(.*?\)) stand-in images was taken",
        r"名称没有定义，采用了 \1 替身图像的加载器",
    ),
    (r"the name is not defined; (\(.*?\)) stand-in images were taken", r"名称没有定义，采用了 \1 的替身图像"),
    (r"a loader gives (\d+) batches of its data set", r"每个加载器只给出数据集的 \1 个批次"),
    (r"the argument is required; (.*) was taken", r"该参数必须给出，取了 \1"),
    (r"\s*\(line (\d+)\)", r"（第 \1 行）"),
)


def write(w: Writer) -> Iterator[Block]:
    yield from _what(w)
    yield from _definitions(w)
    yield from _ran(w)
    yield from _stand_ins(w)
    yield from _cut(w)


def _what(w: Writer) -> Iterator[Block]:
    family = w.study.facts.first("program.family")
    files = w.study.facts.of("source.file")
    if family is not None:
        en, zh = FAMILIES[family.subject]
        reasons = [name(family, "reasons", i) for i, r in enumerate(family["reasons"]) if " " not in r]
        kind = Ref(w.words(en, zh), family.id, "general", family.subject)
        if reasons:
            yield w.said("This is {k}: its text says {r}.", "这是{k}：源码中出现 {r}。", k=kind, r=reasons)
        else:
            yield w.said("This is {k}.", "这是{k}。", k=kind)
    for fact in files:
        if fact["docstring"]:
            yield w.said("{f} says of itself: “{d}”", "{f} 的自述：“{d}”", f=name(fact), d=quote(fact, "docstring"))
    head = (
        ("file", "文件"),
        ("lines", "行数"),
        ("classes", "类"),
        ("networks among them", "其中网络"),
        ("functions", "函数"),
    )
    columns = ("lines", "classes", "modules", "functions")
    yield w.table(head, [[name(f), *(number(f, c) for c in columns)] for f in files[:20]])
    for words in w.study.source.mended:
        fact = w.study.add("source.mended", w.study.source.path.name, {"what": words})
        yield w.said(
            "It is no Python as it stands, and was read so: {m}.", "原文不是合法的 Python，按此读取：{m}。",
            m=quote(fact, "what"),
        )  # fmt: skip
    yield from _driver(w)


def _driver(w: Writer) -> Iterator[Block]:
    """The stand-in program that drives a recipe of ours."""
    study = w.study
    if study.shown and study.source.main != study.file:
        fact = next(f for f in study.facts.of("source.file") if f.file == study.source.main)
        yield w.said(
            "It is a recipe, not a program: {n} drives it, a stand-in for data and trainer, written for this reading.",
            "它是一个配方，而不是完整的程序：由 {n} 驱动，它是为这次解读写的替身，代替数据和训练器。", n=name(fact),
        )  # fmt: skip
        code = w.excerpt(fact.file, 1, fact["lines"])
        if code is not None:
            yield code


def _definitions(w: Writer) -> Iterator[Block]:
    rows: list[list[Piece]] = []
    for fact in sorted(w.study.facts.of("define.class"), key=lambda f: (f.file, f.line or 0))[:30]:
        kind = w.say("class", "类")
        if fact["module"]:
            kind = w.say("network", "网络")
        rows.append([name(fact), kind, _range(w, fact), _doc(fact)])
    for fact in w.study.facts.of("define.function"):
        if "." not in fact.subject and len(rows) < 45:
            rows.append([name(fact), w.say("function", "函数"), _range(w, fact), _doc(fact)])
    if rows:
        yield w.heading("Definitions", "定义")
        yield w.table((("name", "名称"), ("kind", "种类"), ("lines", "位置"), ("its own words", "自述")), rows)


def _range(w: Writer, fact: Fact) -> Text:
    return w.say("{a} to {b}", "{a}到{b}", a=w.line(fact, fact["first"]), b=w.line(fact, fact["last"]))


def _doc(fact: Fact) -> Text:
    return Text((quote(fact, "docstring", most=140),)) if fact["docstring"] else Text()


def _ran(w: Writer) -> Iterator[Block]:
    study = w.study
    program = study.facts.first("run.program")
    yield w.heading("The run", "运行情况")
    if not study.run.executed or program is None:
        reason = study.add("run.not", "program", {"why": study.run.why_not})
        if study.run.why_not:
            yield w.said(
                "It was not run: {w}. What follows rests on its text alone.",
                "没有运行：{w}。以下只依据源码。",
                w=quote(reason, "why"),
            )
        else:
            yield w.said("It was not run; what follows rests on its text alone.", "没有运行；以下只依据源码。")
        return
    yield from _exercised(w, program)
    if not program["finished"]:
        yield w.said("It did not come to its end.", "它没有运行到结尾。")
    for fact in study.run.exceptions()[:6]:
        during = w.say("", "") if fact["phase"] == "program" else w.say(" (when exercised)", "（在试用时）")
        yield w.said(
            "At {l} it raised {k}{d}: {m}", "在{l}抛出 {k}{d}：{m}",
            l=w.line(fact), k=name(fact), m=quote(fact, "message", most=240), d=during,
        )  # fmt: skip


def _exercised(w: Writer, program: Fact) -> Iterator[Block]:
    """What of the program ran: a reading describes that, and nothing else."""
    found = Exercised(w.study.program, w.study.run)
    covered, of = found.covered
    never = found.never[:MOST_NEVER]
    value: dict[str, Any] = {
        "ran": len(found.parts) - len(found.never),
        "of": len(found.parts),
        "lines": covered,
        "all": of,
    }
    value |= {"never": never, "why": found.not_judged, "smaller": ", ".join(found.run.shrunk)}
    fact = w.study.add("run.exercised", "program", value)
    parts = w.say("modules", "模块") if found.kind == "module" else w.say("functions", "函数")
    yield w.said(
        "It ran under observation: {r} of its {n} {p}, {l} of its {a} lines, {s:optimiser step}, {f:call} of its "
        "networks. It had no access to the network and could write to no file outside a scratch folder.",
        "它在观察下运行：{n} 个{p}中运行了 {r} 个，{a} 行中运行了 {l} 行，优化器走了 {s} 步，网络被调用 {f} 次；"
        "不能联网，也不能写临时目录之外的文件。",
        r=number(fact, "ran"), n=number(fact, "of"), p=parts, l=number(fact, "lines"), a=number(fact, "all"),
        s=number(program, "steps"), f=number(program, "forwards"),
    )  # fmt: skip
    if never:
        yield w.said(
            "Never reached: {n}.", "从未运行：{n}。", n=[name(fact, "never", place) for place in range(len(never))]
        )
    if fact["why"]:
        yield w.said(
            "It could not be judged as a whole: {w}.", "无法对整个程序作出判断：{w}。", w=quote(fact, "why", most=240)
        )
    if fact["smaller"]:
        yield w.said(
            "It ran made smaller ({w}): the numbers that follow are of that, except those of parameters.",
            "它是缩小后运行的（{w}）：以下数字除参数量外都属于缩小后的程序。", w=quote(fact, "smaller", most=240),
        )  # fmt: skip


def _stand_ins(w: Writer) -> Iterator[Block]:
    found = [f for f in w.study.facts.of("run.stand_in") if f["reason"]]
    seen: dict[str, Fact] = {}
    for fact in found:
        seen.setdefault(fact.subject, fact)
    if not seen:
        if w.study.run.executed:
            yield w.said("Nothing had to be replaced to run it.", "运行时没有替换任何东西。")
        return
    yield w.said(
        "What was missing or out of reach was replaced, and is named here:",
        "缺少或无法访问的东西由替身代替，逐一列出：",
    )
    yield from w.items(_stand_in(w, fact) for fact in list(seen.values())[:24])


def _stand_in(w: Writer, fact: Fact) -> Text:
    reason = quote(fact, "reason")
    if w.lang == "zh":
        words = str(fact["reason"])
        for en, zh in _REASONS:
            words = words.replace(en, zh)
        for pattern, zh in _REASONS_WITH_VALUES:
            words = re.sub(pattern, zh, words)
        reason = Ref(words, fact.id, "quote", fact["reason"])
    at = w.say(", first at {l}", "，首次出现在{l}", l=w.line(fact)) if fact.line else Text()
    return w.say("{n}: {r}{at}", "{n}：{r}{at}", n=name(fact), r=reason, at=at)


def _cut(w: Writer) -> Iterator[Block]:
    cut = [f for f in w.study.facts.of("run.loop") if f["cut"] and f["iterations"]]
    if not cut:
        return
    rows = []
    for fact in cut[:8]:
        of = w.say(" of {n}", "（共 {n} 次）", n=number(fact, "of")) if fact["of"] else Text()
        rows.append(
            w.say(
                "the loop at {l}: {i:round}{o}",
                "{l}的循环：{i} 次{o}",
                l=w.line(fact),
                i=number(fact, "iterations"),
                o=of,
            )
        )
    yield w.said("Long loops were cut short: {r}.", "长循环被截短：{r}。", r=joined(rows, w.lang))
