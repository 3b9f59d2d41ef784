"""Rules of promises: what the text says of the layers, and initialisations that reach none."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.facts import FactStore
from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Program, Unit, dotted, last_name, names_in
from bowerbird.reading.rules import rule
from bowerbird.reading.rules.messages import say
from bowerbird.reading.running.run import Run

_CLAIMS = (
    (re.compile(r"\b(dcgan|(deep )?convolution(al|s)?|conv ?nets?|cnn)\b|卷积", re.I), "convolutional", "conv"),
    (re.compile(r"\b(lstm|gru|recurrent)\b|循环神经网络", re.I), "recurrent", "rnn|lstm|gru"),
    (re.compile(r"\b(transformer|self-attention)\b", re.I), "attention", "atten|former|attn|softmax|qkv|query"),
)  # fmt: skip
_NOT = re.compile(r"\b(not|no|without|instead|unlike|rather|replace\w*|non|never|than)\b|不|非|没有", re.I)


@rule("G20", "The text promises other layers than there are", family="gan")
def promised_layers(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A class that is called convolutional and has only linear layers."""
    for unit in program:
        for info in unit.classes.values():
            if not info.is_module or not any(True for _ in unit.calls("Linear", under=info.node)):
                continue
            words = _vocabulary(unit, info.node)
            for text, line in _descriptions(unit, info.node):
                if any(claim.search(text) and _uses(words, needed) for claim, _, needed in _CLAIMS):
                    continue  # one of several kinds that the line names
                for claim, what, needed in _CLAIMS:
                    said = claim.search(text)
                    if said is None or _NOT.search(text) or _uses(words, needed):
                        continue
                    yield say(
                        "G20", "warning", line, file=unit.file, info=info, what=what, group=said.group(0),
                        node=", ".join(sorted(_layers(unit, info.node))) or "none of torch.nn",
                    )  # fmt: skip


def _uses(words: set[str], kind: str) -> bool:
    return any(re.search(kind, word, re.I) for word in words)


def _vocabulary(unit: Unit, node: ast.AST, depth: int = 3) -> set[str]:
    """Every name that a class uses, and those of the program's classes and functions that it uses."""
    words = names_in(node) | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    words -= {node.name} if isinstance(node, ast.ClassDef) else set()
    if depth:
        for word in list(words):
            other = unit.classes[word].node if word in unit.classes else unit.functions.get(word)
            if other is not None and other is not node:
                words |= _vocabulary(unit, other, depth - 1) | {word}
    return words


def _layers(unit: Unit, node: ast.AST) -> set[str]:
    return {
        last_name(c) for c in unit.all(ast.Call, under=node) if (dotted(c.func) or "").startswith(("nn.", "torch.nn."))
    }


def _descriptions(unit: Unit, node: ast.ClassDef) -> Iterator[tuple[str, int]]:
    """The docstring line by line, and the comments just above a class."""
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        for offset, text in enumerate(first.value.value.splitlines()):
            yield text, first.lineno + offset
    above = node.lineno - 1
    while above in unit.comments:
        yield unit.comments[above], above
        above -= 1


@rule("G21", "The initialisation is never applied", family="gan")
def initialised(program: Program, facts: FactStore, run: Run) -> Iterator[Finding]:
    """A function that initialises weights is never used, or looks for classes by a name that none has."""
    kinds = {row["class"] for tree in facts.of("module.tree") for row in tree["modules"] or ()}
    for unit in program:
        text = unit.text
        for name, function in unit.functions.items():
            word = name.rpartition(".")[2]
            if not re.search(r"init", word) or word.startswith("__") or not function.args.args:
                continue
            body = ast.unparse(function)
            if "classname" not in body and "isinstance" not in body and "__class__" not in body:
                continue
            if len(re.findall(rf"\b{re.escape(word)}\b", text)) == 1 and "nn.init" in body + "nn.init" * (
                "init." in body
            ):
                yield Finding(
                    "G21", "warning", function.lineno, f"{word} initialises weights and is never used.",
                    f"Its name occurs only here, in {len(unit.lines)} lines.", f"Call model.apply({word}).", unit.file,
                )  # fmt: skip
            yield from _missed(unit, function, kinds)


def _missed(unit: Unit, function: ast.AST, kinds: set[str]) -> Iterator[Finding]:
    for call in unit.calls("find", under=function):
        wanted = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        if not isinstance(wanted, str) or not wanted:
            continue
        holder = unit.parents.get(call)
        if not isinstance(holder, ast.Compare):
            yield say("G21", "warning", call.lineno, file=unit.file, wanted=wanted)
            continue
        near = sorted(k for k in kinds if wanted.lower() in k.lower())
        if near and not any(wanted in k for k in kinds):
            yield say(
                "G21b", "error", call.lineno, file=unit.file, wanted=wanted, near=near, near_2=", ".join(near[:3]),
                cased=_cased(near[0], wanted),
            )  # fmt: skip


def _cased(name: str, wanted: str) -> str:
    place = name.lower().find(wanted.lower())
    return name[place : place + len(wanted)]
