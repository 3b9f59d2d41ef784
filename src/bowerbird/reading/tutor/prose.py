"""Prose for small models: the program states the facts, the model only joins them.

It is given numbered placeholders with their sentences and asked for a short text that uses the placeholders.  Every
placeholder becomes the program's own sentence, verified by construction.  What the model adds is kept as background if
it says nothing of this program, and is otherwise judged, and shown, as a claim.
"""

import re
from collections.abc import Sequence

from bowerbird.reading.tutor.claims import Claim, plain
from bowerbird.reading.tutor.endpoint import Message
from bowerbird.reading.tutor.material import Material, sentence
from bowerbird.reading.tutor.retrieval import rank
from bowerbird.reading.tutor.show import say
from bowerbird.reading.tutor.verify import Verdict, verify
from bowerbird.reading.wording import Language

_PLACE = re.compile(r"\{?\[?(F\d+)\]?\}?")


def chosen_facts(material: Material, question: str, lang: Language, most: int = 6) -> list[str]:
    """The ids of the facts that answer a question best; the plainest ones where nothing matches."""
    told = material.telling()
    whole = {f.subject for f in told if f.topic == "module.tree"}  # whose number of parameters is said with its class
    facts = [f for f in told if f.topic != "module.parameters" or f.subject not in whole]
    ranked = [facts[i].id for _, i in rank(question, [sentence(f, lang) for f in facts])][:most]
    return ranked or [f.id for f in facts[:most]]


def ask_for_prose(material: Material, question: str, ids: Sequence[str], lang: Language) -> list[Message]:
    rows = [f"{{{fact.id}}} {sentence(fact, lang)}" for fact in material.telling() if fact.id in ids]
    first = f"{{{ids[0]}}}" if ids else "{F1}"
    text = say("join", lang, facts="\n".join(rows), question=question, first=first)
    return [{"role": "user", "content": text}]


def read_prose(answer: str, material: Material, ids: Sequence[str], lang: Language) -> list[Verdict]:
    """The facts in the order in which the model placed them, its own words between them, then the facts it left out."""
    verdicts: list[Verdict] = []
    placed: list[str] = []
    given = {_bare(sentence(fact, lang)): fact.id for fact in material.telling() if fact.id in ids}
    answer = plain(answer)[:4_000]
    for a, b in sentences(answer):
        part = answer[a:b].strip()
        words = _PLACE.sub("", part).strip(" ,.;:，。；：-*")
        copied = given.get(_bare(words))
        found = [*_PLACE.findall(part), *([copied] if copied else [])]
        here = [i for i in dict.fromkeys(found) if i in ids and i not in placed]
        if len(re.findall(r"\w", words)) > 2 and copied is None:
            own = words if _PLACE.search(part) else part
            verdicts.append(verify(Claim({"is": "reason", "text": own}, id=len(verdicts)), material, lang))
        for identity in here:
            verdicts.append(_stated(material, identity, lang))
            placed.append(identity)
    return verdicts + [_stated(material, i, lang) for i in ids if i not in placed]


def _bare(words: str) -> str:
    """A sentence without its marks and its id: a model that copies a fact has placed it."""
    return re.sub(r"[\W_]+", "", _PLACE.sub("", words)).lower()


def _stated(material: Material, identity: str, lang: Language) -> Verdict:
    """A fact, said by the program."""
    return verify(Claim({"is": "fact", "id": identity}), material, lang)


def sentences(text: str) -> list[tuple[int, int]]:
    """The spans of the sentences; brackets and backticks are never cut."""
    closed = [m.span() for m in re.finditer(r"`[^`]*`|\([^()]*\)|\[[^\[\]]*\]|（[^（）]*）", text)]
    spans, start = [], 0
    for match in re.finditer(r"(?<=[.!?;])\s+|[。；！？;\n]+", text):
        if not any(a < match.end() and match.start() < b for a, b in closed):
            spans.append((start, match.start()))
            start = match.end()
    return [(a, b) for a, b in [*spans, (start, len(text))] if text[a:b].strip()]
