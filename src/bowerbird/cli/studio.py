"""The commands that open the studio's page."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from bowerbird.cli.command import Command, Switch


@dataclass(frozen=True)
class StudioCommand(Command):
    """Opens a page in the browser to make, train, look and read; nothing leaves this machine."""

    runs: Positional[Path] = Path("runs")
    """The folder of runs: those in it are shown, new ones are made there."""
    host: str | None = None
    """Listen on this address, so that other machines may come (default: this machine alone)."""
    port: int | None = None
    """Listen on this port (default: the first free one from 8675)."""
    no_browser: Switch = False
    """Do not open a browser."""

    def __call__(self) -> None:
        from bowerbird.studio.host import host

        host(self.runs, self.host, self.port, browser=not self.no_browser)


@dataclass(frozen=True)
class Demo(StudioCommand):
    """Makes poems, music and pictures in seconds and trains in minutes: opens the studio's first page."""
