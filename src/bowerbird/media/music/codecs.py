"""The codecs by the name that they write into a run."""

import json
from typing import Any

from bowerbird.errors import BowerbirdError
from bowerbird.media.music.codec import MusicCodec
from bowerbird.media.music.events import EventCodec
from bowerbird.media.music.grid import GridCodec


def codec_from(text: str) -> MusicCodec:
    """The codec that wrote ``text`` by its ``to_json``."""
    table: dict[str, Any] = json.loads(text)
    match table.pop("kind", None):
        case "grid":
            return GridCodec.from_table(table)
        case "midi":
            return EventCodec.from_table(table)
    raise BowerbirdError("This is not the codec of a music model; was the run trained on something else?")
