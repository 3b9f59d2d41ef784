"""A source: the user's code as text with line numbers, from a file, a folder, a notebook or ``module:Class``.

A notebook is read as its code cells in order, magics turned into comments, so that every line keeps a place
(cell, line).  What cannot be read is refused with one sentence.
"""

import ast
import codecs
import importlib.util
import itertools
import json
import os
import re
import shutil
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

from bowerbird.errors import BowerbirdError
from bowerbird.reading.running.kernel import around_home
from bowerbird.reading.wording import Language

LARGEST_BYTES = 1_000_000
MOST_CUT = 8
"""How many lines at the end of a text may belong to a statement that was cut off."""
SKIPPED = {".git", ".venv", "venv", "env", "node_modules", "__pycache__", "build", "dist", "site-packages"}
_MARKERS = (
    (".git",), ("pyproject.toml", "setup.py", "setup.cfg"), ("README.md", "README.rst", "README", "requirements.txt"),
)  # fmt: skip
MOST_LEVELS = 6


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A stranger's words without what would command a terminal: escapes, controls, marks that reverse the direction."""
    return _CONTROL.sub("\ufffd", text)


@dataclass(frozen=True)
class Source:
    """``main`` is the file that is run; ``texts`` maps every file of the program that was read to its text.

    Files are named by their absolute paths, whatever way the program was named.
    """

    path: Path
    main: str
    texts: dict[str, str]
    trees: dict[str, ast.Module] = field(repr=False)
    root: Path
    """The folder of the user's files: what lies below it is the user's code."""
    project: Path = Path()
    """The folder of the project that the program belongs to; ``root`` where nothing marks one."""
    wanted: str | None = None
    """The class that was asked for, of ``module:Class``."""
    cells: tuple[tuple[int, int], ...] = ()
    """Of a notebook: the number of each code cell and the line at which it starts."""
    mended: tuple[str, ...] = ()
    """What was changed so that a text that was pasted from a page is Python: quotes unescaped, a cut end left off."""

    def where(self, line: int, lang: Language = "en") -> str:
        """A line as the user knows it: ``line 12``, or ``cell 3, line 4`` of a notebook."""
        for number, start in reversed(self.cells):
            if line >= start:
                inner = line - start + 1
                return f"cell {number}, line {inner}" if lang == "en" else f"第 {number} 个单元第 {inner} 行"
        return f"line {line}" if lang == "en" else f"第 {line} 行"


def open_source(target: Path | str) -> Source:
    """Reads a file, a folder, a notebook or ``module:Class``."""
    name = str(target)
    module, _, wanted = name.rpartition(":")
    if module and not Path(name).exists():
        return _of_module(module, wanted)
    path = Path(target)
    if not path.exists():
        raise BowerbirdError(f"There is no file or folder {path}.")
    if path.is_dir():
        return _of_folder(path)
    return _of_file(path)


def _of_module(module: str, wanted: str) -> Source:
    path = Path(module)
    if not path.is_file():
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            raise BowerbirdError(f"There is no Python module {module}; write FILE or module:Class.")
        path = Path(spec.origin)
    source = _of_file(path)
    if not any(isinstance(n, ast.ClassDef) and n.name == wanted for n in ast.walk(source.trees[source.main])):
        raise BowerbirdError(f"{path} defines no class {wanted}.")
    return replace(source, wanted=wanted)


def _of_file(path: Path) -> Source:
    text, cells = text_of(path)
    text, mended = (text, ()) if cells else pasted(text)
    tree = parse(text, path.name)
    main = str(path.absolute())
    root = _import_root(path, tree)
    return Source(
        path, main, {main: text}, {main: tree}, root, project_of(path.resolve().parent, root), None, cells, mended
    )


def pasted(text: str) -> tuple[str, tuple[str, ...]]:
    """A program as a page prints it: where it is no Python, quotes are unescaped, and an end that was cut off is left
    out, as far as that makes it Python; says what was changed.  Lines keep their numbers."""
    if _is_python(text):
        return text, ()
    said = []
    if '\\"' in text and not _is_python(text):
        text = text.replace('\\"', '"')
        said.append('\\" was read as "')
    lines = text.splitlines()
    for cut in range(min(MOST_CUT, len(lines) - 1) + 1):
        short = "\n".join(lines[: len(lines) - cut]) + "\n"
        if _is_python(short) and any(line.strip() for line in lines[: len(lines) - cut]):
            if cut:
                said.append(f"it breaks off; nothing after line {len(lines) - cut} was read")
            return short, tuple(said)
    return text, ()


def _is_python(text: str) -> bool:
    try:
        parse(text, "")
    except BowerbirdError:
        return False
    return True


def _import_root(path: Path, tree: ast.Module) -> Path:
    """The folder from which a file's own package is imported: the first one upwards that is no package.

    A file that imports relatively lies in a package, whether its folder has an ``__init__.py`` or not.
    """
    folder, levels = path.resolve().parent, relative_levels(tree)
    while folder != folder.parent and ((folder / "__init__.py").is_file() or levels > 0):
        folder, levels = folder.parent, levels - 1
    return folder


def project_of(folder: Path, root: Path | None = None) -> Path:
    """The project around a folder: where the repository begins, else the package's settings, else the last README; a
    folder around a package rather than a package.

    Where nothing marks one it is ``root``, from which a package is imported.  That may lie above the repository, and
    what else lies there is nobody's business.
    """
    above = list(itertools.takewhile(lambda folder: not around_home(folder), (folder, *folder.parents)))[:MOST_LEVELS]
    for names in _MARKERS:
        marked = [folder for folder in above if any((folder / name).exists() for name in names)]
        marked = [folder for folder in marked if not (folder / "__init__.py").exists()] or marked
        if marked:
            return marked[0 if names is not _MARKERS[-1] else -1]
    return root or folder


def relative_levels(tree: ast.Module) -> int:
    """How far up the relative imports of a file reach: 1 for ``from .nets import Net``, 0 where there is none."""
    return max((n.level for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)), default=0)


def _of_folder(folder: Path) -> Source:
    files = [
        path
        for path in sorted(folder.rglob("*.py"))
        if not SKIPPED & set(path.relative_to(folder).parts) and path.stat().st_size <= LARGEST_BYTES
    ]
    texts, trees = {}, {}
    for path in files[:200]:
        try:
            text, _ = text_of(path)
            trees[str(path.absolute())] = parse(text, path.name)
            texts[str(path.absolute())] = text
        except BowerbirdError:
            continue
    if not texts:
        raise BowerbirdError(f"There is no readable Python file in {folder}.")
    main = max(texts, key=lambda file: (_runs(trees[file]), Path(file).stem in ("train", "main"), -len(file)))
    return Source(folder, main, texts, trees, folder.resolve(), folder.resolve())


def _runs(tree: ast.Module) -> int:
    """How much a file looks like what is started: 2 it trains and guards ``__main__``, 1 one of both, 0 neither."""
    words = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    guarded = any(isinstance(n, ast.If) and "__main__" in ast.unparse(n.test) for n in tree.body)
    return int("backward" in words) + int(guarded)


def text_of(path: Path) -> tuple[str, tuple[tuple[int, int], ...]]:
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise BowerbirdError(
            f"{path.name} is {size / 1e6:.1f} MB long; programs of more than {LARGEST_BYTES / 1e6:.0f} MB are not read."
        )
    raw = path.read_bytes()
    if b"\0" in raw:
        raise BowerbirdError(f"{path.name} is not Python source: it holds binary data.")
    text = raw.decode(_encoding(raw))
    if path.suffix == ".ipynb":
        return _of_notebook(text, path.name)
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", " "), ()


def _encoding(raw: bytes) -> str:
    """The first encoding of those that people use in which a file can be read; the last one reads anything."""
    for encoding in ("utf-8-sig" if raw.startswith(codecs.BOM_UTF8) else "utf-8", "gb18030"):
        try:
            raw.decode(encoding)
            return encoding
        except UnicodeDecodeError:
            continue
    return "latin-1"


def write_back(path: Path, text: str) -> None:
    """Writes a changed text over the file that it was read from, in its encoding and with its line ends, or not at all.

    A file that links to another stays a link; a file that cannot be replaced is left as it is.
    """
    path = path.resolve()
    raw = path.read_bytes()
    ends = "\r\n" if raw.count(b"\r\n") * 2 > raw.count(b"\n") else "\n"
    lines = text if raw.endswith((b"\n", b"\r")) else text.rstrip("\n")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(lines.replace("\n", ends).encode(_encoding(raw)))
        shutil.copymode(path, part)
        part.replace(path)
    except (OSError, UnicodeEncodeError) as error:
        part.unlink(missing_ok=True)
        raise BowerbirdError(f"{path} could not be changed and is as it was: {error}.") from None


def _of_notebook(text: str, name: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    try:
        notebook = json.loads(text)
        cells = notebook.get("cells") or [c for sheet in notebook["worksheets"] for c in sheet["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BowerbirdError(f"{name} is not a notebook: it is no JSON with cells.") from None
    lines: list[str] = []
    starts = []
    for number, cell in enumerate(cells, 1):
        if cell.get("cell_type") != "code":
            continue
        code = cell.get("source", cell.get("input", ""))
        code = code if isinstance(code, str) else "".join(code)
        starts.append((number, len(lines) + 1))
        foreign = code.lstrip().startswith("%%") and not code.lstrip().startswith(("%%time", "%%capture"))
        lines += [_without_magic(line, foreign) for line in code.splitlines()] + [""]
    return "\n".join(lines) + "\n", tuple(starts)


def _without_magic(line: str, foreign: bool) -> str:
    stripped = line.lstrip()
    indent = line[: len(line) - len(stripped)]
    if foreign:
        return f"# {line}"
    if stripped.startswith(("%", "!", "?")) or stripped.endswith("??"):
        return f"{indent}pass  # {stripped}" if indent else f"# {stripped}"
    return line


_PYTHON_2 = re.compile("Missing parentheses in call to '(print|exec)'|multiple exception types must|leading zeros in")
_OLD_NAMES = frozenset("xrange raw_input unicode basestring unichr".split())
_OLD_METHODS = frozenset("iteritems itervalues iterkeys has_key".split())


def python2(tree: ast.Module) -> str:
    """What of a file that parses is of Python 2 alone: ``xrange at line 3``; empty where nothing is."""
    bound = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    bound |= {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    bound |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id in _OLD_NAMES - bound:
            return f"{call.func.id} at line {call.lineno}"
        if isinstance(call.func, ast.Attribute) and call.func.attr in _OLD_METHODS - bound:
            return f"{call.func.attr} at line {call.lineno}"
    return ""


def parse(text: str, name: str) -> ast.Module:
    """The syntax tree, or one sentence that says at which line it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, filename=name)
    except SyntaxError as error:
        if _PYTHON_2.match(error.msg or ""):
            raise BowerbirdError(
                f"{name} is Python 2 (line {error.lineno}): Python 3 cannot run it, so it is not judged."
            ) from None
        raise BowerbirdError(f"{name} is not valid Python: line {error.lineno}: {error.msg}.") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise BowerbirdError(f"{name} cannot be read as Python: {error}.") from None
