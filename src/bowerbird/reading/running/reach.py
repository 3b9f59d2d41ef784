"""Which files of its own a program may read: those that it imports, and those beside it that it names.

What is imported is followed through the texts, from file to file.  A file or folder that is named in a string literal
is readable where it lies below the program's folder, is not hidden, and where that folder is neither a home folder nor
one around it.  Everything else of the user's stays closed to a program under observation.
"""

import ast
import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bowerbird.reading.running.guards import is_secret
from bowerbird.reading.running.kernel import around_home
from bowerbird.reading.running.naming import NEVER_OWN, folders_of, package_of
from bowerbird.reading.running.request import Request

MOST_FILES = 2_000
LARGEST_BYTES = 1_000_000
LONGEST_NAME = 200


@dataclass
class Reach:
    """``files`` can be read, and what lies below the ``folders`` among ``data``."""

    request: Request
    files: dict[Path, None] = field(default_factory=dict)
    data: dict[Path, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = Path(self.request.root)
        self.folders = [Path(os.path.realpath(folder)) for folder in folders_of(self.request)]
        for file, text in self.request.texts.items():
            self._follow(Path(file), text)
        for driver in self.request.drivers:
            self._follow(Path(driver.file), driver.text, naming=driver.by != "model")

    def readable(self) -> list[Path]:
        return [*self.files, *self.data]

    def _follow(self, file: Path, text: str, naming: bool = True) -> None:
        """Adds a file, what it names (but for what a model wrote), and the files that it imports."""
        self.files[file] = None
        try:
            nodes = list(ast.walk(ast.parse(text)))
        except (SyntaxError, ValueError, RecursionError):
            return
        words = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        for word in words if naming else ():
            self._named(word)
        for name in (*_imported(nodes, self._package(file)), *(w for w in words if _dotted(w))):
            for found in self._files_of(name):
                if found not in self.files and len(self.files) < MOST_FILES and found.stat().st_size < LARGEST_BYTES:
                    self._follow(found, found.read_text(encoding="utf-8", errors="replace"), naming)

    def _package(self, file: Path) -> list[str]:
        for folder in self.folders:
            if file.resolve().is_relative_to(folder):
                return list(file.resolve().relative_to(folder).parts[:-1])
        return (package_of(self.request) or "").split(".")

    def _files_of(self, name: str) -> Iterator[Path]:
        """The files of a dotted name: of each package on the way, and of the module itself."""
        parts = name.split(".")
        for folder in self.folders if parts[0] not in NEVER_OWN else ():
            for length in range(1, len(parts) + 1):
                base = folder.joinpath(*parts[:length])
                yield from (p for p in (base / "__init__.py", base.with_name(f"{base.name}.py")) if p.is_file())

    def _named(self, word: str) -> None:
        """Adds a file or folder below the program's own folder that a string literal names, and the files of a pattern
        such as ``data/part.{}.txt``."""
        if not 0 < len(word.encode(errors="replace")) <= LONGEST_NAME or "\0" in word or "\n" in word:
            return
        for folder in dict.fromkeys((*self.folders, self.root)):
            if around_home(folder):
                continue
            paths = [Path(os.path.realpath(folder / word)), *self._matching(folder, word)]
            for path in (p for p in paths if p != folder and p.is_relative_to(folder) and os.path.exists(p)):
                hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
                if not hidden and not is_secret(str(path)):
                    self.data[path] = None

    @staticmethod
    def _matching(folder: Path, word: str) -> Iterator[Path]:
        """The files of a name with places for others in it; a folder stands before the first of these."""
        named = re.sub(r"\{[^{}]*\}|%[-0-9.]*[sdif]", "*", glob.escape(word))
        if named != glob.escape(word) and "/" in named.partition("*")[0] and not named.startswith("/"):
            found = glob.iglob(str(Path(glob.escape(str(folder)), named)))
            yield from (Path(os.path.realpath(path)) for path in itertools.islice(found, MOST_FILES))


def _imported(nodes: Iterable[ast.AST], package: list[str]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *(node.module.split(".") if node.module else [])]
            yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _dotted(word: str) -> bool:
    return len(word) <= LONGEST_NAME and all(part.isidentifier() for part in word.split("."))
