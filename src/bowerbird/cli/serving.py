"""The command that serves runs over HTTP."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from bowerbird.cli.command import Command, Switch
from bowerbird.errors import BowerbirdError
from bowerbird.serve.limits import Limits
from bowerbird.serve.replicas import Replicas


@dataclass(frozen=True)
class Serve(Command):
    """Serves runs over HTTP to clients of OpenAI, TensorFlow Serving, KServe and Triton."""

    runs: Positional[tuple[str, ...]]
    """Run folders; NAME=FOLDER serves one under another name."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every network, which needs --api-key-file or --without-keys."""
    port: int = 8000
    """Port to listen on."""
    api_key_file: Path | None = None
    """A file with one key per line; clients send one as a bearer token."""
    without_keys: Switch = False
    """Let everybody who reaches the address use it."""
    device: str = "auto"
    """Where to compute: auto (a GPU when there is one), cpu, cuda, cuda:1 or mps."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    engine: Literal["process", "ray"] = "process"
    """process: this one; ray: replicas on a Ray cluster (RAY_ADDRESS), or on this machine."""
    replicas: Replicas = Replicas()
    limits: Limits = Limits()

    def __call__(self) -> None:
        if not self.runs:
            raise BowerbirdError("Say what to serve: bowerbird serve RUN …")
        if not 0 <= self.port <= 65535:
            raise BowerbirdError(f"--port {self.port} is no port; ports are numbers from 0 (any free one) to 65535.")
        if self.host not in ("localhost", "127.0.0.1", "::1") and self.api_key_file is None and not self.without_keys:
            raise BowerbirdError(
                f"Anyone who reaches {self.host} could use these models; give --api-key-file FILE, or --without-keys "
                "if that is meant."
            )
        from bowerbird.serve import launching

        launching.launch(self)
