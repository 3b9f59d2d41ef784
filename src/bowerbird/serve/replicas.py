"""The same application on a cluster: Ray Serve keeps replicas of it, and starts and stops them with the load.

Ray is imported here alone.  Each replica loads the runs from their folders, which every machine must see under the same
path, and batches what reaches it.  A request whose replica dies under way is lost, and is repeated by whoever sent it:
samples follow from their seed, so that the answer is the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError
from bowerbird.ranges import Count, NonNegative, Positive, check
from bowerbird.serve.limits import Limits


@dataclass(frozen=True)
class Replicas:
    """How many replicas there are."""

    least: Count = 1
    """Replicas that are always there."""
    most: Count = 1
    """Beyond ``least``, replicas come and go with the number of requests under way."""
    requests_each: Count = 64
    """Requests under way that a replica is meant to have."""
    cpus_each: Positive = 1.0
    """Processors that a replica takes."""
    gpus_each: NonNegative = 0.0
    """Accelerators that a replica takes; parts are allowed."""

    def __post_init__(self) -> None:
        check(self, "replicas.")
        if self.most < self.least:
            raise ValueError(f"replicas.most = {self.most} must be at least replicas.least = {self.least}.")


def application(
    folders: Mapping[str, Path],
    *,
    limits: Limits = Limits(),
    keys: tuple[str, ...] = (),
    replicas: Replicas | None = None,
) -> Any:
    """A Ray Serve application, for ``ray.serve.run``; BowerbirdError where Ray is not installed."""
    serve, replicas = _ray_serve(), replicas or Replicas()
    paths = {name: str(folder.resolve()) for name, folder in folders.items()}

    def build() -> Any:
        """In the replica's process."""
        from bowerbird.serve.app import create_app
        from bowerbird.serve.gate import Keys
        from bowerbird.serve.service import Engine

        return create_app(Engine(paths, limits=limits), keys=Keys(keys), closes_engine=True)

    scaling = {
        "min_replicas": replicas.least,
        "max_replicas": replicas.most,
        "target_ongoing_requests": replicas.requests_each,
    }
    deployment = serve.deployment(
        name="bowerbird",
        autoscaling_config=scaling,
        max_ongoing_requests=2 * replicas.requests_each,
        ray_actor_options={"num_cpus": replicas.cpus_each, "num_gpus": replicas.gpus_each},
        graceful_shutdown_timeout_s=limits.drain_seconds,
    )

    class Replica:
        """All endpoints."""

    return deployment(serve.ingress(build)(Replica)).bind()


def run(
    folders: Mapping[str, Path], host: str, port: int, *, limits: Limits, keys: tuple[str, ...], replicas: Replicas
) -> None:
    """Serves on the cluster that RAY_ADDRESS names, or one of this machine alone, until it is told to stop."""
    serve = _ray_serve()
    serve.start(http_options={"host": host, "port": port})
    serve.run(application(folders, limits=limits, keys=keys, replicas=replicas), name="bowerbird", blocking=True)


def _ray_serve() -> Any:
    try:
        from ray import serve
    except ImportError:
        raise BowerbirdError(
            "The engine ray needs Ray Serve; install it with: pip install 'bowerbird[scale]'."
        ) from None
    return serve
