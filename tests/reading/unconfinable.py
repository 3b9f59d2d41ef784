"""A session on a machine whose kernel is too old."""

from bowerbird.reading.running import kernel
from bowerbird.reading.running.session import Session as _Session


class Session(_Session):
    def _install(self) -> None:
        kernel.LEAST_LANDLOCK = 1000
        super()._install()
