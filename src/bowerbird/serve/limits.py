"""What one client may ask of a server.  Imports neither torch nor starlette."""

from dataclasses import dataclass

from bowerbird import ranges
from bowerbird.errors import BowerbirdError
from bowerbird.ranges import Count, NonNegative, Positive


@dataclass(frozen=True)
class Limits:
    """Beyond these a request is refused."""

    samples: Count = 64
    """Most samples of one request."""
    pixels: Count = 16_777_216
    """Most pixels that one request makes."""
    tokens: Count = 1024
    """Most tokens that are added to one text or piece of music."""
    steps: Count = 1000
    """Largest whole number in a sampling option: steps, top_k …"""
    characters: Count = 65_536
    """Most characters of a prompt, or of all messages of a chat."""
    upload_pixels: Count = 4_194_304
    """Most pixels of a picture that a request brings."""
    body_mb: Positive = 16.0
    """Most megabytes of a request."""
    body_seconds: Positive = 10.0
    """Time in which a request must have arrived completely."""
    seconds: Positive = 120.0
    """Time in which a request must be answered, waiting included."""
    waiting: Count = 128
    """Most samples that may wait for a run; beyond it the answer is 429."""
    together: Count = 32
    """Most texts or pieces that are continued at once."""
    linger_ms: NonNegative = 4.0
    """How long the first request of a batch waits for others."""
    drain_seconds: Positive = 30.0
    """Time that requests under way have to finish after SIGTERM."""

    def __post_init__(self) -> None:
        ranges.check(self, "limits.")


class Busy(BowerbirdError):
    """Too many requests are waiting; ``retry_after_s`` is when it is worth asking again, in seconds."""

    def __init__(self, retry_after_s: int):
        super().__init__(f"Too many requests are waiting for this model; try again in {retry_after_s} seconds.")
        self.retry_after_s = retry_after_s


class TooLate(BowerbirdError):
    """A request was not answered within ``Limits.seconds``."""

    def __init__(self, seconds: float):
        super().__init__(f"The request was not finished within {seconds:g} seconds; ask for less.")


class Unknown(BowerbirdError):
    """There is no run of this name."""


class Closing(BowerbirdError):
    """The server is going down."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down; send the request to another one.")
