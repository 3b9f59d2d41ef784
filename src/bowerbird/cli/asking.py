"""The commands that answer questions about code: ask, and the server that offers the same to editors and agents."""

import json as jsonlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from bowerbird.cli.command import Command, Switch
from bowerbird.cli.printing import only_json
from bowerbird.errors import BowerbirdError

if TYPE_CHECKING:
    from bowerbird.reading.tutor import Conversation, Verdict


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which language model is asked.  Without --llm nothing is sent anywhere."""

    llm: str | None = None
    """Address of an OpenAI-compatible endpoint; its key comes from BOWERBIRD_LLM_KEY or OPENAI_API_KEY."""
    model: str | None = None
    """The model's name at that endpoint."""
    context: int = 16_000
    """How many tokens the model takes in."""
    cache: bool = True
    """Keep answers on disk, and take the same answer from there."""

    def checked(self) -> None:
        if (self.llm is None) != (self.model is None):
            raise BowerbirdError("--llm URL and --model NAME belong together.")


@dataclass(frozen=True, kw_only=True)
class Tutor(Model):
    """Which language model is asked, and how."""

    small: Switch = False
    """A small model: it only joins facts that the program states."""


@dataclass(frozen=True, kw_only=True)
class Ask(Command):
    """Answers a question about a program, a model's every claim checked.  Without a question: a conversation."""

    target: Positional[str]
    """A file, a folder, a notebook, or module:Class."""
    question: Positional[str | None] = None
    """In English or Chinese; an empty line ends the conversation that there is without it."""
    tutor: Annotated[Tutor, arg(name="")] = Tutor()
    lang: Literal["en", "zh"] | None = None
    """Language of the answer (default: that of the question)."""
    price: tuple[float, float] | None = None
    """What a million tokens cost, of the prompt and of the answer: then the cost is shown as well."""
    json: Switch = False
    """Print the answer as JSON."""

    def __call__(self) -> None:
        self.tutor.checked()
        if self.json and self.question is None:
            raise BowerbirdError("With --json, say the question: bowerbird ask FILE QUESTION --json.")
        from bowerbird import api

        tutor = self.tutor
        with only_json(self.json):
            talk = api.conversation(
                self.target, llm=tutor.llm, model=tutor.model, lang=self.lang, small=tutor.small,
                context=tutor.context, cache=tutor.cache,
            )  # fmt: skip
        if self.question is not None:
            self._answer(talk, self.question)
            return
        while words := _read():
            self._answer(talk, words)

    def _answer(self, talk: "Conversation", question: str) -> None:
        from bowerbird.reading.tutor.show import answer_text, summary, verdict_text
        from bowerbird.reading.wording import language_of

        if self.json:
            print(jsonlib.dumps(talk.ask(question).to_json(), indent=2, ensure_ascii=False))
            return
        colour = sys.stdout.isatty()
        lang = self.lang or language_of(question)

        def show(verdict: "Verdict") -> None:
            print(verdict_text(verdict, lang, colour=colour), flush=True)

        answer = talk.ask(question, show)
        if answer.mode == "offline":
            print(answer_text(answer))
        else:
            print(f"\n{summary(answer, self.price)}")


def _read() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return ""


@dataclass(frozen=True, kw_only=True)
class Mcp(Command):
    """Serves check, ask, read and track to editors and agents: a Model Context Protocol server on standard input."""

    tutor: Annotated[Tutor, arg(name="")] = Tutor()

    def __call__(self) -> None:
        self.tutor.checked()
        from bowerbird import api

        tutor = self.tutor
        api.mcp(llm=tutor.llm, model=tutor.model, small=tutor.small, context=tutor.context, cache=tutor.cache)
