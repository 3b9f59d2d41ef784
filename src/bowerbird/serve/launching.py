"""From a command to a running server."""

import sys
from pathlib import Path
from typing import Protocol

from bowerbird.errors import BowerbirdError
from bowerbird.serve.limits import Limits


class Wish(Protocol):
    """What is to be served, and how."""

    @property
    def runs(self) -> tuple[str, ...]: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def api_key_file(self) -> Path | None: ...
    @property
    def device(self) -> str: ...
    @property
    def log_level(self) -> str: ...
    @property
    def limits(self) -> Limits: ...


def launch(wish: Wish) -> None:
    """Serves until it is told to stop; RunFailed where the address is taken."""
    try:
        from bowerbird.serve.app import server
        from bowerbird.serve.gate import Keys
        from bowerbird.serve.service import Engine
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "bowerbird":
            raise
        raise BowerbirdError(
            f"The server needs the package {error.name}; install it with: pip install 'bowerbird[serve]'."
        ) from None
    keys = None if wish.api_key_file is None else Keys.read(wish.api_key_file)
    engine = Engine(list(wish.runs), limits=wish.limits, device=wish.device)
    running = server(engine, host=wish.host, port=wish.port, keys=keys, log_level=wish.log_level)
    names = ", ".join(engine.runs)
    print(f"Serving {names} at http://{wish.host}:{wish.port}/v1; stop with Ctrl-C.", file=sys.stderr, flush=True)
    running.run()
    engine.close()
