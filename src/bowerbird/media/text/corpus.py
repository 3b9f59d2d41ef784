"""A corpus: what files of text hold, before it becomes tokens: documents or one stream, pairs, or chats.

    .txt           a text that goes on, or a document per line
    .jsonl         an object per line: a column of text, a source and a target, or ``messages``
    .csv .tsv      a column of text, or a source and a target; a .tsv without a header is source, tab, target
    .yml           dialogues (see ``dialogues``)
    a.{de,en}      two parallel files, source and target line by line

each also as .gz or .xz, several in a folder or a zip.  Text is UTF-8 without exception; ends of lines become \\n.
"""

import gzip
import lzma
import posixpath
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bowerbird import config
from bowerbird.data import files, tables
from bowerbird.data.tables import Row
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.text import chat, dialogues
from bowerbird.media.text.chat import Message

Kind = Literal["text", "pairs", "chat"]
TABLES = (".jsonl", ".csv", ".tsv", ".yml", ".yaml")
SUFFIXES = (".txt", *TABLES)
"""What counts as text; each may be followed by one of ``COMPRESSED``."""
COMPRESSED = {".gz": gzip.decompress, ".xz": lzma.decompress}
LAYOUTS = ("auto", "stream", "documents", "packed")
EMPTY_LINES = re.compile(r"\n(?:[ \t]*\n)+")


@dataclass
class Corpus:
    """Items of one kind; what a model learns to write is ``texts`` or, of chats, ``chats``."""

    name: str
    kind: Kind
    texts: list[str] = field(default_factory=list)
    """Documents, or the targets of pairs."""
    sources: list[str] = field(default_factory=list)
    chats: list[list[Message]] = field(default_factory=list)
    split: list[str] = field(default_factory=list)
    """The official split of each item, "" where there is none."""
    stream: bool = False
    """The texts are one text, to be cut anywhere."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Items left out, by reason."""
    note: str = ""

    def extend(self, more: "Corpus", split: str) -> None:
        self.texts += more.texts
        self.sources += more.sources
        self.chats += more.chats
        self.skipped += more.skipped
        self.split += [split] * len(more.chats or more.texts)

    def keys(self) -> list[str]:
        """What decides about the split of each item: the text, the source of a pair, a chat's first question.

        So the translations of one sentence, and the answers to one question, never lie on two sides.
        """
        if self.kind == "chat":
            return [next((m["content"] for m in one if m["role"] == "user"), one[0]["content"]) for one in self.chats]
        return self.sources if self.kind == "pairs" else self.texts


def is_text(name: str) -> bool:
    """Whether a file of this name is read here."""
    return suffix(name) in SUFFIXES


def suffix(name: str) -> str:
    """The last suffix, without that of a compression."""
    stem, last = posixpath.splitext(name.lower())
    return posixpath.splitext(stem)[1] if last in COMPRESSED else last


def read(data: config.Data, path: Path, name: str) -> Corpus:
    """The corpus at a path, a folder, a zip, or ``a.{source,target}``; errors say what is wrong with it."""
    if data.text.layout not in LAYOUTS:
        raise unknown("data.text.layout", data.text.layout, LAYOUTS)
    corpus = Corpus(name, "text")
    if braces := files.BRACES.fullmatch(str(path)):
        parallel(corpus, braces)
    else:
        source, names = _files(path)
        contents, splits = [decoded(source, one) for one in names], official_splits(names)
        if suffix(names[0]) in TABLES:
            for one, text, split in zip(names, contents, splits, strict=True):
                _add(corpus, one, text, split, data)
        else:
            _plain(corpus, contents, splits, data.text.layout)
    _check(corpus, data)
    return corpus


def _add(corpus: Corpus, name: str, text: str, split: str, data: config.Data) -> None:
    """The items of one file."""
    if not text.strip():
        return
    match suffix(name):
        case ".yml" | ".yaml":
            more = Corpus(name, "chat", chats=dialogues.parse(text, name))
        case ".jsonl":
            more = from_table(name, *tables.json_table(text, name), data)
        case ".csv":
            more = from_table(name, *tables.csv_table(text, name), data)
        case _:
            more = from_table(name, *tables.tsv_table(text, name, data.text), data)
    if corpus.split and more.kind != corpus.kind:
        raise BowerbirdError(f"{corpus.name} holds {corpus.kind} and, in {name}, {more.kind}; name one file or folder.")
    corpus.kind = more.kind
    corpus.extend(more, split)


def _check(corpus: Corpus, data: config.Data) -> None:
    if not corpus.split:
        raise BowerbirdError(f"{corpus.name} is empty: there is no text in it.")
    if data.modality not in ("auto", corpus.kind):
        raise BowerbirdError(f"{corpus.name} holds {corpus.kind}, not {data.modality}; leave out data.modality.")
    if corpus.kind == "text" and data.text.layout == "stream":
        corpus.stream = True
    if corpus.kind != "text" and data.text.layout in ("stream", "packed"):
        raise BowerbirdError(
            f"{corpus.name} holds {corpus.kind}, which cannot have data.text.layout = '{data.text.layout}'."
        )


# ------------------------------------------------------------------------------------------------------ files


def _files(path: Path) -> tuple[files.Files, list[str]]:
    """The files of text in natural order; a .txt beside tables is a read-me and left out."""
    if path.is_file() and path.suffix.lower() != ".zip":
        return files.Folder(path.parent), [path.name]
    source = files.open_files(path)
    names = sorted((name for name in files.visible(source.names()) if is_text(name)), key=files.natural)
    if not names:
        raise BowerbirdError(f"{path} holds no text ({', '.join(SUFFIXES)}).")
    return source, [name for name in names if suffix(name) in TABLES] or names


def official_splits(names: list[str]) -> list[str]:
    """The split that each file's name (train.txt) or top folder says, "" unless all do and one is for training."""
    stems = [posixpath.basename(name).split(".")[0].lower() for name in names]
    if set(stems) <= files.SPLITS.keys() and "train" in (splits := [files.SPLITS[stem] for stem in stems]):
        return splits
    return [str(split) for split in files.official_splits(names)]


def decoded(source: files.Files, name: str) -> str:
    """The text of a file, which has to be UTF-8; the error names the byte that is not."""
    with source.open(name) as file:
        raw = file.read()
    try:
        raw = COMPRESSED.get(posixpath.splitext(name.lower())[1], bytes)(raw)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise BowerbirdError(f"{name} cannot be unpacked ({error}); make it again.") from error
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BowerbirdError(
            f"{name} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start} ({error.reason}); "
            "save it as UTF-8."
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


# ------------------------------------------------------------------------------------------------------ .txt


def _plain(corpus: Corpus, contents: list[str], splits: list[str], layout: str) -> None:
    """A stream, or documents.  Several files are a document each, unless they are the splits.

    auto: a text with empty lines, or of one line, goes on; any other has a document per line.
    """
    one_each = len(contents) > 1 and not any(splits)
    longest = max(contents, key=len)
    goes_on = EMPTY_LINES.search(longest.strip("\n")) or "\n" not in longest.strip("\n")
    corpus.stream = layout == "stream" or (layout == "auto" and not one_each and bool(goes_on))
    for text, split in zip(contents, splits, strict=True):
        texts = [text] if corpus.stream or one_each else documents(text)
        corpus.extend(Corpus(corpus.name, "text", [one for one in texts if one.strip()]), split)


def documents(text: str) -> list[str]:
    """The blocks between empty lines or, where there are none, the lines."""
    blocks = EMPTY_LINES.split(text.strip("\n"))
    return blocks if len(blocks) > 1 else text.split("\n")


# --------------------------------------------------------------------------------------------------- columns


def from_table(name: str, columns: Iterable[str], rows: Iterable[Row], data: config.Data) -> Corpus:
    """Chats, pairs or documents, whichever the table has the columns for."""
    kind, needed = chosen_columns(name, list(columns), data)
    corpus = Corpus(name, kind)
    for number, row in rows:
        where = f"{name}, line {number}"
        if missing := [column for column in needed if row.get(column) is None]:
            raise BowerbirdError(f"{where}: the column '{missing[0]}' is missing.")
        values = [row[column] for column in needed]
        if kind == "chat":
            corpus.chats.append(chat.checked(values[0], where))
        elif not all(isinstance(value, str) for value in values):
            raise BowerbirdError(f"{where}: {' and '.join(needed)} must be text.")
        elif all(value.strip() for value in values):
            corpus.texts.append(values[-1])
            corpus.sources += values[:-1]
        else:
            corpus.skipped["empty"] += 1
    return corpus


def chosen_columns(name: str, columns: list[str], data: config.Data) -> tuple[Kind, tuple[str, ...]]:
    """What the table holds, and the columns that hold it."""
    text = data.text
    needed: dict[Kind, tuple[str, ...]]
    needed = {"chat": ("messages",), "pairs": (text.source, text.target), "text": (text.text,)}
    wanted = {kind: names for kind, names in needed.items() if data.modality in ("auto", kind)}
    for kind, names in wanted.items():
        if set(names) <= set(columns):
            return kind, names
    asked = " or ".join(" and ".join(map(repr, names)) for names in wanted.values())
    raise BowerbirdError(
        f"{name} has no column {asked}; its columns: {', '.join(map(repr, columns))}; name the right ones with "
        "data.text.text, or data.text.source and data.text.target."
    )


# -------------------------------------------------------------------------------------------- parallel files


def parallel(corpus: Corpus, braces: re.Match[str]) -> None:
    """Pairs of two files, line by line; beside train.{de,en} the files val… and test… are the official splits."""
    corpus.kind = "pairs"
    for split, before in _official(Path(braces["before"]), braces, corpus):
        sides = []
        for side in (braces["source"], braces["target"]):
            path = _existing(Path(f"{before}{side}{braces['after']}"))
            lines = decoded(files.Folder(path.parent), path.name).removesuffix("\n").split("\n")
            sides.append((path, lines if lines != [""] else []))
        (_, sources), (_, targets) = sides
        if len(sources) != len(targets):
            short, long = sorted(sides, key=lambda side: len(side[1]))
            raise BowerbirdError(
                f"{short[0]} has no line {len(short[1]) + 1}, but {long[0].name} has {len(long[1])} lines; "
                "the lines of parallel files belong together."
            )
        for source, target in zip(sources, targets, strict=True):
            if source.strip() and target.strip():
                corpus.sources.append(source)
                corpus.texts.append(target)
                corpus.split.append(split)
            else:
                corpus.skipped["empty"] += 1


def _existing(path: Path) -> Path:
    found = next((p for p in (path, *(Path(f"{path}{end}") for end in COMPRESSED)) if p.is_file()), None)
    if found is None:
        raise BowerbirdError(f"There is no file {path}.")
    return found


def _official(before: Path, braces: re.Match[str], corpus: Corpus) -> list[tuple[str, str]]:
    """Splits, and what stands before the brace in the names of their files."""
    stem = before.name.rstrip(".")
    if files.SPLITS.get(stem.lower()) != "train" or not str(before).endswith("."):
        return [("", str(before))]
    end = f".{braces['source']}{braces['after']}"
    names = [path.name for path in before.parent.iterdir()]
    stems = sorted(
        {name.split(end)[0] for name in names if name.split(end)[-1] in ("", *COMPRESSED)}, key=files.natural
    )
    found = {"train": stem}
    for other in stems:
        split = files.SPLITS.get(other.lower()) or ("test" if other.lower().startswith("test") else "")
        if split and split not in found:
            found[split] = other
    if found.get("test", "test") != "test":
        corpus.note = f"test is {found['test']}"
    return [(split, f"{before.parent / name}.") for split, name in found.items()]
