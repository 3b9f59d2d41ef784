"""From a command to a running server."""

import socket
import sys
from pathlib import Path
from typing import Protocol

from bowerbird.errors import BowerbirdError
from bowerbird.serve.limits import Limits
from bowerbird.serve.replicas import Replicas


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
    def engine(self) -> str: ...
    @property
    def replicas(self) -> Replicas: ...
    @property
    def log_level(self) -> str: ...
    @property
    def limits(self) -> Limits: ...


def launch(wish: Wish) -> None:
    """Serves until it is told to stop; BowerbirdError where the address is taken."""
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
    keys = () if wish.api_key_file is None else Keys.read(wish.api_key_file)
    if wish.engine == "ray":
        _on_a_cluster(wish, keys)
        return
    line = _listening(wish.host, wish.port)
    engine = Engine(list(wish.runs), limits=wish.limits, device=wish.device)
    running = server(engine, host=wish.host, port=wish.port, keys=Keys(keys), log_level=wish.log_level)
    names = ", ".join(engine.runs)
    print(
        f"Serving {names} at http://{wish.host}:{line.getsockname()[1]}/v1; stop with Ctrl-C.",
        file=sys.stderr,
        flush=True,
    )
    running.run(sockets=[line])
    engine.close()


def _listening(host: str, port: int) -> socket.socket:
    """Bound before any model is loaded, so that an address that cannot be had is said at once."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BowerbirdError(f"Cannot listen at {host}:{port}: {reason}. Choose another --port or --host.") from None


def _on_a_cluster(wish: Wish, keys: tuple[str, ...]) -> None:
    from bowerbird import api
    from bowerbird.serve import replicas
    from bowerbird.serve.served import named

    folders = named(list(wish.runs))
    for folder in folders.values():
        api.options_of(folder)  # what is no run is refused here, not by every replica
    replicas.run(folders, wish.host, wish.port, limits=wish.limits, keys=keys, replicas=wish.replicas)
