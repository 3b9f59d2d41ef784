"""Who draws: the server's engine, which batches what many ask for; and one thread for all else that needs a model.

Films and latent spaces look inside a model, which the engine's threads must not share; they have a copy of their own.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bowerbird import api
from bowerbird.generating import Samples, generate
from bowerbird.media.giving import read_given
from bowerbird.media.text.chat import Message
from bowerbird.models.base import GenerativeModel, options_from
from bowerbird.serve.limits import Limits
from bowerbird.serve.service import Engine
from bowerbird.studio.shelf import Shelved

T = TypeVar("T")

MOST_MODELS = 8
"""Models that stay loaded; the one that was used longest ago goes first."""


class Drawing:
    """The engine, the thread, and the models of both."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "models")
        self._models: OrderedDict[tuple[str, int], GenerativeModel] = OrderedDict()
        self._engine = Engine({}, limits=Limits(seconds=120))
        self._served: OrderedDict[str, None] = OrderedDict()

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs something in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    # ---------------------------------------------------------------------------------------------- the engine

    async def submit(
        self,
        run: Shelved,
        n: int | None = None,
        seed: int = 0,
        given: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Samples:
        """Samples of a run, as ``api.generate`` makes them, with its labels."""
        name = await self.do(self._serve, run)
        samples = await self._engine.submit(name, n, seed=seed, given=given or {}, options=options or {})
        return replace(samples, labeller=api.labeller(run.folder))

    async def continued(self, run: Shelved, prompt: str, seed: int, options: Mapping[str, Any]) -> AsyncIterator[str]:
        """How a text goes on, piece by piece."""
        name = await self.do(self._serve, run)
        return _texts(self._engine.stream(name, prompt, seed=seed, options=options))

    async def answered(self, run: Shelved, messages: list[Message], seed: int) -> AsyncIterator[str]:
        """The answer to a conversation, piece by piece."""
        name = await self.do(self._serve, run)
        tokens: Sequence[int] = self._engine.chat_prompt(name, messages, forgets=True)
        options = {"n_tokens": self._engine.answer_length(name, len(tokens))}
        return _texts(self._engine.stream(name, tokens, seed=seed, options=options))

    def _serve(self, run: Shelved) -> str:
        """The name under which the engine has a run; in the thread, so that it is loaded once."""
        name = run.key
        if name not in self._served:
            self._engine.add(name, run.folder)
        self._served[name] = None
        self._served.move_to_end(name)
        while len(self._served) > MOST_MODELS:
            self._engine.remove(self._served.popitem(last=False)[0])
        return name

    # ---------------------------------------------------------------------------------------------- in the thread

    def generate(self, run: Path, n: int, seed: int, given: Mapping[str, Any], options: Mapping[str, Any]) -> Samples:
        """Samples that are drawn here and now, for those who watch; to be called in the thread."""
        model = self.model(run)
        chosen = options_from(model, options)
        tensors, _, _ = read_given(model.spec, given, n)
        origin = {"generated_by": str(run)}
        return generate(model, n, seed=seed, given=tensors, options=chosen, origin=origin, labeller=api.labeller(run))

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
        self._engine.close()
        self._thread.shutdown(wait=False, cancel_futures=True)


async def _texts(writing: Any) -> AsyncIterator[str]:
    async for piece in writing:
        yield piece.text
