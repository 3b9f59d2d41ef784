"""Names of files: their encoding, their order, and those that are not the user's."""

import os
import posixpath
import re
from collections.abc import Iterable
from itertools import chain, pairwise

from bowerbird.data import encodings
from bowerbird.errors import BowerbirdError

BRACES = re.compile(r"(?P<before>.*)\{(?P<source>[^{},]+),(?P<target>[^{},]+)\}(?P<after>[^{}]*)")
"""Two parallel files as one path."""


def printable(name: str) -> str:
    """The name, with its bytes written out where they are not UTF-8."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def naturally(names: Iterable[str]) -> list[str]:
    """Sorted so that s2 comes before s10.

    Names that differ in nothing but digits, in equally long numbers, are in this order already when sorted as text.  So
    the slow key is needed for the first and the last name of each such group alone, unless groups overlap.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.translate(ANY_DIGIT), []).append(name)
    groups = sorted(map(sorted, alike.values()), key=lambda group: natural(group[0]))
    for group, following in pairwise(groups):
        if natural(group[-1]) > natural(following[0]):
            return sorted(chain.from_iterable(groups), key=natural)
    return list(chain.from_iterable(groups))


ANY_DIGIT = str.maketrans("123456789", "0" * 9)


def natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key by which s2 comes before s10."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], text


def visible(names: list[str]) -> list[str]:
    """Without hidden files and what systems put among the user's."""
    return [name for name in names if not is_hidden(name)]


def is_hidden(name: str) -> bool:
    """Whether a name or a folder of it begins with a dot, or a system put it there."""
    return name.startswith(".") or "/." in name or is_of_a_system(name)


OF_SYSTEMS = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
"""Folders that operating systems and network storage put among the user's."""


def is_of_a_system(name: str) -> bool:
    return not OF_SYSTEMS.isdisjoint(name.split("/")) or base(name).startswith("._")


def base(name: str) -> str:
    """The last part of a name, as ``posixpath.basename`` has it, in a fraction of the time."""
    return name[name.rfind("/") + 1 :]


def suffix(name: str) -> str:
    """In lower case, with its dot; "" if there is none."""
    return posixpath.splitext(name)[1].lower()


def legible(raw: list[bytes], wanted: str) -> tuple[list[str], str]:
    """Names as text, and what is to be said about their encoding."""
    encoding = wanted
    if wanted == "auto":
        encoding = encodings.chosen(raw)
    try:
        names = [name.decode(encoding or "ascii", errors="strict" if encoding else "backslashreplace") for name in raw]
    except LookupError as error:
        raise BowerbirdError(
            f"There is no encoding '{wanted}'; try gb18030, big5, cp932, cp949, cp437 or utf-8."
        ) from error
    except UnicodeDecodeError as error:
        raise BowerbirdError(f"The file name {error.object!r} is not {wanted}; set --data.names to another.") from error
    if not raw or wanted != "auto" or encoding == encodings.UTF_8:
        return names, ""
    if not encoding:
        return names, f"{len(raw):,} names are in no known encoding (--data.names sets it)"
    return names, f"names read as {encoding}, which is a guess (--data.names sets another encoding)"


def is_unicode(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= one <= "\udfff" for one in name)


def may_be_of_another_encoding(name: str) -> bool:
    """Whether a name beyond ASCII is no UTF-8, or could be by accident: all of its letters take two bytes."""
    return not name.isascii() and all(one < "\u0800" or "\udc80" <= one <= "\udcff" for one in name)
