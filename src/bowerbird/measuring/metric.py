"""The contract of a metric: what it is called and means, what it needs, and how it is computed, in one place.

    @registry.metrics.register("brightness")
    class Brightness(Metric):
        unit, better, title = "grey levels", "lower", "difference in brightness"
        reading = "of all pixels of samples and real pictures; 0 is equal"
        needs = ("pictures",)
        default = True

        def compute(self, context):
            sides = context["pictures"]
            value = abs(sides.samples.double().mean() - sides.reference.double().mean())
            return [self.measurement(value, sides.protocol)]

A class like this in a file of ``measuring/shipped``, in a plugin file, or behind an entry point of the group
``bowerbird.metrics`` is all that a metric consists of: it is measured, compared, reported and named from there.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from bowerbird import registry
from bowerbird.measuring.context import Context
from bowerbird.metrics.measurement import Measurement, Protocol


class Metric(ABC):
    """One number (or one per attribute) that can be said of samples or of a model."""

    name: ClassVar[str] = ""
    """What it is registered as."""
    also: ClassVar[tuple[str, ...]] = ()
    """Other names by which people ask for it."""
    unit: ClassVar[str] = "1"
    better: ClassVar[Literal["lower", "higher", ""]] = ""
    """The better direction; empty where neither is."""
    title: ClassVar[str] = ""
    """For tables and reports."""
    reading: ClassVar[str] = ""
    """How to read it, in one clause."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What the context must offer: names of ``bowerbird.measuring.context.NEEDS``, or what a medium offers besides."""
    fewest: ClassVar[int] = 0
    """With fewer reference pictures it is left out, and refused where it is named."""
    default: ClassVar[bool] = False
    """Measured wherever it applies, unless metrics are named: for what is cheap and says something of every model."""

    @abstractmethod
    def compute(self, context: Context) -> list[Measurement]:
        """The value; ``context`` offers all that is in ``needs``."""

    def by_default(self, context: Context) -> bool:
        """Whether it is measured in this context without being named, given that it applies."""
        return self.default

    def measurement(
        self,
        value: float,
        protocol: Protocol,
        stderr: float | None = None,
        interval: tuple[float, float] | None = None,
        *,
        part: str = "",
    ) -> Measurement:
        """A measurement of this metric; one of several of a kind, such as attributes, is told apart by its ``part``."""
        name = f"{self.name}.{part}" if part else self.name
        return Measurement(name, float(value), self.unit, stderr, protocol, interval)


def measured(
    name: str,
    value: float,
    protocol: Protocol,
    stderr: float | None = None,
    interval: tuple[float, float] | None = None,
) -> Measurement:
    """The measurement of a registered metric, with its unit, for a value that was computed elsewhere."""
    found: Measurement = registry.metrics.get(name)().measurement(value, protocol, stderr, interval)
    return found
