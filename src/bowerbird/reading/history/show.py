"""A comparison and a changelog as text: for the terminal and as Markdown, in English or Chinese."""

from collections.abc import Iterator

from bowerbird.reading.history.changelog import Entry
from bowerbird.reading.history.track import TrackResult
from bowerbird.reading.history.wording import PHASES, WHAT, Language

GROUNDS = {
    "text": (
        "The statements are the same; only comments, docstrings, annotations or log lines differ.",
        "语句相同，只有注释、文档字符串、类型标注或日志不同。",
    ),
    "renamed": ("Only names differ.", "只有名称不同。"),
    "trajectory": (
        "Both versions ran with the same random numbers: {losses} losses and {steps} optimiser steps agree.",
        "两个版本在相同的随机数下运行：{losses} 个损失与 {steps} 个优化步一致。",
    ),
    "matched": (
        "With weights and noise matched, {losses} losses and {steps} optimiser steps agree.",
        "权重与噪声对齐后，{losses} 个损失与 {steps} 个优化步一致。",
    ),
    "parted": (
        "Both versions ran with the same random numbers, and their runs part.",
        "两个版本在相同的随机数下运行，结果不同。",
    ),
    "unseen": ("Both runs agree, but the changed lines did not run.", "两次运行一致，但被改动的行没有运行。"),
    "not_run": ("The program could not be run.", "程序无法运行。"),
}
_VERDICT = {
    "same": ("no behavioural change", "行为没有变化"),
    "changed": ("the behaviour changed", "行为发生了变化"),
    "inconclusive": ("inconclusive", "无法定论"),
}


def verdict(result: TrackResult, lang: Language = "en") -> str:
    """The verdict in two or three words."""
    key = "inconclusive" if result.inconclusive else "changed" if result.behavioural_change else "same"
    return _VERDICT[key][lang == "zh"]


def lines(result: TrackResult, lang: Language = "en", *, markdown: bool = False) -> Iterator[str]:
    """The verdict, its ground, and each change with its lines and evidence."""
    zh = lang == "zh"
    head = f"{result.before} → {result.after}"
    yield f"## {head}" if markdown else head
    if markdown:
        yield ""
    numbers = {"losses": 0, "steps": 0} | result.numbers
    colon, stop = (":", "。") if zh else (": ", ".")
    ground = GROUNDS[result.how][zh].format(**numbers)
    yield f"**{verdict(result, lang)}{stop}** {ground}" if markdown else f"{verdict(result, lang)}{colon}{ground}"
    for change in result.changes:
        what = WHAT[change.what] if zh else change.what
        phase = PHASES[change.phase] if zh else change.phase
        where = f"{change.line_before or '-'} → {change.line_after or '-'}"
        where = f"行 {where}" if zh else f"lines {where}"
        yield f"{'- ' if markdown else '  '}{what} ({phase}, {where}){colon}{change.told(lang)}"
    if result.stand_ins and not markdown:
        yield ("  替代：" if zh else "  stand-ins: ") + "; ".join(
            stand_in.partition(":")[0] for stand_in in result.stand_ins
        )


def changelog_lines(entries: list[Entry], lang: Language = "en", *, markdown: bool = False) -> Iterator[str]:
    """One line for each commit: what it did, and whether its message says so."""
    zh = lang == "zh"
    if not entries:
        yield "没有提交改动这个文件。" if zh else "No commit changed the file."
    for entry in entries:
        if entry.result is None:
            told = entry.problem
        elif entry.result.behavioural_change and not entry.result.inconclusive:
            told = "; ".join(f"{WHAT[c.what] if zh else c.what}: {c.before} → {c.after}" for c in entry.result.changes)
        else:
            told = verdict(entry.result, lang)
        note = "" if entry.fits else ("(提交说明与此不符)" if zh else " (the message says otherwise)")
        yield f"{'- ' if markdown else ''}{entry.commit[:9]}  {entry.message}\n    {told}{note}"
