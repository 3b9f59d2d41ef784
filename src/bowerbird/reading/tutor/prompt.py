"""What the model is told: the rules of its answer, and the program as data.

The source and the facts stand between two lines that carry a hash of this program, so that no comment can close them;
each source line carries its number.  Whatever stands there is quoted material.  Nothing depends on the model heeding
this: its claims are checked either way.
"""

import hashlib
import json
from pathlib import Path

from bowerbird.reading.tutor.endpoint import Message, tokens
from bowerbird.reading.tutor.material import Material, sentence
from bowerbird.reading.tutor.retrieval import rank
from bowerbird.reading.tutor.verify import Verdict
from bowerbird.reading.wording import Language, table

PROMPTS = table(Path(__file__).with_name("prompts.toml"))
AGAIN: str = PROMPTS["again"]
_LANGUAGES = {"en": "English", "zh": "Chinese (simplified)"}
MOST_CLAIMS = 12


def opening(material: Material, question: str, lang: Language, room: int) -> list[Message]:
    """The system message, and the program with the facts that matter to the question, within ``room`` tokens."""
    mark = mark_of(material.unit.text)
    source = _source(material, int(room * 0.6))
    facts = _facts(material, question, lang, room - tokens(source) - 900)
    findings = "\n".join(
        json.dumps({k: f.to_json()[k] for k in ("rule", "severity", "line", "message")}, ensure_ascii=False)
        for f in material.findings if f.severity in ("error", "warning")
    )  # fmt: skip
    told = f"{mark}\nSOURCE\n{source}\nFACTS\n{facts}\nFINDINGS\n{findings or 'none'}\n{mark}"
    system = PROMPTS["system"].format(language=_LANGUAGES[lang], most=MOST_CLAIMS, mark=mark)
    return [{"role": "system", "content": system}, {"role": "user", "content": told}]


def mark_of(text: str) -> str:
    """A line that a program cannot contain: it is made from the hash of its text."""
    return f"=== DATA {hashlib.sha256(text.encode()).hexdigest()[:16]} ==="


def _source(material: Material, room: int) -> str:
    lines = [f"{number:>5}| {line}" for number, line in enumerate(material.unit.lines, 1)]
    while lines and tokens("\n".join(lines)) > room:
        lines = lines[: len(lines) * 9 // 10]
    cut = len(material.unit.lines) - len(lines)
    return "\n".join(lines) + (f"\n({cut} more lines are not shown)" if cut else "")


def _facts(material: Material, question: str, lang: Language, room: int) -> str:
    facts = material.telling()
    said = [sentence(fact, lang) for fact in facts]
    relevant = [i for _, i in rank(question, said)]
    order = dict.fromkeys([*relevant, *range(len(said))])
    chosen: list[int] = []
    for i in order:
        room -= tokens(said[i]) + 1
        if room < 0:
            break
        chosen.append(i)
    return "\n".join(f"{facts[i].id} {said[i]}" for i in sorted(chosen))


def repair(failed: list[Verdict]) -> Message:
    """What was wrong with which claim."""
    rows = [{"id": v.claim.id, **v.claim.states, "verdict": v.status, "because": list(v.reasons[:3])} for v in failed]
    return {"role": "user", "content": PROMPTS["repair"].format(rows=json.dumps(rows, ensure_ascii=False, indent=0))}
