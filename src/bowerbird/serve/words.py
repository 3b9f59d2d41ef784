"""What clients give, in words and base64, as the values that a run takes.

A name of a file is never among them: it would be one of the server's.  Pictures come in four formats, told by their
first bytes, and are decoded in a confined child process.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from bowerbird.errors import BowerbirdError
from bowerbird.media.image import pixels
from bowerbird.media.image.supplied import MIDDLE
from bowerbird.serve import uploaded
from bowerbird.serve.limits import Limits
from bowerbird.serve.served import Served
from bowerbird.spec import Classes, Field, Spec, Tensors, Tokens

T = TypeVar("T")

FORMATS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF")
SHOWN = 40
"""Names of classes that an error lists."""


def from_json(served: Served, given: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Values of JSON as ``read_given`` takes them: words, numbers of classes, and pictures in base64."""
    return {name: _value(served, name, value, limits) for name, value in given.items()}


async def aside(served: Served, work: Callable[[], T]) -> T:
    """The result of reading what a client gave: in a thread if pictures may be among it, which take their time."""
    brings = any(isinstance(field, Tensors) for field in served.spec.given.values())
    return await asyncio.to_thread(work) if brings else work()


def taken(spec: Spec) -> dict[str, Field]:
    """The inputs that a client may give: a prompt of tokens is what text alone begins with."""
    return {name: field for name, field in spec.given.items() if name != "prompt" or spec.medium == "text"}


def agreed(said: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a prompt says and what is given beside it; BowerbirdError where they contradict each other."""
    for name in said.keys() & given.keys():
        if str(said[name]) != str(given[name]):
            raise BowerbirdError(
                f"The prompt says {name} = '{said[name]}', and 'given' says '{given[name]}'; leave one of them out."
            )
    return {**said, **given}


def _value(served: Served, name: str, value: Any, limits: Limits) -> Any:
    inputs = taken(served.spec)
    field = inputs.get(name)
    if field is None:
        takes = f"it takes {', '.join(inputs)}" if inputs else "it is given nothing"
        raise BowerbirdError(f"'{name}' is not an input of the model '{served.name}': {takes}.")
    several = value if isinstance(value, list) else [value]
    if len(several) > limits.samples:
        raise BowerbirdError(f"'{name}' has {len(several)} values; the limit is {limits.samples}.")
    if isinstance(field, Tensors):
        return [picture(from_base64(one, name), field, limits) for one in several]
    numbers = isinstance(field, Classes)
    for one in several:
        if isinstance(one, bool) or not isinstance(one, str | int if numbers else str):
            raise BowerbirdError(f"'{name}' must be given as text{' or as a class number' if numbers else ''}.")
    if not several:
        raise BowerbirdError(f"'{name}' is an empty list; leave it out instead.")
    return value


# ------------------------------------------------------------------------------------------------------- pictures


def picture_name(served: Served) -> str:
    """The input that a picture to be edited is given as; empty where there is none."""
    return next((name for name, one in served.spec.given.items() if isinstance(one, Tensors) and name != "mask"), "")


def from_base64(text: Any, name: str) -> bytes:
    """The bytes of base64, or of a data: address."""
    if not isinstance(text, str):
        raise BowerbirdError(f"'{name}' is a picture: give a file in base64.")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BowerbirdError(f"'{name}' is a picture: give a file in base64. This is not base64.") from None


def picture(data: bytes, field: Tensors, limits: Limits) -> np.ndarray:
    """uint8 (h, w, c) of the size that the field has, its centre cut to the shape of the model."""
    return uploaded.decoded(_known(data), limits.upload_pixels, *field.shape[1:], cropped=True)


def mask(data: bytes, image: bytes, field: Tensors, limits: Limits) -> np.ndarray:
    """Where a picture is to be made anew, bool (h, w): where the mask is transparent, or else white.

    The mask has the size of the picture, and is cut and resized with it; it may be the picture itself, if parts of
    that are transparent.
    """
    most, any_size = limits.upload_pixels, (uploaded.UNLIMITED, uploaded.UNLIMITED)
    found = uploaded.covered(_known(data), most, transparent=data == image)
    height, width = uploaded.decoded(_known(image), most, *any_size, cropped=False).shape[:2]
    if found.shape[:2] != (height, width):
        raise BowerbirdError(
            f"The mask is {found.shape[1]}x{found.shape[0]} pixels, the picture {width}x{height}; make both alike."
        )
    return pixels.fit_array(found[None], *field.shape[1:])[0, ..., 0] >= MIDDLE


def _known(data: bytes) -> bytes:
    if not data.startswith(FORMATS):
        raise BowerbirdError("A picture must be a PNG, JPEG, GIF or WebP file.")
    return data


# ------------------------------------------------------------------------------------------------------- prompts


def from_prompt(served: Served, prompt: str) -> dict[str, str]:
    """What a prompt says to a model of pictures: a caption, or the name of a class of each attribute that it names.

    BowerbirdError where it says nothing that the model knows, or two things of one attribute.
    """
    fields = served.spec.given
    captions = [name for name, field in fields.items() if isinstance(field, Tokens)]
    classes = {name: field for name, field in fields.items() if isinstance(field, Classes)}
    if captions:
        return {captions[0]: prompt}
    if not prompt.strip():
        return {}
    if not classes:
        raise BowerbirdError("This model takes no prompt; send an empty one.")
    return _named(prompt, classes)


def _named(prompt: str, classes: Mapping[str, Classes]) -> dict[str, str]:
    found = {name: _matches(prompt, field.names) for name, field in classes.items()}
    if several := next((names for names in found.values() if len(names) > 1), None):
        raise BowerbirdError(f"The prompt names {' and '.join(several)}; ask for one of them at a time.")
    if not any(found.values()):
        raise BowerbirdError(f"The prompt names nothing that this model draws. It draws: {_listed(classes)}.")
    return {name: names[0] for name, names in found.items() if names}


def _matches(prompt: str, names: tuple[str, ...]) -> list[str]:
    """The names that stand in the prompt as words; a name within a longer one does not count."""
    found = []
    for name in sorted(names, key=len, reverse=True):
        whole = re.escape(name) if not name.isascii() else rf"(?<!\w){re.escape(name)}(?!\w)"
        if name.isdecimal():  # the 1 of -1, 1.5 or 2.1 is another number
            whole = rf"(?<![\w.,+−-]){name}(?!\w|[.,]\d)"
        prompt, n = re.subn(whole, " ", prompt)
        found += [name] if n else []
    return found


def _listed(classes: Mapping[str, Classes]) -> str:
    parts = []
    for name, field in classes.items():
        shown = ", ".join(field.names[:SHOWN])
        more = f" and {len(field.names) - SHOWN} more" if len(field.names) > SHOWN else ""
        parts.append(f"{name}: {shown}{more}" if len(classes) > 1 else f"{shown}{more}")
    return "; ".join(parts)
