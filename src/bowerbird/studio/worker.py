"""One thread owns the models: whatever needs one waits in line for it, and pages stay quick meanwhile."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from bowerbird import api
from bowerbird.generating import Samples, generate
from bowerbird.media.giving import read_given
from bowerbird.media.medium import medium
from bowerbird.models.base import GenerativeModel, options_from

T = TypeVar("T")

MOST_MODELS = 6
"""Models that stay loaded; the one that was used longest ago goes first."""


class Worker:
    """The thread and its models."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "models")
        self._models: OrderedDict[tuple[str, int], GenerativeModel] = OrderedDict()

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs something in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def submit(
        self,
        run: Path,
        n: int | None = None,
        seed: int = 0,
        given: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Samples:
        """Samples of a run, as ``api.generate`` makes them."""
        return await self.do(self.generate, run, n, seed, given or {}, options or {})

    def generate(
        self, run: Path, n: int | None, seed: int, given: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Samples:
        """To be called in the thread."""
        model = self.model(run)
        chosen = options_from(model, options)
        if n is None and not given:
            n = medium(model.spec.medium).n_samples
        tensors, count, _ = read_given(model.spec, given, n)
        origin = {"generated_by": str(run)}
        return generate(model, count or 1, seed=seed, given=tensors, options=chosen, origin=origin)

    def model(self, run: Path) -> GenerativeModel:
        """The model of a run as it is now; to be called in the thread."""
        weights = run / "model.safetensors"
        key = str(run), weights.stat().st_mtime_ns if weights.is_file() else 0
        if key not in self._models:
            for older in [one for one in self._models if one[0] == key[0]]:
                del self._models[older]
            self._models[key] = api.load(run)
        self._models.move_to_end(key)
        while len(self._models) > MOST_MODELS:
            self._models.popitem(last=False)
        return self._models[key]

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
