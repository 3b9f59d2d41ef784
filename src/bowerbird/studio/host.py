"""Starts the studio's server and opens its page."""

import socket
import sys
import threading
import webbrowser
from pathlib import Path

from bowerbird.errors import BowerbirdError

FIRST_PORT, PORTS = 8675, 20
LOCAL = "127.0.0.1"


def host(runs: Path, address: str | None = None, port: int | None = None, *, browser: bool = True) -> None:
    """Serves the pages until Ctrl-C.  ``address`` None: this machine alone; ``port`` None: the first free one."""
    try:
        import uvicorn

        from bowerbird.studio.site import application
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("uvicorn", "starlette"):
            raise
        raise BowerbirdError("The studio needs starlette and uvicorn: pip install 'bowerbird[serve]'.") from None
    listening = listen(address or LOCAL, port)
    where = f"http://{address or 'localhost'}:{listening.getsockname()[1]}/"
    print(f"Bowerbird Studio: {where}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
    if browser:
        threading.Timer(0.5, webbrowser.open, [where]).start()
    app = application(runs, shipped_runs(), local=address is None)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5, server_header=False)
    uvicorn.Server(config).run(sockets=[listening])


def listen(address: str, port: int | None) -> socket.socket:
    """A listening socket; BowerbirdError if the port is taken."""
    tried = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + PORTS), 0]
    for one in tried:
        try:
            return socket.create_server((address, one))
        except OSError as error:
            reason = error.strerror or str(error)
    raise BowerbirdError(f"The studio cannot listen on {address} port {tried[-1]}: {reason}; choose another --port.")


def shipped_runs() -> dict[str, Path]:
    """The runs inside the package, by name."""
    from importlib.util import find_spec

    if find_spec("bowerbird.shipped") is None:
        return {}
    from bowerbird import shipped

    return shipped.runs()
