"""What is to be measured and how: one request, which the command line writes, the API passes on and measuring reads."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from bowerbird.errors import BowerbirdError, unknown

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Measuring:
    """Everything that a user can say about a measurement; its fields are the flags of ``bowerbird measure``."""

    against: str | None = None
    """Reference: a folder of images, or data (default: what the run was trained on)."""
    metrics: tuple[str, ...] | None = None
    """Which metrics (default: all that apply and are cheap)."""
    n_samples: int | None = None
    """How many samples to draw (default: 10,000 images, 200 texts, 20 pieces of music)."""
    n_reference: int | None = None
    """How many reference examples to use (default: all of the split)."""
    extractor: str = "auto"
    """Where features come from: digits, inception-2015, efficientnet-lite0 or dinov2:FILE."""
    precision: Precision = "fp32"
    """Arithmetic of inception-2015; bf16 is several times faster, and its values compare only with one another."""
    split: str | None = None
    """Which split of the reference data (default: test; of a folder, all of its images)."""
    seed: int = 0
    """Seed of the samples."""
    seeds: int = 1
    """Sample sets of each run, for error bars."""
    pairs: Path | None = None
    """A PNG to write: the samples that look most like copies, each beside its nearest training image."""
    best: bool = False
    """Measure the weights that scored best instead of the last ones; the run needs --train.evaluate-every."""
    device: str = "auto"
    """Where to compute samples and features: auto (CUDA when there is a GPU, else the CPU), cpu, cuda, cuda:1, mps."""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Sampling options of the family's own, by name."""

    def __post_init__(self) -> None:
        if isinstance(self.metrics, str):
            raise BowerbirdError(f"metrics must be several names, not the string '{self.metrics}'.")
        for name in ("n_samples", "n_reference", "seeds"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise BowerbirdError(f"{name} must be at least 1, not {number}.")

    def but(self, **changes: Any) -> "Measuring":
        """The same request with other values; a name that it does not have is refused with the nearest that it has.

        Here ``metrics`` may be any sequence of names, or one, and ``pairs`` a string.
        """
        for name in changes:
            if name not in self.__dataclass_fields__:
                raise unknown("option of measuring", name, self.__dataclass_fields__)
        if (names := changes.get("metrics")) is not None:
            changes["metrics"] = (names,) if isinstance(names, str) else tuple(names)
        if (path := changes.get("pairs")) is not None:
            changes["pairs"] = Path(path)
        return dataclasses.replace(self, **changes)

    def changed(self) -> dict[str, Any]:
        """What was asked for in other words than the defaults, as plain data."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain |= {
            "metrics": None if self.metrics is None else list(self.metrics),
            "pairs": None if self.pairs is None else str(self.pairs),
            "options": dict(self.options),
        }
        default = Measuring()
        return {name: value for name, value in plain.items() if getattr(self, name) != getattr(default, name)}
