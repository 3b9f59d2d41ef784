"""What verifying a file comes to: layers, and the judgement that follows from them."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Judgement = Literal["ours", "claimed", "altered", "other", "unknown"]


@dataclass(frozen=True)
class Layer:
    """What one layer says."""

    layer: str
    """label, signature, C2PA, IPTC, TC260, parameters, watermark …"""
    judgement: Judgement
    says: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What was found in a file."""

    file: str
    judgement: Judgement
    layers: list[Layer]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
