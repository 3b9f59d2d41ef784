"""What a command is: a frozen dataclass whose fields are its flags, and one call into the API when it is called."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Self

from tyro.conf import FlagCreatePairsOff

from bowerbird.cli.flags import parse_flags

Switch = Annotated[bool, FlagCreatePairsOff]


class Command(ABC):
    """Flags that can be parsed, then called."""

    @classmethod
    def parse(cls, argv: Sequence[str], prog: str) -> Self:
        return parse_flags(cls, argv, prog)

    @abstractmethod
    def __call__(self) -> None: ...
