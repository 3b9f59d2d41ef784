"""What the parent asks of the child, and what comes back: the only words the two processes exchange."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

UNCONFINED = 77
"""The status of an execution that did not begin, because the kernel cannot confine it."""


@dataclass(frozen=True)
class Driver:
    """A short program that uses what another one defines, with the ``place`` and the ``file`` that it was found in.

    One that the project offers runs where the program has not called its modules by itself; one that a user or a model
    brings runs in any case.
    """

    place: str
    text: str
    file: str
    by: Literal["project", "user", "model"] = "project"

    @property
    def asked(self) -> bool:
        return self.by != "project"


@dataclass(frozen=True)
class Request:
    """One execution.  ``variant`` numbers the attempts: other shapes of data, smaller sizes."""

    main: str
    texts: dict[str, str]
    root: str
    scratch: str
    results: str
    run: str = "run"
    steps: int = 6
    seconds: float = 12.0
    memory_bytes: int = 6 * 2**30
    seed: int = 0
    image_shape: tuple[int, ...] | None = None
    shrink: bool = False
    count: bool = False
    """Only count the parameters of its networks, which are built without memory (on the meta device)."""
    defining: bool = False
    """Only define: loops, calls and what stands under ``__main__`` are passed over, for a program that has no end."""
    unconfined: bool = False
    """Whether it may run where the kernel cannot confine it."""
    probes: bool = True
    probe_seconds: float = 6.0
    insisting_seconds: float = 5.0
    """For what raised on every guess, and for branches that none took."""
    wanted: str | None = None
    project: str = ""
    """The folder up to which the program's own imports are looked for, from ``root`` upwards."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings that the project makes somewhere, for code that is given none."""
    drivers: tuple[Driver, ...] = ()
    """What uses the program; tried in this order when the program by itself has not called its modules."""
    session: str = "bowerbird.reading.running.session:Session"
    """The class that executes it, as ``module:Class``: readings of another kind bring their own."""
    adopt: str = ""
    """A file with the state of another version's modules, which a session that compares takes over."""
    observable: str = ""
    """An assertion that is made after everything else, in the program's namespace."""

    @property
    def cpu_s(self) -> float:
        """What an execution may use of the processor, a driver that was asked for included."""
        return (
            self.seconds * (1 + any(driver.asked for driver in self.drivers))
            + 2 * self.probe_seconds
            + self.insisting_seconds
            + 5
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Request":
        shape = row.get("image_shape")
        drivers = tuple(Driver(**driver) for driver in row.get("drivers") or ())
        return cls(**{**row, "image_shape": tuple(shape) if shape else None, "drivers": drivers})
