"""A session without the hook of Python: what is refused in it, the kernel refuses."""

from bowerbird.reading.running.guards import Guard
from bowerbird.reading.running.session import Session


class Unguarded(Session):
    def _install(self) -> None:
        arm, Guard.arm = Guard.arm, lambda guard: None  # type: ignore[method-assign]
        try:
            super()._install()
        finally:
            Guard.arm = arm  # type: ignore[method-assign]
