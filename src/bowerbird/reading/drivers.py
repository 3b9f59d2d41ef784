"""Drivers: how a program's definitions are used, taken from its docstrings and its project's pages, tests and scripts.

A file of a project is one of its users when it imports the program (or what imports the program) and names something
that is defined there.  From a page come its code blocks, from a test file calls of its tests, from a script the script
as it stands.  Nothing is run here, and nothing is believed: a driver counts once it has run and called what was asked.
"""

import ast
import contextlib
import doctest
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from bowerbird.errors import BowerbirdError
from bowerbird.reading.running.request import Driver
from bowerbird.reading.source import SKIPPED, Source, parse, text_of

MOST_FILES = 1_500
MOST_OF_A_KIND = 3
MOST_HOPS = 3
MOST_TESTS = 12
LARGEST_BYTES = 300_000
_FENCE = re.compile(r"^```[ \t]*(?:python|py|pycon)[^\n]*\n(.*?)^```", re.M | re.S)
_PROMPT = re.compile(r"^\s*>>> ", re.M)
_PAGES, _PROGRAMS, _COMMANDS = (".md", ".rst"), (".py", ".ipynb"), (".sh",)


def found(source: Source) -> list[Driver]:
    """The drivers of a program, most telling first: its docstrings, pages, tests, then scripts that import it."""
    tree = source.trees[source.main]
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name != "main"}
    names = {source.wanted} if source.wanted else defined
    if not names:
        return []
    own = islice(_of_docstrings(source.main, tree, names), MOST_OF_A_KIND)
    return [*own, *_of_project(Project(source.project), Path(source.main).resolve(), names)]


def likely(source: Source) -> list[Driver]:
    """The drivers of a program that only defines things; none of one that uses them by itself."""
    return found(source) if needed(source.trees[source.main]) or source.wanted else []


def taken(file: Path) -> Driver:
    """The driver that a file holds."""
    text, _ = text_of(file)
    parse(text, file.name)
    return Driver(str(file), text, str(file.absolute()), by="user")


def needed(tree: ast.Module) -> bool:
    """Whether a file only defines things: nothing of what it defines is used at its top level."""
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    rest = [n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)]
    return bool(defined) and not any(isinstance(n, ast.Name) and n.id in defined for r in rest for n in ast.walk(r))


def _of_project(project: "Project", main: Path, names: set[str]) -> Iterator[Driver]:
    users = list(project.users(main, names))
    others = [user for user in users if user.path != main and user.path.name != "__init__.py"]
    tests = [user for user in others if _is_test(user.path)]
    scripts = [user for user in others if user not in tests and _starts(user.tree)]
    scripts.sort(key=lambda user: (user.hops, ".step(" not in (text := project.text(user.path)), len(text)))
    yield from islice((d for path in project.pages for d in _of_page(path, project, users, names)), MOST_OF_A_KIND)
    yield from islice((d for user in tests for d in _of_tests(user, project)), MOST_OF_A_KIND)
    for user in scripts[:MOST_OF_A_KIND]:
        yield Driver(project.named(user.path), project.text(user.path), str(user.path))


def _of_docstrings(file: str, tree: ast.Module, names: set[str]) -> Iterator[Driver]:
    """Examples in docstrings: lines after ``>>>``, and blocks fenced as Python."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for code in _examples(ast.get_docstring(node) or ""):
                if mentions(code, names):
                    where = f"the docstring of {node.name}" if not isinstance(node, ast.Module) else "the docstring"
                    yield Driver(where, code, file)


def _examples(text: str) -> Iterator[str]:
    fenced = [match.group(1) for match in _FENCE.finditer(text)]
    for block in fenced or [text]:
        if _PROMPT.search(block):
            with contextlib.suppress(ValueError):
                yield from _whole("".join(e.source for e in doctest.DocTestParser().get_examples(block)))
        elif fenced:
            yield from _whole(block)


def _whole(code: str) -> Iterator[str]:
    with contextlib.suppress(BowerbirdError):
        parse(code, "example")
        yield code


def _of_page(path: Path, project: "Project", users: list["User"], names: set[str]) -> Iterator[Driver]:
    """The code blocks of a page that import the program, or what imports it, each with the blocks that go on from
    there, where they use what the program defines."""
    text = project.text(path)
    told: list[tuple[int, list[str]]] = []
    for match in _FENCE.finditer(text):
        for code in _examples(match.group(0)):
            imported = set(project.imported(ast.parse(code), path))
            if any(user.path in imported for user in users):
                told.append((text.count("\n", 0, match.start()) + 2, [code]))
            elif told:
                told[-1][1].append(code)
    for line, codes in told:
        if mentions(code := "\n".join(codes), names):
            yield Driver(f"{project.named(path)}, line {line}", code, str(path))


def _of_tests(user: "User", project: "Project") -> Iterator[Driver]:
    """A test file followed by calls of its tests: with the first value of each of their parameters, and with what their
    fixtures give; those that do not wait for a failure come first."""
    tree = ast.parse(project.text(user.path))
    tests = [node for node in tree.body if mentions(ast.unparse(node), user.names)]
    calls = [call for node in tests for call in _calls(node, _fixtures(tree.body))]
    calls.sort(key=lambda call: call[1])
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (node.name.startswith("test") or _is_fixture(node)):
            node.decorator_list = []
    if calls:
        text = ast.unparse(tree) + "\n\n" + "\n".join(call for call, _ in calls[:MOST_TESTS]) + "\n"
        yield Driver(project.named(user.path), text, str(user.path))


Given = dict[str, str]
"""What stands for a parameter of a test, as an expression."""


def _calls(node: ast.stmt, fixtures: Given) -> Iterator[tuple[str, bool]]:
    """The calls of a test, or of the tests of a class, each with whether it waits for a failure."""
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
        yield from _call(node, node.name, fixtures)
    elif isinstance(node, ast.ClassDef):
        cases = any("TestCase" in ast.unparse(base) for base in node.bases)
        suite = "__import__('unittest').TestSuite"
        fixtures = fixtures | _fixtures(node.body, f"{node.name}().", fixtures)
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name.startswith("test"):
                case = f"{suite}([{node.name}({method.name!r})]).debug()", "aises(" in ast.unparse(method)
                yield from [case] if cases else _call(method, f"{node.name}().{method.name}", fixtures, skip=1)


def _call(test: ast.FunctionDef, name: str, fixtures: Given, skip: int = 0) -> Iterator[tuple[str, bool]]:
    """A call of a test with the first value of each of its parameters; none where something else is needed."""
    given = fixtures | dict(pair for decorator in test.decorator_list for pair in _first_values(decorator))
    needed = [a.arg for a in test.args.args[skip : len(test.args.args) - len(test.args.defaults)]]
    if all(argument in given for argument in needed):
        call = f"{name}({', '.join(f'{argument}={given[argument]}' for argument in needed)})"
        yield call, "raises(" in ast.unparse(test)


def _is_fixture(node: ast.FunctionDef) -> bool:
    return any(re.match(r"(\w+\.)*fixture\b", ast.unparse(decorator)) for decorator in node.decorator_list)


def _fixtures(body: list[ast.stmt], owner: str = "", known: Given | None = None) -> Given:
    """What fixtures give, as expressions: calls of their functions with the first of their own parameters, and with
    what the fixtures that they need give."""
    found = {"tmp_path": "__import__('pathlib').Path(__import__('tempfile').mkdtemp())", **(known or {})}
    waiting = [node for node in body if isinstance(node, ast.FunctionDef) and _is_fixture(node)]
    for _ in range(len(waiting)):
        for node in waiting:
            needed = [a.arg for a in node.args.args[bool(owner) :]]
            given = found | {"request": f"__import__('types').SimpleNamespace(param={_first_of(node)})"}
            if node.name not in found and all(name in given for name in needed):
                call = f"{owner}{node.name}({', '.join(given[name] for name in needed)})"
                yields = any(isinstance(n, ast.Yield) for n in ast.walk(node))
                found[node.name] = f"next({call})" if yields else call
    return found


def _first_of(fixture: ast.FunctionDef) -> str:
    """The first of a fixture's parameters."""
    given = (
        k.value for d in fixture.decorator_list if isinstance(d, ast.Call) for k in d.keywords if k.arg == "params"
    )
    return next((ast.unparse(v.elts[0]) for v in given if isinstance(v, ast.List | ast.Tuple) and v.elts), "None")


def _first_values(decorator: ast.expr) -> Iterator[tuple[str, str]]:
    """What ``@pytest.mark.parametrize("a, b", [(1, 2), …])`` gives first: ``a`` 1 and ``b`` 2."""
    if not isinstance(decorator, ast.Call) or not ast.unparse(decorator.func).endswith("parametrize"):
        return
    if len(decorator.args) < 2 or not isinstance(decorator.args[1], ast.List | ast.Tuple):
        return
    words = decorator.args[0]
    named = words.elts if isinstance(words, ast.Tuple | ast.List) else [words]
    names = [w.strip() for n in named if isinstance(n, ast.Constant) for w in str(n.value).split(",")]
    for first in decorator.args[1].elts[:1]:
        values = first.elts if len(names) > 1 and isinstance(first, ast.Tuple | ast.List) else [first]
        yield from zip(names, map(ast.unparse, values), strict=False)


def _is_test(path: Path) -> bool:
    return path.stem.startswith("test") or path.stem.endswith("test")


def _starts(tree: ast.Module) -> bool:
    """Whether a file does something when it is run: calls at its top level, beyond settings."""
    blocks = (ast.Expr, ast.For, ast.While, ast.With, ast.If, ast.Assign, ast.Try)
    running = [n for n in tree.body if isinstance(n, blocks)]
    return any(isinstance(inner, ast.Call) for node in running for inner in ast.walk(node))


def mentions(text: str, names: Collection[str]) -> bool:
    """Whether a text names one of these."""
    return bool(names) and re.search(rf"\b({'|'.join(map(re.escape, names))})\b", text) is not None


@dataclass
class User:
    """A file that uses the program; ``names`` are those of the program's that it hands on, ``hops`` how far it is."""

    path: Path
    tree: ast.Module
    names: set[str]
    hops: int


@dataclass
class Project:
    """The files of a project, and who imports whom; what is hidden, installed or long is left out."""

    folder: Path
    _texts: dict[Path, str] = field(default_factory=dict)

    @cached_property
    def files(self) -> list[Path]:
        found: list[Path] = []
        for folder, below, names in os.walk(self.folder):
            below[:] = sorted(name for name in below if name not in SKIPPED and not name.startswith("."))
            found += [Path(folder, name) for name in sorted(names) if name.endswith((*_PAGES, *_PROGRAMS, *_COMMANDS))]
            if len(found) > MOST_FILES:
                break
        return found[:MOST_FILES]

    @cached_property
    def pages(self) -> list[Path]:
        """Pages, those nearest to the top first."""
        return sorted(
            (f for f in self.files if f.suffix in _PAGES), key=lambda f: (len(f.parts), f.name != "README.md")
        )

    def commands(self, program: Path) -> Iterator[str]:
        """The lines of pages and shell scripts that start a program, without the program."""
        for path in (*self.pages, *(f for f in self.files if f.suffix in _COMMANDS)):
            for line in self.text(path).replace("\\\n", " ").splitlines():
                _, found, rest = line.partition(program.name)
                if found:
                    yield rest

    def named(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    def text(self, path: Path) -> str:
        """The text of a file, empty where it is too long or cannot be read."""
        if path not in self._texts:
            self._texts[path] = ""
            with contextlib.suppress(OSError, BowerbirdError):
                if path.stat().st_size <= LARGEST_BYTES:
                    self._texts[path] = text_of(path)[0]
        return self._texts[path]

    def users(self, main: Path, names: set[str]) -> Iterator[User]:
        """The program itself, and the files that import it directly or through others, nearest first."""
        waiting, seen = [User(main, ast.Module([], []), names, 0)], {main}
        while waiting:
            user = waiting.pop(0)
            yield user
            for path in self.files if user.hops < MOST_HOPS else ():
                if path in seen or path.suffix not in _PROGRAMS:
                    continue
                if path.name != "__init__.py" and not mentions(self.text(path), user.names):
                    continue
                with contextlib.suppress(BowerbirdError):
                    tree = parse(self.text(path), path.name)
                    if user.path in set(self.imported(tree, path)):
                        seen.add(path)
                        waiting.append(User(path, tree, _handed_on(path, tree, user.names), user.hops + 1))

    def imported(self, tree: ast.Module, file: Path) -> Iterator[Path]:
        """The files of the project that a file imports."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._files_of(alias.name, self._folders(file))
            elif isinstance(node, ast.ImportFrom):
                folders = [file.parents[node.level - 1]] if 0 < node.level <= len(file.parents) else self._folders(file)
                names = [alias.name for alias in node.names]
                yield from self._files_of(node.module or "", folders)
                for name in names:
                    yield from self._files_of(".".join(filter(None, (node.module, name))), folders)

    def _folders(self, file: Path) -> list[Path]:
        """Where a file's absolute imports may begin: beside it, above it, and in ``src``."""
        above = [f for f in (file.parent, *file.parent.parents) if f.is_relative_to(self.folder)]
        return [*above, self.folder / "src"]

    def _files_of(self, name: str, folders: list[Path]) -> Iterator[Path]:
        for folder in folders:
            base = folder.joinpath(*name.split("."))
            yield from (p for p in (base / "__init__.py", base.with_name(f"{base.name}.py")) if p in self._known)

    @cached_property
    def _known(self) -> set[Path]:
        return set(self.files)


def _handed_on(path: Path, tree: ast.Module, names: set[str]) -> set[str]:
    """By which names others use the program through this file: its own, or those that it only passes on."""
    own = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return names if path.name == "__init__.py" or not own else own
