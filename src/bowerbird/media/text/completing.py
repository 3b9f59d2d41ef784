"""Text in, text out: what stands between a model of tokens and a person.

A prompt is encoded by the run's own tokenizer, the model continues its tokens, and what it says is decoded piece by
piece.  A piece is held back while its last character is incomplete, since one character may be several tokens.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bowerbird.errors import BowerbirdError
from bowerbird.media.text import chat
from bowerbird.media.text.tokenizers import Tokenizer
from bowerbird.models.base import Completes, GenerativeModel, Translates
from bowerbird.spec import TokenSpec

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What decoding gives for the bytes of an unfinished character."""
ANSWER_ROOM = 128
"""Tokens that a conversation leaves free for the next answer."""
ANSWER_AT_MOST = 512
"""Tokens of an answer unless ``n_tokens`` says otherwise: a model that repeats itself may never end one."""


def encode_prompt(spec: TokenSpec, tokenizer: Tokenizer, text: str) -> Tensor:
    """The tokens that a completion of ``text`` begins with."""
    start = [spec.bos] if spec.start == (spec.bos,) else []
    tokens = start + tokenizer.encode(text) if text else list(spec.start)
    return torch.tensor(tokens)


def complete(
    model: GenerativeModel,
    prompts: list[str],
    *,
    n_tokens: int,
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> list[str]:
    """Each prompt with its continuation of at most ``n_tokens`` tokens; ``options`` are the family's own."""
    tokenizer, rows = _prepare(model, prompts)
    drawn = _as(Completes, model).complete(rows, n_tokens=n_tokens, generator=_generator(seed), **(options or {}))
    steps = [tokens.cpu() for tokens in drawn]
    made = torch.stack(steps, 1).tolist() if steps else [[] for _ in prompts]
    return [prompt + tokenizer.decode(row) for prompt, row in zip(prompts, made, strict=True)]


def stream(
    model: GenerativeModel, prompt: str, *, n_tokens: int, seed: int = 0, options: dict[str, Any] | None = None
) -> Iterator[str]:
    """The continuation of one prompt, piece by piece as it is made."""
    tokenizer, rows = _prepare(model, [prompt])
    yield from stream_tokens(model, tokenizer, rows[0], n_tokens=n_tokens, seed=seed, options=options)


def stream_tokens(
    model: GenerativeModel,
    tokenizer: Tokenizer,
    prompt: Tensor,
    *,
    n_tokens: int,
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> Iterator[str]:
    """As ``stream``, from tokens."""
    made: list[int] = []
    said = ""
    drawn = _as(Completes, model).complete([prompt], n_tokens=n_tokens, generator=_generator(seed), **(options or {}))
    for token in drawn:
        made.append(int(token[0]))
        text = tokenizer.decode(made)
        if not text.endswith(INCOMPLETE) and len(text) > len(said):
            yield text[len(said) :]
            said = text
    if rest := tokenizer.decode(made)[len(said) :]:
        yield rest


class Conversation:
    """A chat with a model: every answer sees what was said before, as far as the model's context reaches back."""

    def __init__(
        self, model: GenerativeModel, *, system: str | None = None, seed: int = 0, options: dict[str, Any] | None = None
    ):
        self.model, self.seed, self.options = model, seed, dict(options or {})
        self.tokenizer = Tokenizer.from_spec(model.spec)
        self.system = [{"role": "system", "content": system}] if system else []
        self.messages: list[chat.Message] = []

    def answer(self, words: str) -> Iterator[str]:
        """The answer to ``words``, piece by piece; both become part of the conversation."""
        self.messages.append({"role": "user", "content": words})
        prompt = self._prompt()
        room = self.model.spec.context - len(prompt)
        options = {**self.options}
        n_tokens = min(options.pop("n_tokens", ANSWER_AT_MOST), room)
        said = ""
        seed = self.seed + len(self.messages)
        tokens = torch.tensor(prompt, device=self.model.device)
        for piece in stream_tokens(self.model, self.tokenizer, tokens, n_tokens=n_tokens, seed=seed, options=options):
            said += piece
            yield piece
        self.messages.append({"role": chat.ANSWERS, "content": said.strip()})

    def _prompt(self) -> list[int]:
        """The conversation as tokens up to the answer; the oldest messages are dropped until an answer has room."""
        most = self.model.spec.context - ANSWER_ROOM
        while True:
            tokens = self._encode(self.system + self.messages)
            if len(tokens) <= most or len(self.messages) <= 1:
                break
            del self.messages[:2]
        if len(tokens) >= self.model.spec.context:
            raise BowerbirdError(
                f"The message has {len(tokens)} tokens; this model reads at most {self.model.spec.context}."
            )
        return tokens

    def _encode(self, messages: list[chat.Message]) -> list[int]:
        spec, core = self.model.spec, self.tokenizer.core
        bos, eos = (str(core.id_to_token(token)) for token in (spec.bos, spec.eos))
        text = chat.render(messages, spec.chat_template, reply=True, bos_token=bos, eos_token=eos)
        return self.tokenizer.encode_marked(text)[0]


def translate(model: GenerativeModel, sources: list[str], options: dict[str, Any] | None = None) -> list[str]:
    """The translation (or summary …) of each source."""
    spec = model.spec
    tokenizer = Tokenizer.from_spec(spec)
    rows = [[*tokenizer.encode(source), spec.eos] for source in sources]
    for source, row in zip(sources, rows, strict=True):
        if len(row) > spec.source_context:
            raise BowerbirdError(
                f"The source '{source[:30]}…' has {len(row)} tokens; this model reads at most {spec.source_context}."
            )
    longest = max(map(len, rows), default=0)
    padded = torch.tensor([row + [spec.pad] * (longest - len(row)) for row in rows], device=model.device)
    made = _as(Translates, model).translate(padded, **(options or {}))
    return [tokenizer.decode(row.tolist()) for row in made]


def _prepare(model: GenerativeModel, prompts: list[str]) -> tuple[Tokenizer, list[Tensor]]:
    tokenizer = Tokenizer.from_spec(model.spec)
    return tokenizer, [encode_prompt(model.spec, tokenizer, prompt).to(model.device) for prompt in prompts]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _as(protocol: Any, model: GenerativeModel) -> Any:
    if not isinstance(model, protocol):
        can = "continue a prompt" if protocol is Completes else "translate"
        raise BowerbirdError(f"{type(model).__name__} cannot {can}.")
    return model
