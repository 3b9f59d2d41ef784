"""An answer: claims with their verdicts, the score, and what it cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bowerbird.reading.tutor.endpoint import Usage
from bowerbird.reading.tutor.verify import Verdict
from bowerbird.reading.wording import Language

Mode = Literal["claims", "prose", "offline"]


@dataclass(frozen=True)
class Passage:
    """Something that answers without a model: a fact, a finding or a card."""

    source: str
    text: str
    line: int | None = None


@dataclass(frozen=True)
class Answer:
    question: str
    lang: Language
    mode: Mode
    verdicts: Sequence[Verdict] = ()
    passages: Sequence[Passage] = ()
    usage: Usage = field(default_factory=Usage)
    withdrawn: int = 0
    """Claims that the model took back when it was told what is wrong with them."""

    def count(self, status: str) -> int:
        return sum(v.status == status for v in self.verdicts)

    @property
    def score(self) -> tuple[int, int]:
        """(verified, all that can be verified): background is counted apart."""
        return self.count("verified"), len(self.verdicts) - self.count("background")

    def to_json(self) -> dict[str, Any]:
        verified, total = self.score
        told = [
            {**v.claim.to_json(), "status": v.status, "reasons": list(v.reasons), "evidence": list(v.evidence)}
            for v in self.verdicts
        ]
        counts = {status: self.count(status) for status in ("background", "refuted", "unproven")}
        return {
            "question": self.question, "language": self.lang, "mode": self.mode, "claims": told,
            "passages": [asdict(p) for p in self.passages],
            "score": {"verified": verified, "total": total, **counts, "withdrawn": self.withdrawn},
            "usage": asdict(self.usage),
        }  # fmt: skip
