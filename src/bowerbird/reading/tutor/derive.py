"""What a sentence says of the program's structure, read from its words: the relations that it asserts, each decided."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bowerbird.reading.program import receiver
from bowerbird.reading.tutor.material import Material
from bowerbird.reading.tutor.names import CODE, Mention
from bowerbird.reading.tutor.quantities import Quantity, quantities
from bowerbird.reading.tutor.relations import ENDINGS, PARTS, Outcome, Status
from bowerbird.reading.tutor.wording import NEGATION, clauses, located_concepts, sentences

_UPDATES = re.compile(
    r"\b(?:updat\w+|train(?:s|ed|ing)?|optimi[sz]\w+|steps|stepped|moves?|moved|adjusts?|adjusted|owns?|"
    r"owned|belongs? to|parameters of|weights of|"
    r"responsible for|holds|learns?)\b|更新|训练|优化(?!器)|负责|参数",
    re.I,
)
_PASSIVE = re.compile(
    r"\b(?:updated|trained|optimi[sz]ed|moved|adjusted|owned|stepped)(?:\s+only)?\s+(?:by|with|through|"
    r"using|via)\b|由|被",
    re.I,
)
_HAS = re.compile(
    r"\b(?:contains?|has|have|includes?|consists? of|made (?:up )?of|comprises?|is part of|inside)\b|包含|"
    r"含有|包括|拥有|由.*组成",
    re.I,
)
_BEFORE = re.compile(
    r"\b(?:before|precedes?|prior to|earlier than|ahead of)\b|之前|以前|先于|先",
    re.I,
)
_AFTER = re.compile(
    r"\b(?:after|follows?|following|later than|subsequent to)\b|之后|以后|晚于",
    re.I,
)
_ENDS = re.compile(
    r"\b(?:ends?|ending) (?:in|with|on)\b|\b(?:last|final|output) (?:layer|activation)\b|结尾|末尾|"
    r"最后一层|输出层",
    re.I,
)
_CALLED = re.compile(
    r"\b(?:called|used|invoked|executed|applied)\b|调用|使用|用到",
    re.I,
)
_COUNTED = {
    "layer": "layer",
    "layers": "layer",
    "optimizer": "optimizer",
    "optimizers": "optimizer",
    "optimiser": "optimizer",
    "optimisers": "optimizer",
    "class": "class",
    "classes": "class",
    "module": "module",
    "modules": "module",
    "network": "module",
    "networks": "module",
    "层": "layer",
    "优化器": "optimizer",
    "类": "class",
    "模块": "module",
    "网络": "module",
}


@dataclass
class Derived:
    outcomes: list[Outcome] = field(default_factory=list)
    counted: list[tuple[int, int]] = field(default_factory=list)
    """Spans of numbers that a relation has decided."""
    denials: list[int] = field(default_factory=list)
    """Places in clauses whose denial a relation has decided."""
    ordered: bool = False


def derive(text: str, mentions: Sequence[Mention], material: Material, lines: tuple[int, int] | None) -> Derived:
    done = Derived()
    _order(text, mentions, material, lines, done)
    if not done.ordered:
        _ownership(text, mentions, material, done)
    _counts(text, mentions, material, done)
    _parts(text, mentions, material, lines, done)
    _functions(text, material, lines, done)
    return done


def _denied(text: str, position: int) -> tuple[bool, int]:
    """Whether the clause around a place denies, and where that clause starts."""
    a, b = next(((a, b) for a, b in clauses(text) if a <= position < b), (0, len(text)))
    return bool(NEGATION.search(CODE.sub(lambda m: " " * len(m[0]), text[a:b]))), a


def _sort(mention: Mention, material: Material) -> str:
    return next((material.names.entities[k].sort for k in sorted(mention.keys) if k in material.names.entities), "")


def _ownership(text: str, mentions: Sequence[Mention], material: Material, done: Derived) -> None:
    for a, b in sentences(text):
        here = [m for m in mentions if a <= m.start < b]
        optimizers = [m for m in here if _sort(m, material) == "optimizer"]
        modules = [m for m in here if _sort(m, material) == "module"]
        if not optimizers or not modules or not _UPDATES.search(CODE.sub(" ", text[a:b])):
            continue
        passive = bool(_PASSIVE.search(text[a:b]))
        for module in modules:
            earlier = [o for o in optimizers if o.start < module.start]
            later = [o for o in optimizers if o.start > module.start]
            optimizer = (later or earlier[-1:])[0] if passive else (earlier[-1:] or later)[0]
            denied, start = _denied(text, max(module.start, optimizer.start))
            done.outcomes.append(material.relations.updates(optimizer.keys, module.keys, not denied))
            done.denials += [start] if denied else []


def _counts(text: str, mentions: Sequence[Mention], material: Material, done: Derived) -> None:
    concepts = list(located_concepts(text))
    for quantity in quantities(text):
        what = _counted(quantity, text, concepts)
        if what is None or quantity.ordinal or quantity.percent:
            continue
        owner = (
            None
            if what in ("optimizer", "class", "module")
            else _owner(quantity.start, quantity.end, text, mentions, material)
        )
        if owner is None and what not in ("optimizer", "class", "module"):
            continue
        outcome = material.relations.count(owner.keys if owner else frozenset(), what, quantity.value)
        if outcome.status != "unknown":
            done.outcomes.append(outcome)
            done.counted.append((quantity.start, quantity.end))


def _counted(quantity: Quantity, text: str, concepts: list[tuple[int, int, str]]) -> str | None:
    """What a number counts: the kind of layer named in the next words, or layers, optimisers, classes."""
    rest = text[quantity.end :]
    near = re.match(r"(?:[\s-]*(?:`?[A-Za-z.-]+`?)){1,3}|\s*[个层种]?[\u4e00-\u9fff]{1,6}", rest)
    if near is None or re.match(r"\s*(?:×|x|\*|,|-?dim|维)", rest):
        return None
    reach = quantity.end + near.end()
    for start, end, concept in concepts:
        if quantity.end <= start < reach and (concept in PARTS or concept == "optimizer"):
            between = text[quantity.end : start]
            if not re.search(r"[,;()]|\b(?:and|to|with|in|of|from)\b|和|到", between) and end <= reach + 12:
                return concept
    word = re.match(r"\s*(?:[a-z-]+\s+)?([a-z]+)|\s*[个种]?(优化器|层|类|模块|网络)", rest)
    return _COUNTED.get(word[1] or word[2]) if word else None


def _owner(start: int, end: int, text: str, mentions: Sequence[Mention], material: Material) -> Mention | None:
    modules = [m for m in mentions if _sort(m, material) == "module"]
    a, b = next(((a, b) for a, b in clauses(text) if a <= start < b), (0, len(text)))
    after = [m for m in modules if end <= m.start < b]
    before = [m for m in modules if a <= m.start and m.end <= start]
    earlier = [m for m in modules if m.end <= start]
    return next(iter(before[-1:] or after[:1] or earlier[-1:]), None)


def _parts(
    text: str, mentions: Sequence[Mention], material: Material, lines: tuple[int, int] | None, done: Derived
) -> None:
    """Layers of a kind in a module, the kind of an optimiser, a named part of a module, what is never called."""
    for start, end, concept in located_concepts(text):
        if any(m.start <= start < m.end for m in mentions):
            continue
        denied, clause = _denied(text, start)
        if concept in PARTS and _ENDS.search(text[clause:end]):
            owner = _owner(start, end, text, mentions, material)
            keys = owner.keys if owner else frozenset()
            done.outcomes.append(material.relations.ends_in(keys, concept, lines[1] if lines else 0, not denied))
            done.denials += [clause] if denied else []
        elif concept in PARTS and (owner := _owner(start, end, text, mentions, material)) is not None:
            done.outcomes.append(material.relations.contains(owner.keys, concept, not denied))
            done.denials += [clause] if denied else []
        elif concept in PARTS and denied and not mentions:
            there = material.relations.anywhere(concept)
            says = f"the program {'has' if there else 'has no'} {concept}"
            done.outcomes.append(Outcome("fails" if there else "holds", says, words=frozenset({concept}), negated=True))
            done.denials.append(clause)
        elif concept in ENDINGS:
            optimizers = [m for m in mentions if _sort(m, material) == "optimizer"]
            near = [m for m in optimizers if m.end <= start][-1:] or optimizers[:1]
            owner = None if near else _owner(start, end, text, mentions, material)
            keys = (
                near[0].keys
                if near
                else frozenset(o for o, moved in material.owners.items() if owner is not None and owner.keys & moved)
            )
            if keys:
                done.outcomes.append(material.relations.made_of(keys, concept, not denied))
                done.denials += [clause] if denied else []
    for a, b in clauses(text):
        modules = [m for m in mentions if a <= m.start < b and _sort(m, material) == "module"]
        denied, _ = _denied(text, a)
        if len(modules) == 2 and _HAS.search(text[a:b]):
            reverse = re.search(r"is part of|inside|属于", text[a:b])
            whole, part = modules[::-1] if reverse else modules
            done.outcomes.append(material.relations.part_of(whole.keys, part.keys, not denied))
            done.denials += [a] if denied else []
        elif len(modules) == 1 and denied and _CALLED.search(text[a:b]) and not any(a <= d < b for d in done.denials):
            done.outcomes.append(material.relations.called(modules[0].keys, holds=False))
            done.denials.append(a)


def _order(
    text: str, mentions: Sequence[Mention], material: Material, lines: tuple[int, int] | None, done: Derived
) -> None:
    """ "A before B", "after A, B", 先A再B: of code in backticks, or of the updates of two modules."""
    match = _BEFORE.search(text) or _AFTER.search(text)
    if match is None:
        return
    after = _BEFORE.search(text) is None
    snippets = [(m.start(), m[1]) for m in CODE.finditer(text)]
    relations = material.relations
    sides: list[tuple[int, str, list[int]]] = [
        (at, code, found) for at, code in snippets if (found := relations.lines_of(code))
    ]
    if len(sides) < 2 and _UPDATES.search(text):
        sides = [
            (m.start, m.text, relations.steps_of(m.keys))
            for m in mentions
            if _sort(m, material) in ("module", "optimizer")
        ]
    if len(sides) != 2:
        return
    first, second = sides
    chinese_suffix = (
        match[0] in ("之前", "以前", "之后", "以后") and first[0] < match.start() and second[0] < match.start()
    )
    fronted = match.start() < first[0] and match[0].lower() in ("before", "after", "following", "prior to")
    if (after and not fronted) or (not after and fronted):
        first, second = second, first
    if chinese_suffix and re.match(r"[，,]", text[match.end() :]):
        first, second = second, first
    denied, start = _denied(text, match.start())
    done.outcomes.append(relations.before(first[2], second[2], f"{first[1]} and {second[1]}", lines, not denied))
    done.ordered = True
    done.denials += [start] if denied else []


_OF = re.compile(r"\b(exponential|logarithm|log|square root|absolute value) of (?:the )?`([^`]+)`", re.I)
_CALLS = {"exponential": "exp", "logarithm": "log", "log": "log", "square root": "sqrt", "absolute value": "abs"}


_BETWEEN = re.compile(
    r"`([^`]+)`\s+(?:is\s+|are\s+)?(multiplied by|times|added to|plus|divided by|minus|subtracted from)\s+`([^`]+)`",
    re.I,
)
_OPERATORS: dict[str, type[ast.operator]] = {
    "multiplied by": ast.Mult,
    "times": ast.Mult,
    "added to": ast.Add,
    "plus": ast.Add,
    "divided by": ast.Div,
    "minus": ast.Sub,
    "subtracted from": ast.Sub,
}


def _functions(text: str, material: Material, lines: tuple[int, int] | None, done: Derived) -> None:
    """ "the exponential of `x`" holds where exp is taken of x itself; "`a` times `b`" where they are multiplied."""
    if lines is None:
        return
    for match in _OF.finditer(text):
        calls = [c for c in material.unit.calls(_CALLS[match[1].lower()]) if lines[0] <= c.lineno <= lines[1]]
        taken = [_plain(c.args[0] if c.args else receiver(c) or c) for c in calls]
        _one_of(re.sub(r"\s+", "", match[2]), taken, f"{match[1]} is taken of", done, "exponential", match[1].lower())
    for match in _BETWEEN.finditer(text):
        kind = _OPERATORS[match[2].lower()]
        places = [
            n for n in material.unit.all(ast.BinOp) if isinstance(n.op, kind) and lines[0] <= n.lineno <= lines[1]
        ]
        pairs = ["|".join(sorted((_plain(n.left), _plain(n.right)))) for n in places]
        wanted = "|".join(sorted(re.sub(r"\s+", "", match[group]) for group in (1, 3)))
        _one_of(wanted, pairs, f"{match[2]} stands between", done, kind.__name__.lower())


def _plain(node: ast.AST) -> str:
    return re.sub(r"\s+", "", ast.unparse(node))


def _one_of(wanted: str, found: list[str], says: str, done: Derived, *words: str) -> None:
    """An outcome where the code has any such place: the wanted one is among them or not."""
    if found:
        status: Status = "holds" if wanted in found else "fails"
        done.outcomes.append(Outcome(status, f"{says} {', '.join(found)}", words=frozenset(words)))
