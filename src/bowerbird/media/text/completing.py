"""Text in, text out, piece by piece as it is made: completions that stream, and conversations.

A piece is held back while its last character is incomplete, since one character may be several tokens.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bowerbird.data.tokenizers import Tokenizer
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.media.text import chat
from bowerbird.spec import Tokens

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What decoding gives for the bytes of an unfinished character."""
ANSWER_ROOM = 128
"""Tokens that a conversation leaves free for the next answer."""
ANSWER_AT_MOST = 512
"""Tokens of an answer unless ``n_tokens`` says otherwise: a model that repeats itself may never end one."""


def stream_text(model: Any, tokenizer: Tokenizer, prompt: Tensor, *, seed: int = 0, options: Any) -> Iterator[str]:
    """What follows the tokens of a prompt (length,), piece by piece; ``model`` is a ``models.base.Streams``."""
    made: list[int] = []
    said = ""
    for token in model.stream(1, {"prompt": prompt[None]}, options, Draws(seed)):
        made.append(int(token[0]))
        text = tokenizer.decode(made)
        if not text.endswith(INCOMPLETE) and len(text) > len(said):
            yield text[len(said) :]
            said = text
    if rest := tokenizer.decode(made)[len(said) :]:
        yield rest


class Conversation:
    """A chat with a model: every answer sees what was said before, as far as the model's context reaches back."""

    def __init__(self, model: Any, make_options: Any, *, system: str | None = None, seed: int = 0):
        """``make_options(n_tokens)`` gives the options for an answer of at most so many tokens."""
        self.model, self.seed, self.make_options = model, seed, make_options
        self.field: Tokens = model.spec.needs(Tokens, "chat")
        self.tokenizer = Tokenizer.from_spec(model.spec)
        self.system = [{"role": "system", "content": system}] if system else []
        self.messages: list[chat.Message] = []

    def answer(self, words: str) -> Iterator[str]:
        """The answer to ``words``, piece by piece; both become part of the conversation."""
        self.messages.append({"role": "user", "content": words})
        prompt = torch.tensor(self._prompt(), device=self.model.device)
        options = self.make_options(min(ANSWER_AT_MOST, self.field.context - len(prompt)))
        said, seed = "", self.seed + len(self.messages)
        for piece in stream_text(self.model, self.tokenizer, prompt, seed=seed, options=options):
            said += piece
            yield piece
        self.messages.append({"role": chat.ANSWERS, "content": said.strip()})

    def _prompt(self) -> list[int]:
        """The conversation as tokens up to the answer; the oldest messages are dropped until an answer has room."""
        most = self.field.context - ANSWER_ROOM
        while True:
            tokens = self._encode(self.system + self.messages)
            if len(tokens) <= most or len(self.messages) <= 1:
                break
            del self.messages[:2]
        if len(tokens) >= self.field.context:
            raise BowerbirdError(
                f"The message has {len(tokens)} tokens; this model reads at most {self.field.context}."
            )
        return tokens

    def _encode(self, messages: list[chat.Message]) -> list[int]:
        core = self.tokenizer.core
        bos, eos = (str(core.id_to_token(token)) for token in (self.field.bos, self.field.eos))
        text = chat.render(messages, self.model.spec.chat_template, reply=True, bos_token=bos, eos_token=eos)
        return self.tokenizer.encode_marked(text)[0]
