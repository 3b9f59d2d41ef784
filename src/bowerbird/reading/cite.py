"""``cite``: checks what documentation says of code, in any Markdown, against the code of its repository.

Two kinds of claims are checked.  A citation, ``file.py:12``, ``file.py:12-20`` or a link to ``file.py#L12``: the file
exists, the line is in range, and the line (or the definition around it) holds what the sentence quotes.  Content comes
first: where the quoted words stand elsewhere in the file, the citation has drifted, and where to is said.  A quoted
name: it occurs somewhere in the code.  Fenced blocks, links to other sites and lines with ``<!-- cite: ignore -->``
are left alone.  Nothing is run, and no language is assumed: code is lines, words and indentation.
"""

import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bowerbird.errors import BowerbirdError

LARGEST_BYTES = 2_000_000
_TEXT = {".md", ".markdown", ".mdx", ".rst", ".txt"}
_SKIPPED = {"node_modules", "__pycache__", "venv", "build", "dist", "site-packages"}
_DATA = set("npy npz png jpg jpeg wav mp3 mid csv json yaml yml toml txt pt pth ckpt safetensors html zip gz".split())
_IGNORE = "cite: ignore"

_SPAN = re.compile(r"(?P<ticks>`+)(?P<code>.+?)(?P=ticks)")
_LINK = re.compile(r"\[(?P<words>[^\]]*)\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
_PLACE = re.compile(
    r"(?<![\w/.:@-])(?P<file>(?:\.{0,2}/)?[\w][\w./-]*\.(?P<ext>[A-Za-z]\w{0,7}))"
    r"(?::|#L)(?P<first>\d+)(?:(?:[-–]|-L)(?P<last>\d+))?\b"
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?")
_TELLING = re.compile(r"_|[a-z0-9][A-Z]|\.|\(\)$")
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+")
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+(?=[A-Z`\[(*_\"“])|(?<=[。！？；])")
_BLOCK = re.compile(r"^\s*(?:[-*+]|\d+[.)]|>|#{1,6}|\|)\s*")


@dataclass(frozen=True)
class Wrong:
    """A claim that does not hold: where it stands, what it cites, what is the matter, and where the thing is now."""

    file: str
    line: int
    cited: str
    kind: str
    message: str
    now: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True)
class CiteResult:
    """How many claims were checked, and those that do not hold."""

    citations: int
    names: int
    wrong: list[Wrong] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"citations": self.citations, "names": self.names, "wrong": [asdict(wrong) for wrong in self.wrong]}


@dataclass(frozen=True)
class Sentence:
    """A sentence of a page with the number of the line on which it begins."""

    text: str
    line: int


def cite(targets: Iterable[Path | str], root: Path | str | None = None) -> CiteResult:
    """Checks Markdown files, and those in folders, against the repository at ``root`` (default: that around them)."""
    pages = list(_pages(map(Path, targets)))
    if not pages:
        raise BowerbirdError("There is no Markdown there; name a .md file or a folder with some.")
    repository = Repository(Path(root) if root is not None else _root_of(pages[0]))
    counts = {"citations": 0, "names": 0}
    wrong = [found for page in pages for found in _check(page, repository, counts)]
    return CiteResult(counts["citations"], counts["names"], wrong)


def _pages(targets: Iterable[Path]) -> Iterator[Path]:
    for target in targets:
        if target.is_dir():
            yield from (p for p in sorted(target.rglob("*.md")) if not _hidden(p.relative_to(target)))
        elif target.is_file():
            yield target
        else:
            raise BowerbirdError(f"There is no file or folder {target}.")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part in _SKIPPED for part in path.parts)


def _root_of(page: Path) -> Path:
    """The folder of the repository that a page lies in, or its own."""
    folders = page.resolve().parents
    return next((f for f in folders if (f / ".git").exists()), folders[0])


# -------------------------------------------------------------------------------------------------------- the code


class Repository:
    """The files of a repository that are no documentation: found by path, searched by word."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise BowerbirdError(f"There is no folder {root}.")
        self.root = root.resolve()
        self.files = sorted(self._listed())
        self._lines: dict[Path, list[str]] = {}

    def _listed(self) -> Iterator[Path]:
        """What git knows, else every file that is not hidden."""
        try:
            asked = ["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            names = subprocess.run(asked, capture_output=True, check=True, timeout=60).stdout.split(b"\0")
            yield from (path for n in names if n and (path := self.root / n.decode(errors="replace")).is_file())
        except (OSError, subprocess.SubprocessError):
            yield from (p for p in self.root.rglob("*") if p.is_file() and not _hidden(p.relative_to(self.root)))

    def find(self, name: str, page: Path) -> list[Path]:
        """The files that a path means: seen from the page, from the root, or else all that end in it."""
        for folder in (page.parent, self.root):
            path = (folder / name).resolve()
            if path.is_file():
                return [path]
        parts = Path(name).parts
        return [path for path in self.files if path.parts[-len(parts) :] == parts]

    @cached_property
    def extensions(self) -> set[str]:
        return {path.suffix[1:] for path in self.files if path.suffix}

    @cached_property
    def folders(self) -> set[str]:
        """The names of the folders in which files lie."""
        return {part for path in self.files for part in path.relative_to(self.root).parts[:-1]}

    def lines(self, path: Path) -> list[str]:
        if path not in self._lines:
            big = path.stat().st_size > LARGEST_BYTES
            self._lines[path] = [] if big else path.read_text(encoding="utf-8", errors="replace").splitlines()
        return self._lines[path]

    @cached_property
    def words(self) -> set[str]:
        """Every word of the code, and of the names of its files."""
        found = {word for path in self.files for word in re.findall(r"\w+", str(path.relative_to(self.root)))}
        for path in self.files:
            if path.suffix not in _TEXT:
                found.update(word for line in self.lines(path) for word in re.findall(r"\w+", line))
        return found

    @cached_property
    def foreign(self) -> set[str]:
        """Names whose attributes are not the repository's: what its Python files import from elsewhere, builtins."""
        own = self.folders | {path.stem for path in self.files}
        found = set(sys.stdlib_module_names) | set(dir(builtins))
        for path in self.files:
            if path.suffix == ".py":
                found |= {bound for bound, module in _imports("\n".join(self.lines(path))) if module not in own}
        return found


def _imports(text: str) -> Iterator[tuple[str, str]]:
    """The names that a Python file's imports bind, each with the package that it comes from."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((a.asname or a.name.partition(".")[0], a.name.partition(".")[0]) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            package = node.module.partition(".")[0]
            yield package, package
            yield from ((a.asname or a.name, package) for a in node.names)


# -------------------------------------------------------------------------------------------------------- the page


def sentences(text: str) -> Iterator[Sentence]:
    """The sentences of a page, fenced blocks and ignored lines left out; a list item or table row ends a sentence."""
    fence, start = "", 1
    block: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark.group(1)
            line = ""
        elif fence:
            line = ""
        if not line.strip() or _BLOCK.match(line):
            yield from _split(block, start)
            block = []
        if line.strip() and _IGNORE not in line:
            start = start if block else number
            block.append(line)
    yield from _split(block, start)


def _split(block: list[str], start: int) -> Iterator[Sentence]:
    text, place = "\n".join(block), 0
    for end in [m.end() for m in _SENTENCE_END.finditer(text)] + [len(text)]:
        if text[place:end].strip():
            yield Sentence(text[place:end], start + text[:place].count("\n"))
        place = end


def _check(page: Path, repository: Repository, counts: dict[str, int]) -> Iterator[Wrong]:
    text = page.read_text(encoding="utf-8", errors="replace")
    for sentence in sentences(text):
        whole = _URL.sub("", sentence.text)
        quoted = [" ".join(m["code"].split()) for m in _SPAN.finditer(sentence.text.replace("\n", " "))]
        places = list(_PLACE.finditer(whole))
        claims = [q for q in quoted if not _PLACE.search(q)]
        for place in places:
            if place["ext"] in repository.extensions:
                counts["citations"] += 1
                line = sentence.line + whole[: place.start()].count("\n")
                yield from _place(page, line, place, claims, repository)
        yield from _links(page, sentence, repository, counts)
        yield from _names(page, sentence, claims, repository, counts)


def _place(page: Path, at: int, place: re.Match[str], claims: list[str], repository: Repository) -> Iterator[Wrong]:
    """A citation: its file, its range, then what its sentence quotes."""
    cited, first = place.group(0), int(place["first"])
    last = int(place["last"] or first)
    files = repository.find(place["file"], page)
    if not files:
        yield Wrong(str(page), at, cited, "no file", f"{cited}: there is no file {place['file']}.")
        return
    fits = [f for f in files if 1 <= first <= last <= len(repository.lines(f))]
    if not fits:
        most = max(len(repository.lines(f)) for f in files)
        yield Wrong(str(page), at, cited, "out of range", f"{cited}: {place['file']} has {most} lines.")
        return
    held = [claim for claim in claims if any(_holds(repository.lines(f), claim) for f in fits)]
    if not claims or any(_held(repository.lines(f), first, last, claim) for f in fits for claim in held):
        return
    said = ", ".join(f"`{claim}`" for claim in (held or claims)[:3])
    if not held:
        told = f"{cited} is cited for {said}, and the file holds no such text."
        yield Wrong(str(page), at, cited, "content", told)
        return
    now = min(_where(repository.lines(fits[0]), held), key=lambda line: abs(line - first), default=None)
    yield Wrong(str(page), at, cited, "drifted", f"{cited} is cited for {said}, which is now at line {now}.", now)


def _holds(lines: list[str], claim: str) -> bool:
    return any(_in_line(line, claim) for line in lines)


def _where(lines: list[str], claims: list[str]) -> list[int]:
    return [number for number, line in enumerate(lines, 1) if any(_in_line(line, claim) for claim in claims)]


def _held(lines: list[str], first: int, last: int, claim: str) -> bool:
    """Whether the lines hold a claim, or the head of a definition around them does (a line indented less, above)."""
    if any(_in_line(line, claim) for line in lines[first - 1 : last]):
        return True
    indent = _indent(lines[first - 1]) if lines[first - 1].strip() else 0
    for line in reversed(lines[: first - 1]):
        if line.strip() and _indent(line) < indent:
            indent = _indent(line)
            if _in_line(line, claim):
                return True
    return False


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _in_line(line: str, claim: str) -> bool:
    """Whether a line holds a name as a whole word (``Net.forward()``: its last word), or other code as it stands."""
    if _NAME.fullmatch(claim):
        word = claim.removesuffix("()").rpartition(".")[2]
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", line) is not None
    return claim in " ".join(line.split())


def _links(page: Path, sentence: Sentence, repository: Repository, counts: dict[str, int]) -> Iterator[Wrong]:
    """Links to files of the repository, and paths in code spans whose first folder is one of its: they exist."""
    for link in _LINK.finditer(sentence.text):
        target = link["target"].partition("#")[0]
        if not target or "://" in target or target.startswith(("mailto:", "/", "<")):
            continue
        counts["citations"] += 1
        if not (page.parent / target).exists():
            at = sentence.line + sentence.text[: link.start()].count("\n")
            yield Wrong(str(page), at, target, "no file", f"The link leads to {target}, which does not exist.")
    for span in _SPAN.finditer(sentence.text):
        path = span["code"]
        if not re.fullmatch(r"[\w.-]+(?:/[\w.-]+)+/?", path) or path.split("/")[0] not in repository.folders:
            continue
        counts["citations"] += 1
        known = (repository.root / path).exists() or (page.parent / path).exists() or repository.find(path, page)
        if not known and not any(f"/{path.rstrip('/')}/" in str(f) for f in repository.files):
            at = sentence.line + sentence.text[: span.start()].count("\n")
            yield Wrong(str(page), at, path, "no file", f"There is no {path} in the repository.")


def _names(
    page: Path, sentence: Sentence, claims: list[str], repository: Repository, counts: dict[str, int]
) -> Iterator[Wrong]:
    """Quoted names that look like names of code: every word of them occurs in it."""
    for claim in dict.fromkeys(claims):
        if not _NAME.fullmatch(claim) or not _TELLING.search(claim) or _is_file(claim, repository):
            continue
        words = claim.removesuffix("()").split(".")
        if words[0] in repository.foreign:
            continue
        counts["names"] += 1
        absent = [word for word in words if word not in repository.words]
        if absent:
            before = sentence.text.replace("\n", " ").find(f"`{claim}`")
            at = sentence.line + sentence.text[: max(before, 0)].count("\n")
            yield Wrong(str(page), at, claim, "no name", f"`{claim}`: {absent[0]} occurs nowhere in the code.")


def _is_file(claim: str, repository: Repository) -> bool:
    return "." in claim and claim.rpartition(".")[2] in repository.extensions | _DATA
