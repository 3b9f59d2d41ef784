"""What is asked of the model, and its hypotheses: {line, claim, edits, observable}.

Nothing in an answer is trusted.  What is not in form is left out, each with one sentence that says why.
"""

import ast
import itertools
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, TypeGuard

from bowerbird.errors import BowerbirdError
from bowerbird.reading.check import CheckResult
from bowerbird.reading.findings import Finding
from bowerbird.reading.patching import Edit, Patch
from bowerbird.reading.program import Program
from bowerbird.reading.proposing.material import MARKS, Malformed, importable, known, told, windows
from bowerbird.reading.source import parse, printable
from bowerbird.reading.tutor.endpoint import Message, tokens
from bowerbird.reading.tutor.prompt import mark_of

MOST = 6
MOST_PARTS = 6
MOST_EDITS = 8
MOST_LINES = 60
LONGEST_CLAIM = 400
LONGEST_OBSERVABLE = 6_000
_MODULES = frozenset("torch math numpy scipy einops copy itertools functools types collections random typing".split())
_READING = {"inspect", "linecache", "getsource", "open", "exec", "eval", "compile", "globals", "locals", "vars", "dir",
            "__import__", "__file__"}  # fmt: skip
_SYSTEM = {"os", "sys", "io", "pathlib", "inspect", "ast", "importlib", "builtins", "subprocess", "pickle", "shutil"}
_OF_CODE = {"__code__", "__globals__", "__dict__", "getsource", "load", "fromfile"}


@dataclass(frozen=True)
class Hypothesis:
    """``patch`` is None where the model offers no change, ``observable`` empty where it offers no assertion."""

    line: int
    claim: str
    patch: Patch | None = None
    observable: str = ""
    withdrawn: bool = False


def prompts(result: CheckResult, room: int) -> Iterator[list[Message]]:
    """What is sent: the task, the program with its line numbers, and what is known of it, within ``room`` tokens.

    A program that is longer is asked about in several parts.
    """
    mark = mark_of(result.program.main.text)
    task = resources.files(__package__).joinpath("prompt.txt").read_text("utf-8").format(most=MOST, mark=mark)
    facts = list(_known(result))
    left = room - tokens(task)
    for window in windows(result, left - tokens("\n".join(facts)) - MARKS)[:MOST_PARTS]:
        yield [{"role": "system", "content": task}, told(result, facts, left, [window])]


def _known(result: CheckResult) -> Iterator[str]:
    yield from known(result)
    for finding in result.findings:
        if finding.severity in ("error", "warning") and finding.file == result.program.file:
            yield f"- known already, propose it not again: line {finding.line}: {finding.message}"
    for driver in (driver for driver, _ in result.run.driven if driver.asked):
        yield f"- this driver was run after the program; its names are there too:\n{driver.text}"


def read(answer: str, program: Program) -> tuple[list[Hypothesis], list[str]]:
    """The hypotheses of an answer, and a sentence for each that was left out."""
    try:
        rows = _rows(answer)
    except Malformed as wrong:
        return [], [f"The model's answer was left out: {wrong}."]
    found: list[Hypothesis] = []
    left: list[str] = []
    for number, row in enumerate(rows[:MOST], 1):
        try:
            hypothesis, without = _hypothesis(row, program)
            found.append(hypothesis)
            left += [f"Hypothesis {number} stays without {part}" for part in without]
        except Malformed as wrong:
            left.append(f"Hypothesis {number} was left out: {wrong}.")
    if len(rows) > MOST:
        left.append(f"{len(rows) - MOST} hypotheses beyond the first {MOST} were left out.")
    return found, left


def _rows(answer: str) -> list[Any]:
    """The list of hypotheses, wherever it stands in the answer (a fence, a greeting)."""
    for start in (m.start() for m in re.finditer(r"\{", answer)):
        try:
            told, _ = json.JSONDecoder(strict=False).raw_decode(answer, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(told, dict) and isinstance(told.get("hypotheses"), list):
            return list(told["hypotheses"])
    raise Malformed("it holds no JSON object with a list of hypotheses")


def _hypothesis(row: Any, program: Program) -> tuple[Hypothesis, list[str]]:
    """A hypothesis, and what of it was left out: a claim counts although its change or assertion is not in form."""
    if not isinstance(row, dict):
        raise Malformed("it is no JSON object")
    claim, line = row.get("claim"), row.get("line")
    if not isinstance(claim, str) or not claim.strip():
        raise Malformed("it makes no claim")
    if not _is_whole(line) or not 1 <= line <= len(program.main.lines):
        raise Malformed(f"the program has {len(program.main.lines)} lines, and no line {_short(line)}")
    said = " ".join(printable(claim).split())[:LONGEST_CLAIM]
    patch, observable, without = None, "", []
    try:
        patch = _patch(row.get("edits"), said, program)
    except Malformed as wrong:
        without.append(f"its edits: {wrong}.")
    try:
        observable = _observable(row.get("observable"), program)
    except Malformed as wrong:
        without.append(f"its observable: {wrong}.")
    return Hypothesis(line, said, patch, observable, row.get("withdraw") is True), without


def _patch(rows: Any, claim: str, program: Program) -> Patch | None:
    if rows in (None, []):
        return None
    if not isinstance(rows, list) or len(rows) > MOST_EDITS:
        raise Malformed(f"they are no list of at most {MOST_EDITS}")
    edits = sorted((_edit(row, program) for row in rows), key=lambda edit: (edit.first, edit.last))
    for one, other in itertools.pairwise(edits):
        if other.first <= one.last:
            raise Malformed(f"two of them change line {other.first}")
    patch = Patch(f"LLM: {claim[:60]}", tuple(edits))
    try:
        patched(program, patch)
    except Malformed:
        patch = replace(patch, edits=tuple(_indented(edit, program.main.lines) for edit in edits))
        patched(program, patch)
    if patch.apply(program.source.texts)[program.file].split() == program.main.text.split():
        raise Malformed("they change nothing")
    return patch


def _edit(row: Any, program: Program) -> Edit:
    new = row.get("new") if isinstance(row, dict) else None
    new = new.splitlines() if isinstance(new, str) else new
    if not isinstance(new, list) or len(new) > MOST_LINES or not all(isinstance(line, str) for line in new):
        raise Malformed(f"each needs first, last and new, a list of at most {MOST_LINES} lines")
    first, last = row.get("first"), row.get("last")
    if not _is_whole(first) or not _is_whole(last) or not 1 <= first <= len(program.main.lines) + 1:
        raise Malformed(f"one begins at line {_short(first)}, which there is not")
    if not first - 1 <= last <= len(program.main.lines):
        raise Malformed(f"one ends at line {_short(last)}, which does not fit its beginning")
    return Edit(program.file, first, last, tuple(line.rstrip("\n") for line in new))


def _indented(edit: Edit, lines: list[str]) -> Edit:
    """An edit whose lines are indented as the first that they replace: models leave the indentation out."""
    there = lines[edit.first - 1] if edit.first <= len(lines) else ""
    block = textwrap.dedent("\n".join(edit.new))
    return replace(edit, new=tuple(textwrap.indent(block, there[: len(there) - len(there.lstrip())]).splitlines()))


def patched(program: Program, patch: Patch) -> Program:
    """The program with a patch; raises Malformed where that is no Python."""
    source = program.source
    texts = patch.apply(source.texts)
    try:
        trees = {file: parse(text, file) if text != source.texts[file] else source.trees[file]
                 for file, text in texts.items()}  # fmt: skip
    except BowerbirdError as error:
        raise Malformed(f"with them {str(error).rstrip('.').rpartition('/')[2]}") from None
    return Program(replace(source, texts=texts, trees=trees))


def _observable(text: Any, program: Program) -> str:
    """An assertion about behaviour: it may not look at the text of the program."""
    if text in (None, ""):
        return ""
    if not isinstance(text, str) or len(text) > LONGEST_OBSERVABLE:
        raise Malformed(f"it is no text of at most {LONGEST_OBSERVABLE:,} characters")
    try:
        tree = parse(text, "it")
    except BowerbirdError as error:
        raise Malformed(str(error).rstrip(".")) from None
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise Malformed("it asserts nothing")
    if named := sorted(_of_text(tree, _modules_of(program))):
        raise Malformed(f"it uses {named[0]}, which is about the text and not about what it does")
    return text


def _modules_of(program: Program) -> set[str]:
    """The modules that an assertion may import: those of the field, those that the program imports, and itself."""
    imported = {a.name for n in ast.walk(program.main.tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(program.main.tree) if isinstance(n, ast.ImportFrom)}
    own = {part for name in importable(program.source) for part in name.split(".")[:1]}
    return {name.partition(".")[0] for name in imported} - _SYSTEM | own | _MODULES


def _of_text(tree: ast.AST, modules: set[str]) -> set[str]:
    """What an assertion uses that looks at the program's text, at files, or beyond."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name for name in imported if name.partition(".")[0] not in modules}
    return names & _READING | attributes & _OF_CODE | foreign


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def known_already(hypothesis: Hypothesis, findings: Sequence[Finding], file: str) -> bool:
    """Whether an error of our own stands at the very line."""
    return any(f.severity == "error" and f.file == file and f.line == hypothesis.line for f in findings)


def _short(value: Any) -> str:
    return printable(str(value))[:20]
