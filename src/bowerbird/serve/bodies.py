"""The requests of OpenAI's endpoints and of ours beside them; what cannot be done is refused, not ignored."""

from typing import Annotated, Any, Literal

from pydantic import Field

from bowerbird.serve.endpoints import Body

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63, description="The same seed gives the same samples.")]
N = Annotated[int, Field(ge=1, le=1024, description="How many.")]
Given = Annotated[dict[str, Any], Field(description="What samples are made from, by the names of the model's inputs.")]
Options = Annotated[dict[str, Any], Field(description="The model's own sampling options.")]


class Drawing(Body):
    """What every request for samples may say."""

    model: str | None = None
    seed: Seed | None = None
    given: Given = {}
    options: Options = {}
    user: str | None = None
    """Taken, and used for nothing."""


class ImageRequest(Drawing):
    prompt: str = ""
    n: N | None = 1
    size: str | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png"] | None = None
    quality: Literal["auto", "standard"] | None = None
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto", "low"] | None = None
    stream: Literal[False] | None = None


class MusicRequest(Drawing):
    n: N | None = 1
    response_format: Literal["mid", "wav", "png", "all"] | None = None


class SpeechRequest(Body):
    model: str
    input: str
    voice: Any = None
    instructions: str | None = None
    response_format: str | None = None
    speed: float | None = None
    stream_format: str | None = None


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


Stop = str | Annotated[list[str], Field(max_length=16)] | None
NoPenalty = Annotated[float, Field(ge=0, le=0)] | None
Temperature = Annotated[float, Field(ge=0, le=100)] | None
TopP = Annotated[float, Field(gt=0, le=1)] | None
Most = Annotated[int, Field(ge=1, le=2**31)] | None


class TextRequest(Body):
    """What completions and chats share."""

    model: str
    n: N | None = 1
    seed: Seed | None = None
    temperature: Temperature = None
    top_p: TopP = None
    stop: Stop = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    options: Options = {}
    presence_penalty: NoPenalty = None
    frequency_penalty: NoPenalty = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    user: str | None = None
    max_tokens: Most = None


class CompletionRequest(TextRequest):
    prompt: str | list[str] | list[int] | list[list[int]] = ""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Literal[1] | None = None
    suffix: None = None


class TextPart(Body):
    type: Literal["text"]
    text: str


class Message(Body):
    role: str
    content: str | list[TextPart]
    name: str | None = None


class ChatRequest(TextRequest):
    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Most = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    store: Literal[False] | None = None
