"""A finding: a named cause, how sure, and the numbers that speak for it."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Evidence:
    """One observation."""

    signal: str
    """Where the number stands: a name in metrics.jsonl or signals.jsonl."""
    text: str
    first_step: int
    last_step: int
    value: float | None = None

    def line(self) -> str:
        steps = f"step {self.last_step}" if self.first_step == self.last_step else (
            f"steps {self.first_step} to {self.last_step}"
        )  # fmt: skip
        return f"{self.text} ({self.signal}, {steps})"


@dataclass(frozen=True)
class Finding:
    """What is wrong with a run, why one may believe it, and what to do."""

    cause: str
    """The name of the rule, such as mode-collapse."""
    title: str
    """The same in words."""
    confidence: float
    """How sure the rule is, in (0, 1]."""
    evidence: tuple[Evidence, ...]
    advice: tuple[str, ...]
    reference: str
    because: str = ""
    """Another finding's cause, of which this is a consequence; empty for what stands by itself."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "Finding":
        evidence = tuple(Evidence(**entry) for entry in table["evidence"])
        return cls(**table | {"evidence": evidence, "advice": tuple(table["advice"])})

    @property
    def certainty(self) -> str:
        return "certain" if self.confidence >= 0.9 else "likely" if self.confidence >= 0.6 else "possible"

    def lines(self) -> list[str]:
        """The finding as a person reads it."""
        head = f"{self.title} [{self.cause}, {self.certainty}]"
        follows = [f"  follows from: {self.because}"] if self.because else []
        seen = [f"  seen:   {evidence.line()}" for evidence in self.evidence]
        todo = [f"  to do:  {advice}" for advice in self.advice]
        return [head, *follows, *seen, *todo, f"  see:    {self.reference}"]
