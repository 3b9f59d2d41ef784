"""The numbers of a claim against its grounds: each must be found, be a number of what the claim "
"says, and belong to whom it says."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bowerbird.reading.tutor.grounds import Ground
from bowerbird.reading.tutor.names import CODE, Mention
from bowerbird.reading.tutor.quantities import Quantity, normalise, quantities
from bowerbird.reading.tutor.wording import clauses, located_concepts

LINE_WORDS = re.compile(
    r"\b(?:lines?|L)\s*(\d+)(?:\s*(?:-|–|to|and|through)\s*(\d+))?|第\s*(\d+)\s*(?:[-到至–~]\s*(\d+)\s*)?行", re.I
)
FACT_WORDS = re.compile(r"\[?\{?\bF\d+\b\}?\]?")
_CALL = re.compile(r"\b[A-Za-z_][\w.]*\([^()]*(?:\([^()]*\)[^()]*)*\)")
_CHAIN_GAP = re.compile(r"\s*[×x*,;，]\s*|\s*,\s*")
_ROLE_WORDS = frozenset(
    "input output kernel stride padding learning_rate lr batch epoch beta momentum decay noise hidden "
    "channel head dropout slope seed "
    "parameter layer gradient loss step loop clip eps embedding feature optimizer call std mean variance min max "
    "buffer norm multiply add subtract divide power".split()
)


@dataclass
class Numerals:
    """What became of the numbers of one claim."""

    refuted: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    """Concepts that the numbers' own grounds account for."""


def mask(text: str, *spans: tuple[int, int]) -> str:
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def line_numbers(text: str) -> list[int]:
    """The line numbers that a sentence names."""
    return [int(n) for match in LINE_WORDS.finditer(normalise(text)) for n in match.groups() if n]


def squeezed(code: str) -> str:
    return re.sub(r"\s+", "", code).replace('"', "'")


def check_numbers(
    text: str,
    grounds: Sequence[Ground],
    mentions: Sequence[Mention],
    cited_code: str,
    counted: Sequence[tuple[int, int]],
    owners: Mapping[str, frozenset[str]],
) -> Numerals:
    """``counted`` are spans of numbers that a relation has decided; ``owners`` the modules that each "
    "optimiser moves."""
    done = Numerals()
    text = normalise(text)
    spoken = [m.span() for m in LINE_WORDS.finditer(text)] + [m.span() for m in FACT_WORDS.finditer(text)]
    for match in [*CODE.finditer(text), *_CALL.finditer(text)]:
        code = match[0].strip("`")
        if re.search(r"[A-Za-z_]", code) and squeezed(code) in squeezed(cited_code):
            spoken.append(match.span())
            done.evidence.append(f"`{code}` stands in the cited lines")
    open_text = mask(text, *spoken)
    found = [q for q in quantities(open_text) if not any(a <= q.start < b for a, b in counted)]
    for group in _chains(found, open_text):
        _check(group, text, grounds, mentions, owners, done)
    return done


def _chains(found: list[Quantity], text: str) -> list[list[Quantity]]:
    """Numbers that are written as one shape or tuple stay together: 3×64×64, (0.5, 0.999)."""
    groups: list[list[Quantity]] = []
    for quantity in found:
        gap = text[groups[-1][-1].end : quantity.start] if groups else ""
        bracket = text.rfind("(", 0, quantity.start) > text.rfind(")", 0, quantity.start) or text.rfind(
            "[", 0, quantity.start
        ) > text.rfind("]", 0, quantity.start)
        cross = re.fullmatch(r"\s*[×x*]\s*", gap)
        if groups and (cross or (bracket and re.fullmatch(r"\s*[,;，、]\s*", gap))):
            groups[-1].append(quantity)
        else:
            groups.append([quantity])
    return groups


def _check(
    group: list[Quantity],
    text: str,
    grounds: Sequence[Ground],
    mentions: Sequence[Mention],
    owners: Mapping[str, frozenset[str]],
    done: Numerals,
) -> None:
    start, end = group[0].start, group[-1].end
    shown = text[start:end].strip()
    wanted = _nearest_mention(start, end, text, mentions)
    role = _nearest_role(start, end, text)
    if group[0].ordinal:
        done.unproven.append(f"the position that {shown} states is not checked")
        return
    equal = [g for g in grounds if _equal(group, g)]
    if not equal and len(group) > 1 and _is_product(group, text, grounds):
        done.evidence.append(f"{shown} is arithmetic")
        return
    if not equal:
        done.refuted.append(f"{shown} is in none of the cited facts or lines{_instead(grounds, wanted, role)}")
        return
    owned = [g for g in equal if wanted is None or not g.subjects or _belongs(g, wanted, text, owners)]
    if not owned:
        whose = ", ".join(sorted({s for g in equal for s in g.subjects})[:3])
        done.refuted.append(f"{shown} belongs to {whose}, not to {wanted.text if wanted else ''}")
        return
    if role is not None and not (fitting := [g for g in owned if role in g.roles]):
        meant = ", ".join(sorted(owned[0].roles)[:4]) or "something else"
        done.refuted.append(f"{shown} at {owned[0].where} is a number of {meant}, not of {role}")
        return
    fitting = [g for g in owned if role is None or role in g.roles]
    if role is None and len(group) == 1:
        near = _clause_words(start, text)
        fitting = [g for g in fitting if (g.roles | g.context) & near]
        if not fitting:
            done.unproven.append(f"the sentence does not say what {shown} is a number of")
            return
    if len(group) == 1 and all("only batch" in g.context for g in fitting) and role != "batch":
        done.refuted.append(f"{shown} is the size of the batch in {fitting[0].where}")
        return
    done.evidence.append(f"{shown} is in {fitting[0].where}")
    done.words |= fitting[0].roles


def _equal(group: list[Quantity], ground: Ground) -> bool:
    if isinstance(ground.value, tuple):
        values = ground.value
        if len(group) == 1:
            return False
        whole = len(values) == len(group) and all(
            q.states(v, measured=ground.measured) for q, v in zip(group, values, strict=True)
        )
        tail = len(values) == len(group) + 1 and all(
            q.states(v, measured=ground.measured) for q, v in zip(group, values[1:], strict=True)
        )
        return whole or (tail and "shape" in ground.roles)
    return len(group) == 1 and not group[0].ordinal and group[0].states(ground.value, measured=ground.measured)


def _is_product(group: list[Quantity], text: str, grounds: Sequence[Ground]) -> bool:
    """28×28 beside a grounded 784 is arithmetic."""
    product = 1.0
    for quantity in group:
        product *= quantity.value
    stated = any(q.value == product for q in quantities(text))
    return stated and any(g.value == product for g in grounds)


def _clause(position: int, text: str) -> tuple[int, int]:
    return next(((a, b) for a, b in clauses(text) if a <= position < b), (0, len(text)))


def _clause_words(position: int, text: str) -> set[str]:
    a, b = _clause(position, text)
    return {c for s, _, c in located_concepts(text) if a <= s < b}


def _nearest_mention(start: int, end: int, text: str, mentions: Sequence[Mention]) -> Mention | None:
    """Whom a number belongs to: the last one named before it in its clause, else the next, else the last one before."""
    a, b = _clause(start, text)
    before = [m for m in mentions if a <= m.start and m.end <= start]
    after = [m for m in mentions if end <= m.start < b]
    earlier = [m for m in mentions if m.end <= a]
    if after and re.match(r"\s*(?:\w+\s+){0,3}(?:of|in|for)\s+(?:the\s+)?$", text[end : after[0].start]):
        return after[0]
    return next(iter(before[-1:] or after[:1] or earlier[-1:]), None)


def _nearest_role(start: int, end: int, text: str) -> str | None:
    """What a number is said to be a number of: the role word beside it, or the nearest of its clause."""
    a, b = _clause(start, text)
    if re.search(r"(?:\bfrom|从)\s*$", text[:start]):
        return "input"
    if re.search(r"(?:\bfrom\b|从)[^,.;]*(?:\bto|→|到)\s*$", text[a:start]):
        return "output"
    roles = [(s, e, c) for s, e, c in located_concepts(text) if a <= s < b and c in _ROLE_WORDS]
    after = [r for r in roles if r[0] >= end and re.fullmatch(r"[\s-]*(?:[a-z]+[\s-]+)?|[个层维]*", text[end : r[0]])]
    before = [
        r
        for r in roles
        if r[1] <= start
        and re.fullmatch(
            r"\s*(?:of|=|is|are|:|为|是|：|＝|设为|等于|\s|a|an|set\s+to|equals|was|（|\(|\[)*\s*", text[r[1] : start]
        )
    ]
    if before:
        return before[-1][2]
    if after:
        return after[0][2]
    return min(roles, key=lambda r: min(abs(r[0] - end), abs(start - r[1])))[2] if roles else None


def _belongs(ground: Ground, mention: Mention, text: str, owners: Mapping[str, frozenset[str]]) -> bool:
    moved = frozenset().union(*(owners.get(s, frozenset()) for s in ground.subjects))
    if (ground.subjects | moved) & mention.keys:
        return True
    parts = {s for s in ground.subjects for k in mention.keys if s.startswith(f"{k}.")}
    return (
        bool(parts)
        and bool(re.search(r"layer|module|block|层|模块|块", text, re.I))
        and "parameter" not in ground.roles
    )


def _instead(grounds: Sequence[Ground], mention: Mention | None, role: str | None) -> str:
    """What stands there of the same kind, so that the repair knows."""
    same = [g for g in grounds if role in g.roles and (mention is None or not g.subjects or g.subjects & mention.keys)]
    values = list(dict.fromkeys(_written(g.value) for g in same))[:4]
    return f"; {role} is {', '.join(values)} there" if values and role else ""


def _written(value: float | tuple[float, ...]) -> str:
    return "(" + ", ".join(map(_written, value)) + ")" if isinstance(value, tuple) else f"{value:.12g}"
