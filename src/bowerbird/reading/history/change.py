"""A change of behaviour: what differs, before and after, where, and how that is known."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bowerbird.reading.history.wording import Language, number, say

Phase = Literal["model", "data", "training", "sampling", "evaluation"]


@dataclass(frozen=True)
class Change:
    """``what`` is a word of ``wording.WHAT``; ``decisive`` where it changes behaviour whatever a few steps show.

    ``reason`` and ``values`` make the sentence of evidence; ``words`` are what its changed lines speak of.
    """

    what: str
    before: str
    after: str
    reason: str
    phase: Phase = "training"
    values: dict[str, Any] = field(default_factory=dict)
    line_before: int | None = None
    line_after: int | None = None
    decisive: bool = False
    words: str = ""

    @classmethod
    def of(cls, what: str, reason: str, before: Any, after: Any, **settings: Any) -> "Change":
        """A change whose sentence shows ``before`` and ``after`` as people write numbers."""
        told = {"before": number(before), "after": number(after), "who": "", "key": "", "how": "", "n": 0}
        named = {k: settings.pop(k) for k in ("who", "key", "how", "n") if k in settings}
        return cls(what, told["before"], told["after"], reason, values=told | named, **settings)  # type: ignore[arg-type]

    @property
    def evidence(self) -> str:
        return self.told("en")

    def told(self, lang: Language) -> str:
        """The sentence of evidence."""
        return say(self.reason, self.values, lang)

    def at(self, before: int | None, after: int | None) -> "Change":
        return replace(self, line_before=before, line_after=after)

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what, "before": self.before, "after": self.after, "line_before": self.line_before,
            "line_after": self.line_after, "evidence": self.evidence, "phase": self.phase,
        }  # fmt: skip
