"""Facts as sentences, in English and Chinese: what the program itself says when no model, or a small one, is asked."""

from bowerbird.reading.explain.text import told
from bowerbird.reading.facts import Fact, FactStore
from bowerbird.reading.wording import Language

_TELLING = (
    "module.tree module.parameters module.io optimizer.created loss.call event.step run.loop run.exception "
    "module.calls data.loader data.batch random.draw softmax.call run.stand_in run.warning scheduler.created"
).split()
"""What a reader asks for, the important topics first."""


def sentence(fact: Fact, lang: Language) -> str:
    """One sentence without its full stop; the line at which it was seen, and its id, follow."""
    where = f" (line {fact.line})" if lang == "en" else f"（第 {fact.line} 行）"
    return f"{told(fact, lang)}{where if fact.line else ''} [{fact.id}]"


def telling(facts: FactStore) -> list[Fact]:
    """The facts that a reader asks for, one of each line and subject."""
    chosen: dict[tuple[str, str, int | None], Fact] = {}
    for topic in _TELLING:
        for fact in facts.of(topic):
            chosen.setdefault((topic, fact.subject, fact.line), fact)
    probes = {(f.topic, f.subject, f.line): f for f in facts if f.topic.startswith("probe.")}
    return [*chosen.values(), *probes.values()]
