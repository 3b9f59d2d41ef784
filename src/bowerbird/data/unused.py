"""What was seen and not used: counted, with a reason and an example."""

from dataclasses import dataclass, field

from bowerbird.data.names import natural


class Unreadable(RuntimeError):
    """Why one file cannot be used, in words that can stand after a count."""


@dataclass
class Unused:
    """What was seen and not used: how many for each reason, and the first name of each.

    A reason reads on from its count, with {s} for the plural: "file{s} of unknown kind".
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.first[reason] = min(self.first.get(reason, name), name, key=natural)

    def __add__(self, other: "Unused") -> "Unused":
        both = Unused(dict(self.counts), dict(self.first))
        for reason, count in other.counts.items():
            both.add(reason, other.first[reason], count)
        return both

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        most_first = sorted(self.counts.items(), key=lambda item: -item[1])
        return ", ".join(
            f"{count:,} {reason.replace('{s}', 's' * (count != 1))} ({self.first[reason]}{' …' * (count != 1)})"
            for reason, count in most_first
        )


def not_used(problems: dict[str, str]) -> Unused:
    """Files by name, and what is wrong with each."""
    unused = Unused()
    for name, reason in problems.items():
        unused.add(reason, name)
    return unused
