"""The commands for models of text: a conversation, and models that come from or go elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tyro.conf import Positional, Suppress

from bowerbird.cli.command import Command
from bowerbird.cli.options import chosen, parse_with_options
from bowerbird.ranges import Whole


@dataclass(frozen=True)
class Chat(Command):
    """Holds a conversation with a run in the terminal; an empty line ends it."""

    run: Positional[Path]
    """The run folder."""
    system: str | None = None
    """What the model is told before the conversation."""
    seed: Whole = 0
    """The same seed and words give the same answers."""
    device: str = "auto"
    """Where to compute: auto (a GPU when there is one), cpu, cuda, cuda:1 or mps."""
    options: Suppress[Any] = None

    @classmethod
    def parse(cls, argv: Sequence[str], prog: str) -> Self:
        return parse_with_options(cls, argv, prog)

    def __call__(self) -> None:
        from bowerbird import api

        options = chosen(self.options)
        talk = api.chat(self.run, system=self.system, seed=self.seed, options=options, device=self.device)
        while words := _read():
            for piece in talk.answer(words):
                print(piece, end="", flush=True)
            print()


def _read() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return ""


@dataclass(frozen=True)
class Import(Command):
    """Makes a run folder of a pretrained language model (Llama and its relatives, GPT-2)."""

    source: Positional[Path]
    """A folder in the Hugging Face layout, a PEFT adapter's folder, or a GGUF file."""
    out: Path | None = None
    """The run folder (default: runs/ and the name of the source)."""

    def __call__(self) -> None:
        from bowerbird import api

        print(api.import_model(self.source, self.out))


@dataclass(frozen=True)
class Export(Command):
    """Writes a run's model in a form that other programs read."""

    run: Positional[Path]
    """The run folder."""
    to: str
    """The format: onnx, diffusers, huggingface, gguf, safetensors, html, or one of a plugin."""
    out: Path | None = None
    """A folder, or for gguf and html a file (default: RUN/export/FORMAT)."""

    def __call__(self) -> None:
        from bowerbird import api

        print(api.export(self.run, self.to, self.out))
