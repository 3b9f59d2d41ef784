"""The language model: any endpoint that speaks OpenAI's chat protocol, and what was asked of it and answered before.

Nothing is sent unless an address was given.  The key comes from the environment, $BOWERBIRD_LLM_KEY or else
$OPENAI_API_KEY; it is sent to no address without encryption, except on this machine.  Answers are kept on disk under
$BOWERBIRD_CACHE by the hash of all that they depend on; verdicts are never kept, they are computed each time.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import urlsplit

from bowerbird.errors import BowerbirdError, RunFailed

if TYPE_CHECKING:
    from openai import OpenAI

_LOCAL = {"localhost", "127.0.0.1", "::1"}
LONGEST_ANSWER = 200_000
"""Characters after which an answer is cut off: no honest one is so long."""


class Message(TypedDict):
    role: str
    content: str


@dataclass
class Usage:
    """Tokens of all calls of one answer.  ``counted`` is False where the endpoint did not say and we estimated."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    cached_calls: int = 0
    counted: bool = True

    def add(self, prompt: int, completion: int, *, counted: bool) -> None:
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self.calls += 1
        self.counted = self.counted and counted

    def cost(self, price: tuple[float, float]) -> float:
        """What it cost, for prices per million tokens of prompt and of answer."""
        return (self.prompt_tokens * price[0] + self.completion_tokens * price[1]) / 1e6


def tokens(text: str) -> int:
    """About how many tokens a text has: one per Chinese character, one per four others."""
    wide = sum("\u2e80" <= c <= "\uffef" for c in text)
    return wide + (len(text) - wide + 3) // 4


def address(url: str) -> str:
    """The base address of an endpoint; a host alone means its /v1."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BowerbirdError(f"'{url}' is no address of an endpoint; write it as http://localhost:8000/v1.")
    path = re.sub(r"/chat/completions/?$", "", parts.path).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


@dataclass
class Endpoint:
    url: str
    model: str
    timeout_s: float = 300.0
    use_cache: bool = True
    usage: Usage = field(default_factory=Usage)
    _plain: bool = False
    """Whether the endpoint refused a request with options (JSON, temperature, a limit), and is asked without any."""

    def __post_init__(self) -> None:
        self.url = address(self.url)

    def stream(
        self, messages: Sequence[Message], *, json_wanted: bool, max_tokens: int, about: str = ""
    ) -> Iterator[str]:
        """The answer piece by piece, from the cache if the same was asked before; ``about`` names the facts "
        "it rests on."""
        kept = _Kept.of(self.url, self.model, messages, about)
        if self.use_cache and (known := kept.read()) is not None:
            self.usage.cached_calls += 1
            yield known
            return
        pieces: list[str] = []
        for piece in self._ask(messages, json_wanted, max_tokens):
            pieces.append(piece)
            yield piece
            if sum(map(len, pieces)) > LONGEST_ANSWER:
                break
        if self.use_cache and pieces:
            kept.write("".join(pieces))

    def _ask(self, messages: Sequence[Message], json_wanted: bool, max_tokens: int) -> Iterator[str]:
        import openai

        options: dict[str, Any] = {
            "temperature": 0.0,
            "max_tokens": max_tokens,
            "stream_options": {"include_usage": True},
        }
        if json_wanted:
            options["response_format"] = {"type": "json_object"}
        said, counts = "", None
        completions: Any = self._client().chat.completions
        try:
            answer = completions.create(
                model=self.model, messages=list(messages), stream=True, **({} if self._plain else options)
            )
            for chunk in answer:
                counts = chunk.usage or counts
                piece = chunk.choices[0].delta.content if chunk.choices else None
                if piece:
                    said += piece
                    yield piece
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if self._plain or said:
                raise RunFailed(f"The model at {self.url} refused the question: {_short(error)}.") from None
            self._plain = True
            yield from self._ask(messages, json_wanted, max_tokens)
            return
        except openai.AuthenticationError:
            raise BowerbirdError(f"{self.url} wants a key; put it in BOWERBIRD_LLM_KEY or OPENAI_API_KEY.") from None
        except openai.NotFoundError:
            raise BowerbirdError(
                f"{self.url} has no model '{self.model}' or is no such endpoint; see --model."
            ) from None
        except openai.APIConnectionError:
            raise RunFailed(f"Nothing answers at {self.url}; is the server running?") from None
        except openai.APIError as error:
            raise RunFailed(f"The model at {self.url} failed: {_short(error)}.") from None
        asked = sum(tokens(m["content"]) for m in messages)
        if counts is not None and counts.total_tokens:
            self.usage.add(counts.prompt_tokens, counts.completion_tokens, counted=True)
        else:
            self.usage.add(asked, tokens(said), counted=False)

    def _client(self) -> "OpenAI":
        from openai import OpenAI

        parts = urlsplit(self.url)
        key = os.environ.get("BOWERBIRD_LLM_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
        if key != "none" and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise BowerbirdError(f"A key would be sent to {parts.hostname} unencrypted; use https, or unset the key.")
        return OpenAI(base_url=self.url, api_key=key, timeout=self.timeout_s, max_retries=1)


def _short(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:200].rstrip(".")


@dataclass(frozen=True)
class _Kept:
    """One answer on disk."""

    path: Path

    @classmethod
    def of(cls, url: str, model: str, messages: Sequence[Message], about: str) -> "_Kept":
        key = hashlib.sha256(json.dumps([url, model, list(messages), about], ensure_ascii=False).encode()).hexdigest()
        folder = Path(os.environ.get("BOWERBIRD_CACHE") or "~/.cache/bowerbird").expanduser()
        return cls(folder / "answers" / f"{key}.json")

    def read(self) -> str | None:
        try:
            answer = json.loads(self.path.read_text(encoding="utf-8"))["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return answer if isinstance(answer, str) else None

    def write(self, answer: str) -> None:
        """Keeps an answer; a full or read-only disk is no reason to fail."""
        part = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"answer": answer}, ensure_ascii=False), encoding="utf-8")
            part.replace(self.path)
        except OSError:
            part.unlink(missing_ok=True)
