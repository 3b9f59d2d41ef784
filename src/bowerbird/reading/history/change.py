"""A change of behaviour: what differs, before and after, where, and how that is known (``changes.toml``)."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bowerbird.reading.facts import Fact
from bowerbird.reading.wording import Language, table

REASONS = table(Path(__file__).with_name("changes.toml"))


@dataclass(frozen=True)
class Change:
    """``what`` is a word of ``words.toml``; ``decisive`` where it changes behaviour whatever a few steps show.

    ``reason`` and ``values`` make the sentence of evidence; ``words`` are what its changed lines speak of.
    """

    what: str
    before: str
    after: str
    reason: str
    phase: str = "training"
    values: dict[str, Any] = field(default_factory=dict)
    line_before: int | None = None
    line_after: int | None = None
    decisive: bool = False
    words: str = ""

    @classmethod
    def of(cls, reason: str, before: Any, after: Any, x: Fact | None = None, y: Fact | None = None,
           **given: Any) -> "Change":  # fmt: skip
        """A change at the lines of two facts; ``given`` is what differs from the reason's own row, and its values."""
        told: dict[str, Any] = {
            "before": number(before),
            "after": number(after),
            "who": "",
            "key": "",
            "how": "",
            "n": 0,
        }
        told |= {k: given.pop(k) for k in ("who", "key", "how", "n") if k in given}
        row: dict[str, Any] = {k: v for k, v in REASONS[reason].items() if k not in ("en", "zh")} | given
        row |= {"line_before": x.line if x else None, "line_after": y.line if y else None}
        return cls(before=told["before"], after=told["after"], reason=reason, values=told, **row)

    @property
    def evidence(self) -> str:
        return self.told("en")

    def told(self, lang: Language) -> str:
        """The sentence of evidence."""
        return str(REASONS[self.reason][lang]).format(**self.values)

    def at(self, before: int | None, after: int | None) -> "Change":
        return replace(self, line_before=before, line_after=after)

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what, "before": self.before, "after": self.after, "line_before": self.line_before,
            "line_after": self.line_after, "evidence": self.evidence, "phase": self.phase,
        }  # fmt: skip


def number(value: Any) -> str:
    """A number as people write it, four figures; lists of them in brackets."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(number, value)) + "]" if len(value) != 1 else number(value[0])
    return f"{value:,}" if isinstance(value, int) else str(value)


def range_of(summary: Any) -> str:
    """``shape 8×3, −1 … 1, mean 0.2, std 0.5`` of a summary or the first of several."""
    if isinstance(summary, list):
        return range_of(summary[0]) if summary else "nothing"
    if isinstance(summary, dict) and "shape" not in summary and summary:
        return range_of(next(iter(summary.values())))
    if not isinstance(summary, dict) or "shape" not in summary:
        return number(summary)
    shape = "×".join(map(str, summary["shape"])) or "scalar"
    if "min" not in summary:
        return shape
    low, high, mean, std = (number(float(summary[k])) for k in ("min", "max", "mean", "std"))
    return f"{low} … {high} (mean {mean}, std {std}, shape {shape})"
