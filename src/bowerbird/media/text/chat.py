"""A chat: messages with a role and a content, written as one text by a chat template.

A template is a Jinja program that sees ``messages``, ``add_generation_prompt`` (whether the answer's beginning is to be
written after the last message), ``bos_token`` and ``eos_token``.  Templates come with other people's models, so they
run in a sandbox: they see nothing else and change nothing.
"""

import json
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bowerbird.errors import BowerbirdError

Message = dict[str, str]
"""``role`` (system, user, assistant …) and ``content``."""
ANSWERS = "assistant"
"""The role whose messages are learnt."""
CHATML = """\
{% for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""
"""The template of tokenizers that come without one."""


def render(
    messages: list[Message], template: str = "", *, reply: bool = False, bos_token: str = "", eos_token: str = ""
) -> str:
    """The text of a chat; with ``reply`` it ends where the assistant's next message begins.

    BowerbirdError when the template is broken or refuses these messages.
    """
    try:
        return _compiled(template or CHATML).render(
            messages=messages, add_generation_prompt=reply, bos_token=bos_token, eos_token=eos_token
        )
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise BowerbirdError(f"The chat template cannot write these messages: {error}.") from error


def marked(
    messages: list[Message], template: str = "", *, bos_token: str = "", eos_token: str = ""
) -> tuple[str, list[tuple[int, int]]]:
    """The text of a chat, and begin and end of each of the assistant's messages in it, with what ends them.

    A message is what rendering adds to the prompt that asks for it.
    """
    text = render(messages, template, bos_token=bos_token, eos_token=eos_token)
    spans = []
    for i, message in enumerate(messages):
        if message["role"] == ANSWERS:
            prompt = render(messages[:i], template, reply=True, bos_token=bos_token, eos_token=eos_token)
            answered = render(messages[: i + 1], template, bos_token=bos_token, eos_token=eos_token).rstrip()
            if not (answered.startswith(prompt) and text.startswith(answered)):
                raise BowerbirdError(
                    "The chat template writes an answer that does not continue the prompt that asks for it, so it "
                    "cannot be told which tokens to learn; use another template."
                )
            spans.append((len(prompt), len(answered)))
    return text, spans


def checked(value: Any, where: str) -> list[Message]:
    """``messages`` as read from JSON, or an error that says what is wrong with them; ``where`` names file and line."""
    if not isinstance(value, list) or not value:
        raise BowerbirdError(f"{where}: messages must be a list of at least one message.")
    for number, message in enumerate(value, 1):
        if wrong := _wrong(message):
            raise BowerbirdError(
                f'{where}: {wrong} (message {number}); write {{"role": "user", "content": "Hi"}} or leave the chat out.'
            )
    if not any(message["role"] == ANSWERS for message in value):
        raise BowerbirdError(
            f"{where}: the chat has no message of the role {ANSWERS}, so nothing could be learnt of it."
        )
    return [{key: content for key, content in message.items() if isinstance(content, str)} for message in value]


def _wrong(message: Any) -> str:
    """What is wrong with a message, in words; "" if nothing is."""
    if not isinstance(message, dict):
        return f"a message is {_kind(message)}, not an object"
    for key in ("role", "content"):
        if key not in message:
            return f"a message has no {key}"
        if not isinstance(value := message[key], str):
            calls = ", and its tool_calls are not read" if message.get("tool_calls") else ""
            return f"the {key} of a message is {_kind(value)}, not a text{calls}"
    return ""


def _kind(value: Any) -> str:
    """What a value of JSON is, in words; of the parts of a content what is no text among them."""
    if isinstance(value, bool | int | float):
        return f"the number {value}" if not isinstance(value, bool) else str(value).lower()
    if isinstance(value, list):
        kinds = {str(part.get("type")).removesuffix("_url") for part in value if isinstance(part, dict)} - {"text"}
        return f"a list with a part of the type {min(kinds)}" if kinds else "a list"
    return {type(None): "null", str: "a text", dict: "an object"}.get(type(value), type(value).__name__)


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    # Hugging Face writes templates for these settings, and with these two functions and this filter.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    return environment.from_string(template)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
