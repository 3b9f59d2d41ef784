"""A corpus: what files of text hold, before it becomes tokens: documents or one stream, pairs, or chats.

    .txt           a text that goes on, or a document per line
    .md            a text that goes on
    .jsonl .json   an object per line, a list of objects
    .csv .tsv      rows of cells
    .parquet       rows, if pyarrow is installed
    .yml           dialogues (see ``dialogues``)
    a.{de,en}      two parallel files, source and target line by line

each also as .gz, .xz or .bz2, several in a folder or a zip.  Several .txt and .md files are a document each; ``forms``
says what tables hold.  What was seen and not used is counted with a reason and an example.
"""

import posixpath
import re
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from bowerbird import config
from bowerbird.data import files, tables
from bowerbird.data.kinds import is_zip
from bowerbird.data.listing import BESIDE, SPLITS, official_splits
from bowerbird.data.names import BRACES, natural, naturally, visible
from bowerbird.data.tables import Table
from bowerbird.data.unused import Unused
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.text import dialogues, forms
from bowerbird.media.text.chat import Message
from bowerbird.media.text.forms import Form, Kind
from bowerbird.media.text.textfiles import COMPRESSED, Room, TextFile, checked_encoding

TABLES = (".jsonl", ".csv", ".tsv", ".parquet", ".yml", ".yaml")
PLAIN = (".txt", ".md")
SUFFIXES = (*PLAIN, *TABLES, ".json")
"""What counts as text; each may be followed by one of ``COMPRESSED``."""
ENDINGS = (*SUFFIXES, *COMPRESSED)
LAYOUTS = ("auto", "stream", "documents", "packed")
EMPTY_LINES = re.compile(r"\n(?:[ \t]*\n)+")
MARK = "\ufeff"
SHARD = re.compile(r"(?P<split>.+?)-\d+-of-\d+")
"""A file as Hugging Face names it: train-00000-of-00002.parquet."""


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
    skipped: Unused = field(default_factory=Unused)
    """Items that were left out."""
    unused: dict[str, None] = field(default_factory=dict)
    """Columns of tables that were not read."""
    notes: list[str] = field(default_factory=list)
    n_marked: int = 0
    """Documents and pairs that began with a byte order mark, as after files were joined."""

    def add(self, text: str, split: str, source: str | None = None, where: str = "") -> None:
        """A document or, with a source, a pair, without a byte order mark before it; one that is empty is skipped."""
        if any(side is not None and side.startswith(MARK) for side in (text, source)):
            self.n_marked += 1
            text, source = text.removeprefix(MARK), source and source.removeprefix(MARK)
        if _is_empty(text) or (source is not None and _is_empty(source)):
            self.skip("empty", where)
            return
        self.texts.append(text)
        self.sources += [] if source is None else [source]
        self.split.append(split)

    def skip(self, reason: str, where: str) -> None:
        """Counts an item; items come in order, so the first need not be looked for."""
        self.skipped.counts[reason] = self.skipped.counts.get(reason, 0) + 1
        self.skipped.first.setdefault(reason, where)

    def note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def keys(self) -> list[str]:
        """What decides about the split of each item: the text, the source of a pair, a chat's first question.

        So the translations of one sentence, and the answers to one question, never lie on two sides.
        """
        if self.kind == "chat":
            return [next((m["content"] for m in one if m["role"] == "user"), one[0]["content"]) for one in self.chats]
        return self.sources if self.kind == "pairs" else self.texts

    def n_copies(self) -> int:
        """How many documents, pairs or chats are copies of others."""
        if self.kind == "chat":
            return len(self.chats) - len({repr(one) for one in self.chats})
        items = set(zip(self.sources, self.texts, strict=True)) if self.sources else set(self.texts)
        return len(self.texts) - len(items)


def _is_empty(text: str) -> bool:
    """Whether there is nothing but space, the end of a file in DOS (^Z) and byte order marks."""
    return all(character.isspace() or character in ("\x1a", MARK) for character in text)


def is_text(name: str) -> bool:
    """Whether a file of this name is read here."""
    return name.lower().endswith(ENDINGS) and suffix(name) in SUFFIXES


def suffix(name: str) -> str:
    """The last suffix, without that of a compression."""
    stem, last = posixpath.splitext(name.lower())
    return posixpath.splitext(stem)[1] if last in COMPRESSED else last


def read(data: config.Data, path: Path, name: str) -> Corpus:
    """The corpus at a path, a folder, a zip, or ``a.{source,target}``; errors say what is wrong with it."""
    if data.text.layout not in LAYOUTS:
        raise unknown("data.text.layout", data.text.layout, LAYOUTS)
    encoding, room = checked_encoding(data.text.encoding), Room(data.text.max_mb << 20)
    corpus = Corpus(name, "text")
    if braces := BRACES.fullmatch(str(path)):
        parallel(corpus, braces, encoding, room)
    else:
        source, names = _listed(path, corpus, data)
        found = [TextFile(source, one, encoding, room) for one in names]
        if _is_table(names[0], data):
            for file, split in zip(found, splits_named(names, corpus), strict=True):
                _add(corpus, file, split, data)
        else:
            _plain(corpus, found, splits_named(names, corpus), data.text.layout)
    _check(corpus, data)
    _note_what_is_odd(corpus)
    return corpus


def _is_table(name: str, data: config.Data) -> bool:
    """A .txt of pairs is one of cells between tabs."""
    return (suffix(name) not in (*PLAIN, "") and is_text(name)) or data.modality == "pairs"


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


def _note_what_is_odd(corpus: Corpus) -> None:
    if corpus.unused:
        shown = ", ".join(repr(one[:40]) for one in islice(corpus.unused, 8))
        more = f" and {len(corpus.unused) - 8} more" if len(corpus.unused) > 8 else ""
        corpus.note(f"columns not used: {shown}{more}")
    if not corpus.stream and (n_copies := corpus.n_copies()):
        corpus.note(f"{n_copies:,} {'is a copy' if n_copies == 1 else 'are copies'} of others")
    if corpus.n_marked:
        corpus.note(f"the byte order mark (U+FEFF) at the beginning of {corpus.n_marked:,} of the texts was dropped")
    lost = sum("\ufffd" in text for text in (*corpus.texts, *corpus.sources))
    if lost:
        corpus.note(f"U+FFFD in {lost:,} of the texts: an earlier conversion lost characters there")


# ------------------------------------------------------------------------------------------------------ files


def _listed(path: Path, corpus: Corpus, data: config.Data) -> tuple[files.Files, list[str]]:
    """The files of text in natural order; others are counted in the corpus's notes."""
    if path.is_file() and not is_zip(path):
        return files.Folder(path.parent), [_single(path, data)]
    source = files.open_files(path, data.names)
    names = naturally(visible(source.names()))
    used = _read_of([name for name in names if is_text(name)]) or (names if data.modality == "text" else [])
    if not used:
        raise BowerbirdError(
            f"{path} holds no text ({', '.join(SUFFIXES)}); add --data.modality text to read other files as plain text."
        )
    unused = Unused() + source.unused
    for name in set(names) - set(used):
        unused.add("file{s} beside the data" if is_text(name) else "file{s} of another kind", name)
    corpus.notes += [source.note] if source.note else []
    corpus.notes += [f"not read: {unused}"] if len(unused) else []
    return source, used


def _read_of(texts: list[str]) -> list[str]:
    """Tables if there are any, else .json or texts, whichever are more; read-me files only if there is nothing else."""
    lines, lists = ([name for name in texts if suffix(name) in of] for of in (TABLES, (".json",)))
    plain = [name for name in texts if suffix(name) in PLAIN and not BESIDE.fullmatch(posixpath.basename(name))]
    return lines or max(lists, plain, key=len) or texts


def _single(path: Path, data: config.Data) -> str:
    """The name of a file, of which the suffix or the user has to say what it is."""
    if not is_text(path.name) and data.modality not in ("text", "pairs"):
        raise BowerbirdError(
            f"The suffix of {path.name} does not say how to read it; give it one of {', '.join(SUFFIXES)}, or add "
            "--data.modality text to read it as plain text."
        )
    return path.name


def splits_named(names: list[str], corpus: Corpus) -> list[str]:
    """The split that each file's name (train.txt) or top folder says, "" unless all do and one is for training."""
    stems = [posixpath.basename(name).split(".")[0].lower() for name in names]
    stems = [shard["split"] if (shard := SHARD.fullmatch(stem)) else stem for stem in stems]
    splits = [SPLITS.get(stem, "") for stem in stems]
    if all(splits) and "train" in splits:
        return splits
    by_folder = [str(split) for split in official_splits(names)]
    if not any(by_folder) and "train" in splits and len(set(splits)) > 2:
        other = names[splits.index("")]
        corpus.note(f"train and the like are not official splits here, since {other} is not one of them")
    return by_folder


# ------------------------------------------------------------------------------------------------------ .txt


def _plain(corpus: Corpus, found: list[TextFile], splits: list[str], layout: str) -> None:
    """A stream, or documents.  Several files are a document each, unless they are the splits.

    auto: a text with empty lines, or of one line, goes on, as does .md; any other has a document per line.
    """
    contents = [file.text() for file in found]
    one_each = len(contents) > 1 and not any(splits)
    longest = max(contents, key=len)
    goes_on = (
        EMPTY_LINES.search(longest.strip("\n"))
        or "\n" not in longest.strip("\n")
        or all(suffix(file.name) == ".md" for file in found)
    )
    corpus.stream = layout == "stream" or (layout == "auto" and not one_each and bool(goes_on))
    for file, text, split in zip(found, contents, splits, strict=True):
        if corpus.stream or one_each:
            corpus.add(text, split, where=file.name)
            continue
        blocks = documents(text)
        for number, one in enumerate(blocks, 1):
            corpus.add(one, split, where=f"{file.name}, document {number}")
        if n_tabs := _tabs(blocks):
            cells = "a tab" if n_tabs == 1 else f"{n_tabs} tabs"
            corpus.note(f"every line of {file.name} has {cells}; if these are pairs, add --data.modality pairs")


def documents(text: str) -> list[str]:
    """The blocks between empty lines or, where there are none, the lines."""
    blocks = EMPTY_LINES.split(text.strip("\n"))
    return blocks if len(blocks) > 1 else text.strip("\n").split("\n")


def _tabs(lines: list[str]) -> int:
    """How many tabs every line has."""
    n_tabs = lines[0].count("\t")
    return n_tabs if n_tabs and len(lines) > 1 and all(line.count("\t") == n_tabs for line in lines) else 0


# ---------------------------------------------------------------------------------------------------- tables


def _add(corpus: Corpus, file: TextFile, split: str, data: config.Data) -> None:
    """The items of one file."""
    if suffix(file.name) in (".yml", ".yaml"):
        _start(corpus, "chat", file.name)
        text = file.text()
        for one in dialogues.parse(text, file.name) if text.strip() else []:
            if len(one) > 1:
                corpus.chats.append(one)
                corpus.split.append(split)
            else:
                corpus.skip("without an answer", f"{file.name}: {one[0]['content'][:40]}")
        return
    table = _table(file, data, corpus)
    if not table.columns:
        corpus.skip("empty file{s}", file.name)
        return
    form = forms.chosen(table.columns, data, table.translation)
    if form is None:
        raise forms.refused(file.name, table, data, cells=suffix(file.name) not in (".jsonl", ".json", ".parquet"))
    if twice := [column for column in form.columns if table.columns.count(column) > 1]:
        raise BowerbirdError(f"{file.name} has two columns '{twice[0]}'; give them different names.")
    _start(corpus, form.kind, file.name)
    for note in table.notes:
        corpus.note(f"{file.name}: {note}")
    if form.kind == "chat" and len(form.needed) == 2:
        asked, answer = form.needed
        corpus.note(f"'{asked}' and '{answer}' are read as chats; --data.modality pairs makes pairs of them")
    _add_rows(corpus, table, form, split)


def _start(corpus: Corpus, kind: Kind, name: str) -> None:
    if corpus.split and kind != corpus.kind:
        raise BowerbirdError(f"{corpus.name} holds {corpus.kind} and, in {name}, {kind}; name one file or folder.")
    corpus.kind = kind


def _add_rows(corpus: Corpus, table: Table, form: Form, split: str) -> None:
    used = {*form.columns, *(["translation"] if table.translation else [])}
    corpus.unused |= dict.fromkeys(column for column in table.columns if column not in used)
    for where, row in table.rows(form.columns):
        corpus.unused |= dict.fromkeys(column for column in row if column not in used)
        if missing := [column for column in form.needed if row.get(column) is None]:
            raise BowerbirdError(f"{where}: the column '{missing[0]}' is missing.")
        if form.kind == "chat":
            corpus.chats.append(form.chat(row, where))
            corpus.split.append(split)
            continue
        source, text = form.question(row, where), row[form.needed[-1]]
        if not isinstance(text, str):
            raise BowerbirdError(f"{where}: {form.needed[-1]} must be text.")
        corpus.add(text, split, source if form.kind == "pairs" else None, where)


def _table(file: TextFile, data: config.Data, corpus: Corpus) -> Table:
    name, kind = file.name, suffix(file.name)
    if kind == ".jsonl":
        return tables.json_lines(file.lines(), name)
    if kind == ".json":
        text = file.text()
        return tables.json_document(text, name) if text.strip() else Table([], lambda _: iter(()))
    if kind == ".parquet":
        return tables.parquet(file.binary(), name, file.room.take)
    if kind == ".csv":
        cells, between = tables.csv_cells(file.lines(), name)
        table = tables.of_cells(cells, name, lambda rows: forms.header(rows, data, certain=True))
        return table.with_note(f"{between} separate the cells" if between else "")
    cells, quoted = tables.tsv_cells(list(file.lines()), name)
    table = tables.of_cells(cells, name, lambda rows: forms.header(rows, data, certain=False))
    return table.with_note("quotation marks enclose cells, as Excel writes them" if quoted else "")


# -------------------------------------------------------------------------------------------- parallel files


def parallel(corpus: Corpus, braces: re.Match[str], encoding: str, room: Room) -> None:
    """Pairs of two files, line by line; beside train.{de,en} the files val… and test… are the official splits."""
    corpus.kind = "pairs"
    for split, before in _official(Path(braces["before"]), braces, corpus):
        sides = []
        for side in (braces["source"], braces["target"]):
            path = _existing(Path(f"{before}{side}{braces['after']}"))
            sides.append((path, list(TextFile(files.Folder(path.parent), path.name, encoding, room).lines())))
        (first, sources), (_, targets) = sides
        if len(sources) != len(targets):
            short, long = sorted(sides, key=lambda side: len(side[1]))
            raise BowerbirdError(
                f"{short[0]} has no line {len(short[1]) + 1}, but {long[0].name} has {len(long[1])} lines; "
                "the lines of parallel files belong together."
            )
        for number, (source, target) in enumerate(zip(sources, targets, strict=True), 1):
            corpus.add(target, split, source, f"{first.name}, line {number}")


def _existing(path: Path) -> Path:
    found = next((p for p in (path, *(Path(f"{path}{end}") for end in COMPRESSED)) if p.is_file()), None)
    if found is None:
        raise BowerbirdError(f"There is no file {path}.")
    return found


def _official(before: Path, braces: re.Match[str], corpus: Corpus) -> list[tuple[str, str]]:
    """Splits, and what stands before the brace in the names of their files."""
    stem = before.name.rstrip(".")
    if SPLITS.get(stem.lower()) != "train" or not str(before).endswith("."):
        return [("", str(before))]
    end = f".{braces['source']}{braces['after']}"
    names = [path.name for path in before.parent.iterdir()]
    stems = sorted({name.split(end)[0] for name in names if name.split(end)[-1] in ("", *COMPRESSED)}, key=natural)
    found, others = {"train": stem}, []
    for other in stems:
        split = SPLITS.get(other.lower()) or ("test" if other.lower().startswith("test") else "")
        if split and split not in found:
            found[split] = other
        elif other != stem:
            others.append(other)
    if found.get("test", "test") != "test":
        corpus.note(f"test is {found['test']}")
    if others:
        corpus.note(f"not read: {', '.join(others[:4])}{' …' if len(others) > 4 else ''}")
    return [(split, f"{before.parent / name}.") for split, name in found.items()]
